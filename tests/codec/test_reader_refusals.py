"""Streams that `MessageReader` refuses, on both codecs: the byte and the error of each refusal."""

import tracemalloc

import pytest

from ..support.frames import MASK, frame, header, xor
from .streams import BINARY, CONTINUATION, MIB, PING, TEXT, UNLIMITED, by_buffer, by_receive, check, fragments, server

# Refused streams


# case: (valid frames and their messages, the invalid frame, the error)
REFUSED = {
    "rsv1": (b"", [], b"\xc1\x80", "RESERVED_BITS"),
    "rsv2": (b"", [], b"\xa1\x80", "RESERVED_BITS"),
    "rsv3": (b"", [], b"\x92\x80", "RESERVED_BITS"),
    "opcode 3": (b"", [], b"\x83\x80", "RESERVED_OPCODE"),
    "opcode 7, huge": (b"", [], b"\x87\xff", "RESERVED_OPCODE"),
    "opcode 11": (b"", [], b"\x8b\x80", "RESERVED_OPCODE"),
    "opcode 15": (b"", [], b"\x8f\x80", "RESERVED_OPCODE"),
    "no mask": (b"", [], b"\x81\x00", "FRAME_NOT_MASKED"),
    "fragmented ping": (b"", [], b"\x09\x80", "FRAGMENTED_CONTROL"),
    "long ping": (b"", [], b"\x89\xfe", "LONG_CONTROL"),
    "125 in 2 bytes": (b"", [], b"\x82\xfe\x00\x7d", "LENGTH_NOT_MINIMAL"),
    "65535 in 8 bytes": (b"", [], b"\x82\xff" + (65535).to_bytes(8), "LENGTH_NOT_MINIMAL"),
    "2**63": (b"", [], b"\x82\xff" + (2**63).to_bytes(8), "LENGTH_TOP_BIT"),
    "2**64 - 1": (b"", [], b"\x82\xff" + (2**64 - 1).to_bytes(8), "LENGTH_TOP_BIT"),
    "too big": (b"", [], header(0x82, 1001, MASK), "TOO_BIG"),
    "too big text": (b"", [], header(0x01, 1001, MASK), "TOO_BIG"),
    "far too big": (b"", [], header(0x82, 2**63 - 1, MASK), "TOO_BIG"),
    "too big together": (
        frame(BINARY, b"a" * 600, fin=False) + frame(PING),
        [(PING, b"")],
        header(0x00, 401, MASK),
        "TOO_BIG",
    ),
    "too big together, no sum": (
        frame(BINARY, b"a", fin=False),
        [],
        header(0x80, 2**63 - 1, MASK),
        "TOO_BIG",
    ),
    "continuation of nothing": (b"", [], frame(CONTINUATION), "UNEXPECTED_CONTINUATION"),
    "continuation of a whole message": (
        frame(TEXT, b"a"),
        [(TEXT, b"a")],
        header(0x80, 5, MASK),
        "UNEXPECTED_CONTINUATION",
    ),
    "continuation of a fragmented message": (
        b"".join(fragments(TEXT, b"a", b"b")),
        [(TEXT, b"ab")],
        header(0x00, 5, MASK),
        "UNEXPECTED_CONTINUATION",
    ),
    "text in a message": (frame(TEXT, b"a", fin=False), [], header(0x81, 1, MASK), "UNFINISHED_MESSAGE"),
    "binary in a message": (frame(TEXT, fin=False), [], header(0x02, 1, MASK), "UNFINISHED_MESSAGE"),
    "unfinished before too big": (
        frame(TEXT, fin=False),
        [],
        header(0x82, 1001, MASK),
        "UNFINISHED_MESSAGE",
    ),
    "half a character": (b"", [], frame(TEXT, b"a\xc3"), "INVALID_UTF8"),
    "half a character in the last fragment": (
        frame(TEXT, b"a", fin=False),
        [],
        frame(CONTINUATION, b"\xf0\x9f\xa6"),
        "INVALID_UTF8",
    ),
    "half a character, then an empty end": (
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"", fin=False),
        [],
        frame(CONTINUATION, b""),
        "INVALID_UTF8",
    ),
    "surrogates": (b"", [], frame(TEXT, b"\xed\xa0\x80")[:-1], "INVALID_UTF8"),
    "1025 empty fragments": (
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 1023,
        [],
        frame(CONTINUATION, fin=False),
        "TOO_MANY_EMPTY_FRAGMENTS",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_frame_is_refused_at_its_last_byte_for_good(codec, feed, case):
    before, messages, wrong, name = REFUSED[case]
    reader = server(codec, max_size=1000)
    check(reader, feed, before + wrong[:-1], messages)
    reader.receive(wrong[-1:])
    error = getattr(codec, name)
    assert reader.error == error
    assert reader.receive(frame(TEXT, b"later")) == []
    assert reader.get_buffer(spare := bytearray(100)) is spare
    assert reader.buffer_updated(spare, 100) == []
    assert (reader.error, reader.closed, reader.control) == (error, False, False)

    reader = server(codec, max_size=1000)
    assert feed(reader, before + wrong + frame(TEXT, b"later")) == messages
    assert reader.error == error


def test_a_mask_is_refused_by_a_client(codec, feed):
    reader = codec.MessageReader(MIB, False, False)
    assert feed(reader, frame(TEXT, b"a", mask=None) + frame(TEXT, b"b")) == [(TEXT, b"a")]
    assert reader.error == codec.FRAME_MASKED


def test_rsv1_is_refused_on_other_frames_than_the_first(codec, feed):
    for wrong in (frame(CONTINUATION, b"b", rsv=4), frame(PING, rsv=4), frame(TEXT, rsv=6)):
        reader = server(codec, rsv1=True)
        assert feed(reader, frame(TEXT, b"a", rsv=4, fin=False) + wrong) == []
        assert reader.error == codec.RESERVED_BITS


@pytest.mark.parametrize("max_size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_a_message_of_the_maximum_size_is_accepted(codec, mask, max_size):
    payload = b"a" * max_size
    half = max_size // 2
    for frames in (
        [frame(BINARY, payload, mask=mask)],
        fragments(BINARY, payload[:half], payload[half:], mask=mask),
        fragments(TEXT, b"", payload, b"", mask=mask),
    ):
        reader = codec.MessageReader(max_size, mask is not None, False)
        [(_, received)] = reader.receive(b"".join(frames))
        assert received == payload
        reader.receive(header(0x82, max_size + 1, mask))
        assert reader.error == codec.TOO_BIG


@pytest.mark.parametrize("max_size", [0, 15, 16, 1000])
def test_encoded_messages_may_exceed_the_limit_a_little(codec, max_size):
    """Because some data does not compress. A decoder checks the size again."""
    longer = max_size + max_size // 16 + 64
    fragment = frame(BINARY, b"a", rsv=4, fin=False)
    for encoded, start, first, limit in (
        (False, b"", 0xC2, longer),
        (False, fragment, 0x80, longer - 1),
        (True, b"", 0x82, longer),
        (False, b"", 0x82, max_size),
    ):
        for length, error in ((limit, 0), (limit + 1, codec.TOO_BIG)):
            reader = codec.MessageReader(max_size, True, True, encoded)
            reader.receive(start + header(first, length, MASK))
            assert reader.error == error


def test_control_frames_do_not_count_against_the_limit(codec):
    reader = server(codec, max_size=4)
    stream = [frame(BINARY, b"abc", fin=False), frame(PING, b"p" * 125), frame(CONTINUATION, b"d")]
    assert reader.receive(b"".join(stream)) == [(PING, b"p" * 125), (BINARY, b"abcd")]


@pytest.mark.parametrize("length", [2**31, 2**32, 2**40, 2**63 - 1])
@pytest.mark.parametrize("first", [0x81, 0x02])
def test_a_promised_length_is_not_allocated(codec, first, length):
    """The compiled codec reserves 16 MiB in advance, which take no memory until they are written."""
    tracemalloc.start()
    try:
        reader = server(codec, max_size=UNLIMITED)
        assert by_receive(reader, header(first, length, MASK), sizes=[1]) == []
        assert by_receive(reader, xor(b"start", MASK), sizes=[5]) == []
        assert by_buffer(reader, bytes(100), sizes=[7]) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.error in (0, codec.INVALID_UTF8)
    assert peak < 2**25


def test_sums_of_lengths_do_not_overflow(codec):
    reader = server(codec, max_size=UNLIMITED)
    reader.receive(frame(BINARY, b"ab", fin=False) + header(0x00, 2**63 - 3, MASK) + b"cd")
    assert reader.error == 0
    reader = server(codec, max_size=UNLIMITED)
    reader.receive(frame(BINARY, b"ab", fin=False) + header(0x00, 2**63 - 2, MASK))
    assert reader.error == codec.TOO_BIG
    reader = server(codec, max_size=2**70)
    reader.receive(header(0x82, 2**63 - 1, MASK))
    assert reader.error == 0


def test_empty_fragments_are_counted_for_each_message(codec):
    reader = server(codec)
    empty = frame(CONTINUATION, fin=False)
    for _ in range(3):
        assert reader.receive(frame(TEXT, fin=False) + empty * 1023) == []
        assert reader.receive(frame(CONTINUATION, b"end")) == [(TEXT, b"end")]
        assert reader.receive(frame(TEXT, fin=False) + empty * 1023 + frame(CONTINUATION, b"a", fin=False)) == []
        assert reader.receive(frame(CONTINUATION)) == [(TEXT, b"a")]
    assert reader.error == 0


def test_many_fragments_of_one_byte_are_joined(codec):
    payload = bytes(range(256)) * 256
    stream = b"".join(fragments(BINARY, *(payload[i : i + 1] for i in range(65536))))
    assert server(codec).receive(stream) == [(BINARY, payload)]


def test_many_messages_are_returned_by_one_call(codec):
    reader = server(codec)
    for stream in (frame(TEXT, b"a"), b"".join(fragments(TEXT, b"", b"a", b""))):
        assert reader.receive(stream * 20_000) == [(TEXT, b"a")] * 20_000
    assert (reader.error, reader.closed) == (0, False)


# UTF-8


BAD_TEXTS = {
    "lone continuation": (b"", b"\x80"),
    "overlong 2": (b"", b"\xc0\xaf"),
    "broken 2": (b"\xc3", b"("),
    "overlong 3": (b"\xe0", b"\x9f"),
    "surrogate": (b"\xed", b"\xa0"),
    "broken 3": (b"\xe2\x82", b"\x2f"),
    "overlong 4": (b"\xf0", b"\x8f"),
    "beyond": (b"\xf4", b"\x90"),
    "broken 4": (b"\xf0\x9f\xa6", b"\xc0"),
    "no lead": (b"", b"\xff"),
}


@pytest.mark.parametrize("before", [b"", b"\xc3\xa9" * 20, b"a" * 8190, b"a" * 100_000], ids=len)
@pytest.mark.parametrize("case", BAD_TEXTS)
def test_text_is_refused_at_the_first_invalid_byte(codec, case, before):
    """Before the frame is complete, for both ways of feeding."""
    good, bad = BAD_TEXTS[case]
    payload = before + good + bad
    for feed in (by_receive, by_buffer):
        for first in (0x81, 0x01):
            stream = header(first, 500_000, MASK) + xor(payload, MASK)
            reader = server(codec)
            feed(reader, stream[: -len(bad)], sizes=[2**30])
            assert reader.error == 0
            feed(reader, stream[-len(bad) :][:1], sizes=[1])
            assert reader.error == codec.INVALID_UTF8


def test_characters_may_be_split_over_fragments(codec, mask):
    text = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode()
    for i in range(len(text) + 1):
        for j in range(i, len(text) + 1):
            reader = codec.MessageReader(MIB, mask is not None, False)
            frames = fragments(TEXT, text[:i], text[i:j], text[j:], mask=mask)
            stream = frame(PING, mask=mask).join(frames)
            assert reader.receive(stream)[-1] == (TEXT, text)


def test_characters_may_cross_the_edges_of_validated_blocks(codec):
    for character in map(str.encode, "\u00e9\u20ac\U0001f986"):
        for shift in range(len(character)):
            text = b"a" * (8192 - shift) + character * 9000
            for feed in (by_receive, by_buffer):
                messages = feed(server(codec), frame(TEXT, text), sizes=[5000, 2**30])
                assert messages == [(TEXT, text)]
            broken = text[:8192] + b"\xff" + text[8193:]
            reader = server(codec)
            assert reader.receive(frame(TEXT, broken)) == []
            assert reader.error == codec.INVALID_UTF8
