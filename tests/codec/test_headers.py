"""Headers and whole frames: each is built, parsed and refused by both codecs alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..support.frames import MASK, xor
from ..support.frames import header as header_of

INTERESTING_LENGTHS = [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537]
HUGE_LENGTHS = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1]


@pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
@pytest.mark.parametrize("length", INTERESTING_LENGTHS + HUGE_LENGTHS)
def test_headers_of_every_length_are_built_and_parsed(codec, length, mask):
    header = header_of(0x82, length, mask)
    assert codec.build_header(0x82, length, mask) == header
    expected = len(header), 0x82, length, mask or bytes(4)
    for data in (header, header + b"payload", bytearray(header), memoryview(header)):
        assert codec.parse_header(data, mask is not None, False, length) == expected
    for size in range(len(header)):
        assert codec.parse_header(header[:size], mask is not None, False, length) is None


@pytest.mark.parametrize("first", [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A])
def test_headers_of_every_opcode_are_parsed(codec, first):
    assert codec.parse_header(bytes([first, 5]), False, False, 5) == (2, first, 5, bytes(4))


@pytest.mark.parametrize("first", [0x41, 0x42, 0xC1, 0xC2])
def test_rsv1_is_accepted_with_an_extension_that_defines_it(codec, first):
    assert codec.parse_header(bytes([first, 0]), False, True, 0) == (2, first, 0, bytes(4))


@pytest.mark.parametrize("mask", [None, b"", MASK, bytearray(MASK), memoryview(MASK)])
@pytest.mark.parametrize("length", [*INTERESTING_LENGTHS, 2**20])
def test_serialize_returns_header_and_masked_payload(codec, length, mask):
    payload = bytes(length)
    if mask == b"":
        with pytest.raises(ValueError, match="a mask has 4 bytes, not 0"):
            codec.serialize(0x82, payload, mask)
        return
    masked = payload if mask is None else (MASK * (length // 4 + 1))[:length]
    frame = header_of(0x82, length, mask and bytes(mask)) + masked
    for data in (payload, bytearray(payload), memoryview(payload)):
        result = codec.serialize(0x82, data, mask)
        assert type(result) is bytes
        assert result == frame


@given(
    first=st.integers(0, 255),
    payload=st.binary(max_size=300),
    mask=st.none() | st.binary(min_size=4, max_size=4),
)
def test_a_frame_is_its_header_and_its_payload(codec, first, payload, mask):
    masked = payload if mask is None else xor(payload, mask)
    assert codec.serialize(first, payload, mask) == header_of(first, len(payload), mask) + masked


# name: (start of a frame, the arguments of its reader, the error)
SERVER = {"masked": True, "rsv1": False, "max_size": 1000}
CLIENT = {"masked": False, "rsv1": False, "max_size": 1000}
DEFLATE = {"masked": True, "rsv1": True, "max_size": 1000}
REFUSED = {
    "rsv1": (b"\xc1\x80", SERVER, "RESERVED_BITS"),
    "rsv2": (b"\xa1\x80", DEFLATE, "RESERVED_BITS"),
    "rsv3": (b"\x91\x80", DEFLATE, "RESERVED_BITS"),
    "rsv1 and rsv2": (b"\xe1\x80", DEFLATE, "RESERVED_BITS"),
    "rsv1 on a continuation": (b"\xc0\x80", DEFLATE, "RESERVED_BITS"),
    "rsv1 on a ping": (b"\xc9\x80", DEFLATE, "RESERVED_BITS"),
    "rsv1 before its opcode": (b"\xc3\x80", DEFLATE, "RESERVED_BITS"),
    **{
        f"opcode {opcode}": (bytes([0x80 | opcode, 0x80]), SERVER, "RESERVED_OPCODE")
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "opcode before fragmented": (b"\x0b\x80", SERVER, "RESERVED_OPCODE"),
    "opcode before mask": (b"\x83\x00", SERVER, "RESERVED_OPCODE"),
    "opcode before a huge length": (b"\x83\xff" + b"\xff" * 8, SERVER, "RESERVED_OPCODE"),
    "no mask to a server": (b"\x81\x05hello", SERVER, "FRAME_NOT_MASKED"),
    "mask to a client": (b"\x81\x85" + MASK, CLIENT, "FRAME_MASKED"),
    "mask before fragmented": (b"\x09\x00", SERVER, "FRAME_NOT_MASKED"),
    "fragmented close": (b"\x08\x80", SERVER, "FRAGMENTED_CONTROL"),
    "fragmented ping": (b"\x09\x80", SERVER, "FRAGMENTED_CONTROL"),
    "fragmented pong": (b"\x0a\x80", SERVER, "FRAGMENTED_CONTROL"),
    "fragmented before long": (b"\x09\xfe", SERVER, "FRAGMENTED_CONTROL"),
    "ping of 126": (b"\x89\xfe", SERVER, "LONG_CONTROL"),
    "close of 127": (b"\x88\x7f", CLIENT, "LONG_CONTROL"),
    "0 in 2 bytes": (b"\x82\xfe\0\0", SERVER, "LENGTH_NOT_MINIMAL"),
    "125 in 2 bytes": (b"\x82\xfe\0\x7d", SERVER, "LENGTH_NOT_MINIMAL"),
    "0 in 8 bytes": (b"\x82\xff" + bytes(8), SERVER, "LENGTH_NOT_MINIMAL"),
    "65535 in 8 bytes": (b"\x82\x7f" + (65535).to_bytes(8), CLIENT, "LENGTH_NOT_MINIMAL"),
    "2**63": (b"\x82\xff" + (2**63).to_bytes(8), SERVER, "LENGTH_TOP_BIT"),
    "2**64 - 1": (b"\x82\x7f" + b"\xff" * 8, CLIENT, "LENGTH_TOP_BIT"),
    "1001 of 1000": (header_of(0x82, 1001, MASK), SERVER, "TOO_BIG"),
    "2**63 - 1 of 1000": (header_of(0x82, 2**63 - 1, None), CLIENT, "TOO_BIG"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parse_header_refuses_at_the_deciding_byte(codec, case):
    """Later bytes do not change the refusal."""
    data, told, name = REFUSED[case]
    needed = 2 if name not in ("TOO_BIG", "LENGTH_TOP_BIT", "LENGTH_NOT_MINIMAL") else len(data)
    for size in range(needed):
        assert codec.parse_header(data[:size], **told) is None
    for more in (data[:needed], data, data + b"payload"):
        with pytest.raises(ValueError) as caught:
            codec.parse_header(more, **told)
        assert caught.value.args == (getattr(codec, name),)


@pytest.mark.parametrize("max_size", [0, 999, 1000, 2**63 - 1, 2**63, 2**70])
def test_parse_header_takes_a_payload_up_to_the_limit(codec, max_size):
    length = min(max_size, codec.MAX_LENGTH)
    assert codec.parse_header(header_of(0x82, length, None), False, False, max_size)[2] == length
    if max_size < codec.MAX_LENGTH:
        with pytest.raises(ValueError) as caught:
            codec.parse_header(header_of(0x82, length + 1, None), False, False, max_size)
        assert caught.value.args == (codec.TOO_BIG,)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((-1, 0), ValueError),
        ((256, 0), ValueError),
        ((2**70, 0), ValueError),
        ((0x81, -1), ValueError),
        ((0x81, 2**63), ValueError),
        ((0x81, 2**70), ValueError),
        ((0x81, 0, b"abc"), ValueError),
        (("\x81", 0), TypeError),
        ((None, 0), TypeError),
        ((129.0, 0), TypeError),
        ((0x81, "0"), TypeError),
        ((0x81, None), TypeError),
        ((0x81, 1.5), TypeError),
        ((0x81, 0, "mask"), TypeError),
        ((0x81, 0, 4), TypeError),
        ((0x81, 0, memoryview(bytes(8))[::2]), BufferError),
    ],
)
def test_build_header_refuses_other_arguments(codec, args, error):
    with pytest.raises(error):
        codec.build_header(*args)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ((-1, b""), ValueError),
        ((256, b""), ValueError),
        ((1.0, b""), TypeError),
        ((0x81, "text"), TypeError),
        ((256, "text"), TypeError),
        ((0x81, None), TypeError),
        ((0x81, [1]), TypeError),
        ((0x81, 5), TypeError),
        ((0x81, b"", "mask"), TypeError),
        ((0x81, b"", b"abc"), ValueError),
        ((0x81, memoryview(b"abcd")[::2]), BufferError),
    ],
)
def test_serialize_refuses_other_arguments(codec, args, error):
    with pytest.raises(error):
        codec.serialize(*args)


@pytest.mark.parametrize("data", ["text", None, 5])
def test_parse_header_refuses_other_arguments(codec, data):
    with pytest.raises(TypeError):
        codec.parse_header(data, True, False, 0)
