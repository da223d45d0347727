"""`Frame`: one frame as an object, from and to the wire."""

import array
import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import Extension, Frame, OpCode, PayloadTooBig, PerMessageDeflate, ProtocolError
from duck.contrib.websockets.frame import apply_mask

from ..support.frames import MASK


class Source:
    """Returns the bytes of a stream as `parse` requests them, and counts them."""

    def __init__(self, data):
        self.data = data
        self.given = 0

    async def read_exact(self, size):
        piece = self.data[self.given : self.given + size]
        if len(piece) < size:
            raise asyncio.IncompleteReadError(piece, size)
        self.given += size
        return piece


def parse(data, **options):
    return asyncio.run(Frame.parse(Source(data).read_exact, **options))


# The examples of RFC 6455, section 5.7


@pytest.mark.parametrize(
    ("data", "opcode", "fin", "payload"),
    [
        (b"\x81\x05Hello", OpCode.TEXT, True, b"Hello"),
        (b"\x01\x03Hel", OpCode.TEXT, False, b"Hel"),
        (b"\x80\x02lo", OpCode.CONTINUATION, True, b"lo"),
        (b"\x89\x05Hello", OpCode.PING, True, b"Hello"),
        (b"\x82\x7e\x01\x00" + bytes(256), OpCode.BINARY, True, bytes(256)),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536), OpCode.BINARY, True, bytes(65536)),
    ],
    ids=["text", "first fragment", "last fragment", "ping", "256 bytes", "64 KiB"],
)
def test_the_unmasked_examples_of_the_rfc_are_parsed_and_serialized(data, opcode, fin, payload):
    frame = parse(data, mask_required=False)
    assert (frame.opcode, frame.fin, frame.payload) == (opcode, fin, payload)
    assert Frame(opcode, fin, payload).serialize() == data


@pytest.mark.parametrize(
    ("data", "opcode"),
    [
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", OpCode.TEXT),
        (b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", OpCode.PONG),
    ],
)
@pytest.mark.parametrize("mask_required", [True, False])
def test_the_masked_examples_of_the_rfc_are_parsed(data, opcode, mask_required):
    frame = parse(data, mask_required=mask_required)
    assert (frame.opcode, frame.payload) == (opcode, b"Hello")


def test_apply_mask_masks_and_unmasks():
    assert apply_mask(b"Hello", MASK) == b"\x7f\x9f\x4d\x51\x58"
    assert apply_mask(b"\x7f\x9f\x4d\x51\x58", MASK) == b"Hello"
    with pytest.raises(ValueError, match="4 bytes"):
        apply_mask(b"Hello", b"abc")


# The object


def test_a_frame_is_final_empty_and_without_reserved_bits_by_default():
    frame = Frame(OpCode.PING)
    assert frame.fin
    assert frame.payload == b""
    assert not (frame.rsv1 or frame.rsv2 or frame.rsv3)


@pytest.mark.parametrize("payload", [b"ab", bytearray(b"ab"), memoryview(b"ab"), array.array("B", b"ab")])
def test_a_payload_becomes_bytes(payload):
    frame = Frame(2, payload=payload)
    assert type(frame.payload) is bytes
    assert frame.payload == b"ab"


def test_a_payload_is_copied_from_a_mutable_object():
    source = bytearray(b"ab")
    frame = Frame(2, payload=source)
    source[0] = 0
    assert frame.payload == b"ab"


@pytest.mark.parametrize("payload", ["text", None, 5, [1, 2]])
def test_a_payload_is_bytes_like(payload):
    with pytest.raises(TypeError):
        Frame(OpCode.TEXT, payload=payload)


@pytest.mark.parametrize("payload", [b"hello", "hello", bytearray(b"hello")])
def test_a_payload_in_the_place_of_fin_is_not_lost(payload):
    with pytest.raises(TypeError, match="payload="):
        Frame(OpCode.TEXT, payload)


@pytest.mark.parametrize("opcode", [3, 7, 11, 15, 16, -1, None, "text"])
def test_an_opcode_is_one_of_the_six(opcode):
    with pytest.raises(ValueError, match="not a valid OpCode"):
        Frame(opcode)


def test_an_opcode_given_as_a_number_becomes_an_opcode():
    assert Frame(1).opcode is OpCode.TEXT


def test_repr_has_the_header_without_the_payload():
    assert repr(Frame(OpCode.TEXT, payload=b"secret")) == "<Frame TEXT fin 6 bytes>"
    assert repr(Frame(0, False, rsv1=True, rsv2=True, rsv3=True)) == "<Frame CONTINUATION rsv1 rsv2 rsv3 0 bytes>"


def test_replace_does_not_change_the_original():
    frame = Frame(OpCode.TEXT, False, b"x", rsv2=True)
    other = frame.replace(payload=b"y", rsv1=True)
    assert (other.opcode, other.fin, other.payload, other.rsv1, other.rsv2) == (1, False, b"y", True, True)
    assert (frame.payload, frame.rsv1) == (b"x", False)


@pytest.mark.parametrize("bit", ["rsv1", "rsv2", "rsv3"])
def test_check_refuses_reserved_bits(bit):
    with pytest.raises(ProtocolError, match="reserved bits"):
        Frame(OpCode.TEXT, **{bit: True}).check()


@pytest.mark.parametrize("opcode", [OpCode.CLOSE, OpCode.PING, OpCode.PONG])
def test_check_refuses_long_and_fragmented_control_frames(opcode):
    Frame(opcode, payload=bytes(125)).check()
    with pytest.raises(ProtocolError, match="over 125 bytes"):
        Frame(opcode, payload=bytes(126)).check()
    with pytest.raises(ProtocolError, match="fragmented control frame"):
        Frame(opcode, fin=False).check()


@pytest.mark.parametrize("opcode", [OpCode.CONTINUATION, OpCode.TEXT, OpCode.BINARY])
def test_check_takes_data_frames_of_any_length(opcode):
    Frame(opcode, fin=False, payload=bytes(70000)).check()


# From the wire

REFUSED = {
    "reserved bit 2": b"\xa1\x80",
    "reserved bit 3": b"\x91\x80",
    "reserved bit 1 without an extension": b"\xc1\x80",
    "reserved opcode": b"\x83\x80",
    "no mask": b"\x81\x05",
    "fragmented ping": b"\x09\x80",
    "long ping": b"\x89\xfe",
    "length of 2 bytes that fits 1": b"\x82\xfe\x00\x7d" + MASK,
    "length of 8 bytes that fits 2": b"\x82\xff" + (65535).to_bytes(8) + MASK,
    "length with its top bit set": b"\x82\xff" + (2**63).to_bytes(8) + MASK,
}


@pytest.mark.parametrize("case", REFUSED)
def test_parse_refuses_before_it_reads_a_payload(case):
    source = Source(REFUSED[case] + bytes(100))
    with pytest.raises(ProtocolError) as caught:
        asyncio.run(Frame.parse(source.read_exact))
    assert caught.value.close_code == 1002
    assert source.given <= len(REFUSED[case])


@pytest.mark.parametrize("length", [1001, 65535, 65536, 2**62, 2**63 - 1])
def test_parse_refuses_a_payload_over_the_limit_before_it_reads_it(length):
    size = b"\xfe" + length.to_bytes(2) if length < 65536 else b"\xff" + length.to_bytes(8)
    source = Source(b"\x82" + size + MASK + bytes(2000))
    with pytest.raises(PayloadTooBig) as caught:
        asyncio.run(Frame.parse(source.read_exact, max_size=1000))
    assert caught.value.close_code == 1009
    assert source.given == 1 + len(size) + len(MASK)


def test_parse_takes_a_payload_of_the_limit_and_any_without_one():
    data = Frame(OpCode.BINARY, payload=bytes(1000)).serialize(mask=True)
    assert len(parse(data, max_size=1000).payload) == 1000
    assert len(parse(data, max_size=None).payload) == 1000


def test_parse_reads_one_frame_and_not_a_byte_more():
    data = Frame(OpCode.TEXT, payload=b"one").serialize(mask=True)
    source = Source(data + Frame(OpCode.TEXT, payload=b"two").serialize(mask=True))

    async def both():
        first = await Frame.parse(source.read_exact)
        assert source.given == len(data)
        return first, await Frame.parse(source.read_exact)

    first, second = asyncio.run(both())
    assert (first.payload, second.payload) == (b"one", b"two")


@pytest.mark.parametrize("missing", range(1, 12))
def test_parse_raises_the_error_of_a_stream_that_ends(missing):
    data = Frame(OpCode.TEXT, payload=b"Hello").serialize(mask=True)
    with pytest.raises(asyncio.IncompleteReadError):
        parse(data[:-missing])


# To the wire


@given(
    opcode=st.sampled_from(OpCode),
    fin=st.booleans(),
    payload=st.binary(max_size=200) | st.integers(65530, 65540).map(bytes),
    mask=st.booleans(),
)
def test_a_serialized_frame_is_parsed_back(opcode, fin, payload, mask):
    if opcode >= OpCode.CLOSE:
        fin, payload = True, payload[:125]
    frame = parse(Frame(opcode, fin, payload).serialize(mask=mask), mask_required=mask)
    assert (frame.opcode, frame.fin, frame.payload) == (opcode, fin, payload)
    assert not (frame.rsv1 or frame.rsv2 or frame.rsv3)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_one_of_the_stated_errors(data):
    for mask_required in (True, False):
        try:
            frame = parse(data, mask_required=mask_required, max_size=30)
        except (ProtocolError, asyncio.IncompleteReadError):
            continue
        frame.check()
        assert len(frame.payload) <= 30


def test_every_masked_frame_has_a_fresh_mask():
    frame = Frame(OpCode.TEXT, payload=b"Hello")
    masks = {frame.serialize(mask=True)[2:6] for _ in range(20)}
    assert len(masks) == 20


def test_reserved_bits_go_to_the_wire():
    assert Frame(OpCode.TEXT, rsv1=True).serialize()[0] == 0b11000001
    assert Frame(OpCode.TEXT, rsv2=True).serialize()[0] == 0b10100001
    assert Frame(OpCode.TEXT, rsv3=True).serialize()[0] == 0b10010001


# Extensions


class Wrap(Extension):
    def encode(self, frame):
        return frame.replace(payload=self.name.encode() + frame.payload)

    def decode(self, frame, max_size=None):
        assert frame.payload.startswith(self.name.encode())
        return frame.replace(payload=frame.payload[len(self.name) :])


def test_extensions_encode_in_order_and_decode_in_reverse():
    extensions = [Wrap("a"), Wrap("b")]
    frame = Frame(OpCode.TEXT, payload=b"x")
    data = frame.serialize(extensions=extensions)
    assert data == b"\x81\x03bax"
    assert parse(data, mask_required=False, extensions=extensions).payload == b"x"


def test_serializing_twice_gives_the_same_frame():
    extension = PerMessageDeflate("permessage-deflate", server_no_context_takeover=True)
    frame = Frame(OpCode.TEXT, payload=b"hello " * 20)
    data = frame.serialize(extensions=[extension])
    assert frame.serialize(extensions=[extension]) == data
    assert data[0] == 0b11000001
    assert parse(data, mask_required=False, extensions=[extension]).payload == frame.payload


def test_the_limit_holds_for_the_decompressed_payload():
    extension = PerMessageDeflate("permessage-deflate")
    data = Frame(OpCode.BINARY, payload=bytes(100_000)).serialize(mask=True, extensions=[extension])
    assert len(data) < 1000
    with pytest.raises(PayloadTooBig):
        parse(data, max_size=1000, extensions=[extension])
