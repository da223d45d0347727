"""Masking and UTF-8 on both codecs, and both with headers on every SIMD tier of the machine."""

import array
import codecs
import ctypes
import itertools
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets.codec import pure

MASK = b"\x02\x81\x21\x3d"
BYTES = bytes(i * 151 + 7 & 0xFF for i in range(512))


def xor(data, mask, offset=0):
    """Masking as specified by section 5.3."""
    return bytes(byte ^ mask[(i + offset) % 4] for i, byte in enumerate(data))


# Masking


@pytest.mark.parametrize("offset", range(4))
def test_apply_mask_works_at_every_length_and_alignment(codec, offset):
    for length in range(301):
        expected = xor(BYTES[:length], MASK, offset)
        for address in range(16):
            room = memoryview(bytes(address) + BYTES)
            data = room[address : address + length]
            assert codec.apply_mask(data, MASK, offset) == expected, (length, address)


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_payload_is_unmasked_where_it_is_received_and_nothing_behind_it(codec, opcode):
    """In reads of each size, which begin at each alignment."""
    sizes, behind = range(1, 301), b"\xa5" * 64
    plain = bytes(byte & 0x7F for byte in BYTES) * ((sum(sizes) + codec.IN_PLACE) // len(BYTES) + 1)
    masked = xor(plain, MASK)
    reader, spare = codec.MessageReader(len(plain), True, False), bytearray(64)
    reader.receive(codec.build_header(0x80 | opcode, len(plain), MASK))
    at = 0
    for size in sizes:
        with memoryview(reader.get_buffer(spare)) as target:
            assert not at or target[: len(behind)] == behind, size
            target[:size] = masked[at : at + size]
            target[size : size + len(behind)] = behind
        reader.buffer_updated(spare, size)
        at += size
    assert reader.receive(masked[at:]) == [(opcode, plain)]


@pytest.mark.parametrize("size", [65536, 2**20 + 3])
def test_apply_mask_works_on_large_data(codec, size):
    data = (BYTES * (size // 512 + 1))[:size]
    expected = (xor(BYTES, MASK, 3) * (size // 512 + 1))[:size]
    assert codec.apply_mask(data, MASK, 3) == expected


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


@pytest.fixture
def cliff():
    """A page of memory before an unmapped one: an access to the next byte ends the process."""
    if sys.platform != "linux":
        pytest.skip("asks Linux for it")
    libc, size = ctypes.CDLL(None), mmap.PAGESIZE
    pages = mmap.mmap(-1, 2 * size)
    behind = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(pages, size)))
    assert libc.mprotect(behind, ctypes.c_size_t(size), 0) == 0
    yield memoryview(pages)[:size]
    libc.mprotect(behind, ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE)


def test_bytes_behind_the_data_are_not_touched(codec, cliff):
    for length in range(200):
        data = cliff[len(cliff) - length :]
        data[:] = BYTES[:length]
        codec.utf8_state(data)
        assert codec.apply_mask(data, MASK) == xor(BYTES[:length], MASK)
        assert codec.serialize(0x82, data, MASK).endswith(xor(BYTES[:length], MASK))
        data[:] = (b"a" * 50 + "\u00e9\u20ac\U0001f986".encode() * 20)[:length]
        assert codec.utf8_state(data) == codec.utf8_state(bytes(data))


def test_a_mask_may_be_the_data(codec):
    assert codec.apply_mask(MASK, MASK) == bytes(4)


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
def test_masking_refuses_other_arguments(codec, data, mask, error):
    with pytest.raises(error):
        codec.apply_mask(data, mask)


def test_buffers_are_released(codec):
    """An array that is exported cannot be resized, so append() fails where a view has leaked."""
    data, mask, short = bytearray(BYTES), bytearray(MASK), bytearray(3)
    codec.apply_mask(data, mask)
    codec.utf8_state(data)
    codec.serialize(0x81, data, mask)
    codec.build_header(0x81, 0, mask)
    codec.parse_header(mask, True, False, 1000)
    with pytest.raises(ValueError, match=r"^\d+$"):
        codec.parse_header(data, True, False, 1000)
    with pytest.raises(ValueError, match="a mask has 4 bytes, not 3"):
        codec.apply_mask(data, short)
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
    """The verdict of Python's decoder on the start of a text: "whole", "partial" or "refused".

    A text is partial if further bytes can complete it; the decoder alone would wait for more behind ED A0.
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


def test_utf8_state_judges_all_sequences_of_one_and_two_bytes(codec):
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
def test_utf8_state_judges_the_edges_of_longer_sequences(codec, lead):
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
def test_utf8_state_judges_sequences_at_each_place_of_a_block(codec, filler):
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
def test_utf8_state_refuses_the_first_invalid_byte(codec, sequence, at):
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
def test_utf8_state_does_not_depend_on_the_division_of_the_text(codec, data, cuts):
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


# The twins, and the tiers


TIERS = ["words", "sse2", "ssse3", "avx2", "neon"]


def test_the_tier_is_the_requested_one(codec):
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
    """This module and that of headers again, with the compiled codec only."""
    if tier not in codec.SIMD_TIERS:
        pytest.skip("not a tier of this codec on this machine")
    if tier == codec.SIMD_TIER:
        pytest.skip("the tests of this process run on it")
    headers = str(Path(__file__).with_name("test_headers.py"))
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    these = ["-k", "compiled and not in_process", f"--rootdir={pytestconfig.rootpath}"]
    run = run_python("-m", "pytest", *options, *these, __file__, headers, simd=tier)
    assert run.returncode == 0, run.stdout + run.stderr


def test_in_process_of_an_unknown_tier(codec):
    if codec is pure:
        pytest.skip("has no tiers")
    run = run_python("-c", "import duck.contrib.websockets", simd="mmx")
    assert run.returncode == 1
    tiers = ", ".join(codec.SIMD_TIERS)
    assert f"ImportError: DUCK_SIMD='mmx': this machine has {tiers}; set it to one of them" in run.stderr
