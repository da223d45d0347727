"""Masking, UTF-8, headers and frames, on both codecs and on every SIMD tier of the machine."""

import array
import codecs
import ctypes
import inspect
import itertools
import mmap
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets.codec import pure
from duck.contrib.websockets.exceptions import codec_error

from ..support.frames import header as header_of

MASK = b"\x02\x81\x21\x3d"
BYTES = bytes(i * 151 + 7 & 0xFF for i in range(512))
INTERESTING_LENGTHS = [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537]
HUGE_LENGTHS = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1]


def xor(data, mask, offset=0):
    """Masking as section 5.3 words it."""
    return bytes(byte ^ mask[(i + offset) % 4] for i, byte in enumerate(data))


# Masking


@pytest.mark.parametrize("offset", range(4))
def test_apply_mask_on_every_length_and_alignment(codec, offset):
    for length in range(301):
        expected = xor(BYTES[:length], MASK, offset)
        for address in range(16):
            room = memoryview(bytes(address) + BYTES)
            data = room[address : address + length]
            assert codec.apply_mask(data, MASK, offset) == expected, (length, address)


@pytest.mark.parametrize("offset", range(4))
def test_apply_mask_inplace_writes_its_range_and_nothing_else(codec, offset):
    for length in range(301):
        masked = xor(BYTES[:length], MASK, offset)
        for address in range(16):
            before = b"\xa5" * address
            room = bytearray(before + BYTES)
            view = memoryview(room)[address : address + length]
            assert codec.apply_mask_inplace(view, MASK, offset) is None
            assert room == before + masked + BYTES[length:], (length, address)


@pytest.mark.parametrize("size", [65536, 2**20 + 3])
def test_apply_mask_on_large_data(codec, size):
    data = (BYTES * (size // 512 + 1))[:size]
    expected = (xor(BYTES, MASK, 3) * (size // 512 + 1))[:size]
    assert codec.apply_mask(data, MASK, 3) == expected
    array = bytearray(data)
    codec.apply_mask_inplace(array, MASK, 3)
    assert array == expected


@pytest.mark.parametrize("offset", [4, 5, 6, 7, 2**31 + 1, 2**63 - 1, -1])
def test_apply_mask_offset_counts_from_the_start_of_the_payload(codec, offset):
    assert codec.apply_mask(BYTES, MASK, offset) == xor(BYTES, MASK, offset)


@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_apply_mask_takes_bytes_likes_and_gives_bytes(codec, convert):
    masked = codec.apply_mask(convert(BYTES), convert(MASK))
    assert type(masked) is bytes
    assert masked == xor(BYTES, MASK)


ARRAYS = {
    "array": array.array("I", range(16)),
    "ctypes": (ctypes.c_uint32 * 16)(*range(16)),
    "two-dimensional": memoryview(bytearray(BYTES[:64])).cast("B", (8, 8)),
    "empty": array.array("d"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_taken_as_the_bytes_in_memory(codec, kind):
    data = ARRAYS[kind]
    before = bytes(data)
    masked = xor(before, MASK)
    assert codec.apply_mask(data, MASK) == masked
    assert codec.utf8_state(data) == codec.utf8_state(before)
    assert codec.serialize(0x82, data) == codec.serialize(0x82, before)
    codec.apply_mask_inplace(data, MASK)
    assert bytes(data) == masked
    codec.apply_mask_inplace(data, MASK)
    assert bytes(data) == before


@pytest.fixture
def cliff():
    """A page of memory behind which there is nothing: to touch the next byte ends the process."""
    if sys.platform != "linux":
        pytest.skip("asks Linux for it")
    libc, size = ctypes.CDLL(None), mmap.PAGESIZE
    pages = mmap.mmap(-1, 2 * size)
    behind = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(pages, size)))
    assert libc.mprotect(behind, ctypes.c_size_t(size), 0) == 0
    yield memoryview(pages)[:size]
    libc.mprotect(behind, ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE)


def test_nothing_is_touched_behind_the_data(codec, cliff):
    for length in range(200):
        data = cliff[len(cliff) - length :]
        data[:] = BYTES[:length]
        codec.utf8_state(data)
        assert codec.apply_mask(data, MASK) == xor(BYTES[:length], MASK)
        codec.apply_mask_inplace(data, MASK)
        assert data == xor(BYTES[:length], MASK)
        assert codec.serialize(0x82, data, MASK).endswith(BYTES[:length])
        data[:] = (b"a" * 50 + "\u00e9\u20ac\U0001f986".encode() * 20)[:length]
        assert codec.utf8_state(data) == codec.utf8_state(bytes(data))


def test_a_mask_may_be_the_data(codec):
    data = bytearray(MASK)
    codec.apply_mask_inplace(data, data)
    assert data == bytes(4)


@pytest.mark.parametrize("name", ["apply_mask", "apply_mask_inplace"])
@pytest.mark.parametrize(
    ("data", "mask", "error"),
    [
        ("text", MASK, TypeError),
        (None, MASK, TypeError),
        ([1, 2], MASK, TypeError),
        (bytearray(8), "mask", TypeError),
        (bytearray(8), 4, TypeError),
        (bytearray(8), [1, 2, 3, 4], TypeError),
        (bytearray(8), b"", ValueError),
        (bytearray(8), b"abc", ValueError),
        (bytearray(8), b"abcde", ValueError),
        (memoryview(bytearray(8))[::2], MASK, BufferError),
        (memoryview(bytearray(8))[::-1], MASK, BufferError),
        (bytearray(8), memoryview(bytes(8))[::2], BufferError),
    ],
)
def test_masking_refuses_other_arguments(codec, name, data, mask, error):
    with pytest.raises(error):
        getattr(codec, name)(data, mask)


@pytest.mark.parametrize("data", [BYTES, b"", memoryview(BYTES), memoryview(BYTES)[8:16]])
def test_apply_mask_inplace_refuses_what_is_read_only(codec, data):
    before = bytes(data)
    with pytest.raises(BufferError, match="not writable"):
        codec.apply_mask_inplace(data, MASK)
    assert data == before


def test_buffers_are_let_go(codec):
    """An array that is exported cannot be resized, so append() fails where a view has leaked."""
    data, mask, short = bytearray(BYTES), bytearray(MASK), bytearray(3)
    codec.apply_mask(data, mask)
    codec.apply_mask_inplace(data, mask)
    codec.utf8_state(data)
    codec.serialize(0x81, data, mask)
    codec.build_header(0x81, 0, mask)
    codec.parse_header(mask, True, False, 1000)
    with pytest.raises(ValueError, match=r"^\d+$"):
        codec.parse_header(data, True, False, 1000)
    for call in (codec.apply_mask, codec.apply_mask_inplace):
        with pytest.raises(ValueError, match="a mask has 4 bytes, not 3"):
            call(data, short)
    with pytest.raises(ValueError, match="a mask has 4 bytes, not 3"):
        codec.serialize(0x81, data, short)
    with pytest.raises(ValueError, match="first byte"):
        codec.serialize(-1, data, mask)
    for exported in (data, mask, short):
        exported.append(0)


# UTF-8


def decodes(data):
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def kind_of(data):
    """What Python's decoder says of the start of a text: "whole", "partial" or "refused".

    Partial is what something completes; the decoder alone would wait for more behind ED A0.
    """
    try:
        _, used = codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return "refused"
    rest = data[used:]
    if not rest:
        return "whole"
    endings = (ending * n for ending in (b"\x80", b"\xbf") for n in (1, 2, 3))
    return "partial" if any(decodes(rest + ending) for ending in endings) else "refused"


def kind_of_state(state):
    return {0: "whole", pure.UTF8_REJECT: "refused"}.get(state, "partial")


EDGES = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xF4, 0xFF]
CHARACTERS = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U000fffff\U0010ffff"


def test_utf8_state_of_all_sequences_of_one_and_two_bytes(codec):
    assert codec.utf8_state(b"") == 0
    for first in range(256):
        start = bytes([first])
        assert kind_of_state(codec.utf8_state(start)) == kind_of(start)
        for second in range(256):
            sequence = bytes([first, second])
            expected = kind_of(sequence)
            assert kind_of_state(codec.utf8_state(sequence)) == expected, sequence
            state = codec.utf8_state(sequence[1:], codec.utf8_state(start))
            assert kind_of_state(state) == expected, sequence


@pytest.mark.parametrize("lead", range(0xDF, 0x100), ids=hex)
def test_utf8_state_at_the_edges_of_longer_sequences(codec, lead):
    """Alone (the automaton), amid ASCII (the fast path) and in two pieces."""
    tails = itertools.chain(itertools.product(EDGES, repeat=2), itertools.product(EDGES, repeat=3))
    for tail in tails:
        sequence = bytes([lead, *tail])
        expected = kind_of(sequence)
        assert kind_of_state(codec.utf8_state(sequence)) == expected, sequence
        inside = b"a" * 40 + sequence + b"abcd"
        assert kind_of_state(codec.utf8_state(inside)) == kind_of(inside), sequence
        state = codec.utf8_state(sequence[2:], codec.utf8_state(sequence[:2]))
        assert kind_of_state(state) == expected, sequence


@pytest.mark.parametrize("filler", ["é", "漢", "𝄞", "é漢a𝄞"])
def test_utf8_state_of_blocks(codec, filler):
    """Long text that is not ASCII is judged a block at a time: each sequence at each place in two blocks."""
    sequences = [*map(str.encode, CHARACTERS), b"\x80", b"\xbf\x80", b"\xc1\xbf", b"\xc3\x28", b"\xc3\xc3\xa9"]
    sequences += [b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xe1\x80", b"\xe1\x80\xc0", b"\xf0\x8f\xbf\xbf"]
    sequences += [b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf1\x80\x80\x80\x80", b"\xf1\x80\x80", b"\xf1", b"\xff"]
    for sequence in sequences:
        for before in range(40):
            start = (filler * 40).encode()[:64].decode(errors="ignore").encode() + b"a" * before
            for text in (start + sequence, start + sequence + (filler * 40).encode()):
                assert kind_of_state(codec.utf8_state(text)) == kind_of(text), (sequence, before)


def test_utf8_state_goes_on_from_every_split_point(codec):
    text = f"{CHARACTERS} ascii, long enough for every vector loop to run once {CHARACTERS}".encode()
    for i in range(len(text) + 1):
        state = codec.utf8_state(text[:i])
        assert kind_of_state(state) == kind_of(text[:i])
        for j in range(i, len(text) + 1):
            middle = codec.utf8_state(text[i:j], state)
            assert kind_of_state(middle) == kind_of(text[:j])
        assert codec.utf8_state(text[i:], state) == 0


@pytest.mark.parametrize(
    ("sequence", "at"),
    [
        (b"\x80", 0),
        (b"\xc0\xaf", 0),
        (b"\xc1\xbf", 0),
        (b"\xc3\x28", 1),
        (b"\xe0\x9f\xbf", 1),
        (b"\xe1\x80\xc0", 2),
        (b"\xed\xa0\x80", 1),
        (b"\xf0\x8f\xbf\xbf", 1),
        (b"\xf1\x80\x80\x7f", 3),
        (b"\xf4\x90\x80\x80", 1),
        (b"\xf5\x80\x80\x80", 0),
        (b"\xff", 0),
    ],
)
def test_utf8_state_refuses_the_first_byte_that_cannot_be(codec, sequence, at):
    for before in (b"", b"\xc3\xa9", b"x" * 100):
        good, bad = before + sequence[:at], before + sequence[: at + 1]
        assert codec.utf8_state(good) != codec.UTF8_REJECT
        assert codec.utf8_state(bad) == codec.UTF8_REJECT
        assert codec.utf8_state(b"", codec.UTF8_REJECT) == codec.UTF8_REJECT
        assert codec.utf8_state(b"more", codec.UTF8_REJECT) == codec.UTF8_REJECT


def test_utf8_state_finds_one_bad_byte_anywhere(codec):
    for size in (31, 32, 33, 63, 64, 65, 200):
        for at in range(size):
            text = bytearray(b"a" * size)
            text[at] = 0xFF
            assert codec.utf8_state(text) == codec.UTF8_REJECT


parts = st.sampled_from([*map(str.encode, CHARACTERS), b"\xed", b"\xf0", b"\x80", b"a" * 33])
texts = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=80).map(str.encode),
    st.lists(parts, max_size=10).map(b"".join),
)


@given(data=texts, cuts=st.lists(st.integers(0, 80)))
def test_utf8_state_is_the_specified_one_however_the_text_is_cut(codec, data, cuts):
    state = 0
    cuts = {0, len(data), *(cut for cut in cuts if cut < len(data))}
    for start, end in itertools.pairwise(sorted(cuts)):
        state = codec.utf8_state(data[start:end], state)
    assert state == pure.utf8_state(data)
    assert kind_of_state(state) == kind_of(data)


@pytest.mark.parametrize("data", ["text", None, 5])
def test_utf8_state_refuses_other_arguments(codec, data):
    with pytest.raises(TypeError):
        codec.utf8_state(data)
    with pytest.raises(BufferError):
        codec.utf8_state(memoryview(b"abcd")[::2])


# Headers


@pytest.mark.parametrize("mask", [None, MASK], ids=["unmasked", "masked"])
@pytest.mark.parametrize("length", INTERESTING_LENGTHS + HUGE_LENGTHS)
def test_headers_of_every_length(codec, length, mask):
    header = header_of(0x82, length, mask)
    assert codec.build_header(0x82, length, mask) == header
    expected = len(header), 0x82, length, mask or bytes(4)
    for data in (header, header + b"payload", bytearray(header), memoryview(header)):
        assert codec.parse_header(data, mask is not None, False, length) == expected
    for size in range(len(header)):
        assert codec.parse_header(header[:size], mask is not None, False, length) is None


@pytest.mark.parametrize("first", [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A])
def test_headers_of_every_opcode(codec, first):
    assert codec.parse_header(bytes([first, 5]), False, False, 5) == (2, first, 5, bytes(4))


@pytest.mark.parametrize("first", [0x41, 0x42, 0xC1, 0xC2])
def test_rsv1_is_taken_where_an_extension_defines_it(codec, first):
    assert codec.parse_header(bytes([first, 0]), False, True, 0) == (2, first, 0, bytes(4))


@pytest.mark.parametrize("mask", [None, b"", MASK, bytearray(MASK), memoryview(MASK)])
@pytest.mark.parametrize("length", [*INTERESTING_LENGTHS, 2**20])
def test_serialize(codec, length, mask):
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


# name: (start of a frame, what its reader was told, the error)
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
def test_parse_header_refuses(codec, case):
    """Neither before the bytes are there that tell, nor later, nor otherwise if more follow."""
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


# The twins, and the tiers


def public(module):
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_the_codecs_have_the_same_names(codec):
    functions = {n: f for n, f in public(pure).items() if inspect.isfunction(f)}
    methods = public(pure.MessageReader)
    methods = {name: method for name, method in methods.items() if inspect.isfunction(method)}
    assert len(functions) == 9
    assert len(methods) == 3
    for name, function in functions.items():
        assert parameters(getattr(codec, name)) == parameters(function)
    for name, method in methods.items():
        assert parameters(getattr(codec.MessageReader, name)) == parameters(method)


def test_the_codecs_have_the_same_numbers(codec):
    numbers = {name: value for name, value in public(codec).items() if isinstance(value, int)}
    assert numbers == {name: value for name, value in public(pure).items() if isinstance(value, int)}
    assert {name for name in pure.numbers.__all__ if name != "NOT_TEXT"} == set(numbers)
    assert {type(number) for number in numbers.values()} == {int}


def test_every_error_number_has_its_exception(codec):
    for number in range(codec.RESERVED_BITS, codec.TOO_MANY_EMPTY_FRAGMENTS + 1):
        assert str(codec_error(number))


TIERS = ["words", "sse2", "ssse3", "avx2", "neon"]


def test_the_tier_is_the_one_asked_for(codec):
    if codec is pure:
        assert (codec.SIMD_TIERS, codec.SIMD_TIER) == ((), "none")
    else:
        assert codec.SIMD_TIERS[0] == "words"
        assert set(codec.SIMD_TIERS) <= set(TIERS)
        asked_for = os.environ.get("DUCK_SIMD") or codec.SIMD_TIERS[-1]
        assert asked_for == codec.SIMD_TIER


def run_python(*args, simd):
    return subprocess.run(
        [sys.executable, "-P", *args],  # the installed package, not the source beside the tests
        env=os.environ
        | {"DUCK_SIMD": simd, "DUCK_REQUIRE_SPEEDUPS": "1", "DUCK_NO_EXTENSIONS": ""}
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("tier", TIERS)
def test_in_process_of_each_tier(codec, tier, pytestconfig):
    """This module again, with the compiled codec only."""
    if tier not in codec.SIMD_TIERS:
        pytest.skip("not a tier of this codec on this machine")
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    these = ["-k", "compiled and not in_process", f"--rootdir={pytestconfig.rootpath}", __file__]
    run = run_python("-m", "pytest", *options, *these, simd=tier)
    assert run.returncode == 0, run.stdout + run.stderr


def test_in_process_of_an_unknown_tier(codec):
    if codec is pure:
        pytest.skip("has no tiers")
    run = run_python("-c", f"import {codec.__name__}", simd="mmx")
    assert run.returncode == 1
    tiers = ", ".join(codec.SIMD_TIERS)
    assert f"ImportError: DUCK_SIMD='mmx': this machine has {tiers}" in run.stderr
