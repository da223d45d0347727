"""`MessageReader` on any stream, the two codecs against each other; and its memory."""

import contextlib
import functools
import gc
import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duck.contrib.websockets.codec import FIN, pure
from duck.contrib.websockets.codec.numbers import INVALID_UTF8, TOO_BIG

from ..support.frames import MASK, frame, header
from .streams import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MIB,
    PING,
    PONG,
    TEXT,
    UNLIMITED,
    by_buffer,
    by_receive,
    check,
    fragments,
    server,
)

# The two codecs against each other, and against the sent messages


masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([0, 1, 124, 125, 126, 127, 1000]).map("\u00e9".encode().__mul__),
    st.sampled_from([65535, 65536, 65537, 140_000, 300_000])
    .map(b"0123456789abc".__mul__)
    .map(lambda payload: payload[: len(payload) // 13]),
)
sizes = st.lists(st.sampled_from([1, 2, 3, 14, 100, 1000, 4096, 65536, 70_001, 2**30]), min_size=1, max_size=8).map(
    lambda sizes: [*sizes, 50_021]
)


@st.composite
def valid_streams(draw):
    """(stream, its messages) as an honest client sends it."""
    stream, messages = [], []
    for _ in range(draw(st.integers(0, 5))):
        opcode = draw(st.sampled_from([TEXT, BINARY, PING, PONG]))
        payload = draw(st.text(max_size=20).map(str.encode) if opcode == TEXT else payloads)
        if opcode >= CLOSE:
            payload = payload[:125]
            cuts = []
        else:
            cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        pieces = [payload[i:j] for i, j in itertools.pairwise([0, *cuts, len(payload)])]
        for i, piece in enumerate(fragments(opcode, *pieces, mask=draw(masks))):
            if i and draw(st.booleans()):
                stream.append(frame(PING, b"between"))
                messages.append((PING, b"between"))
            stream.append(piece)
        messages.append((opcode, payload))
    return b"".join(stream), messages


@st.composite
def any_frames(draw):
    """A frame, valid or invalid."""
    return frame(
        draw(st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, BINARY, CLOSE, PING, PONG, 3, 11])),
        draw(payloads),
        fin=draw(st.booleans()),
        rsv=draw(st.sampled_from([0, 0, 0, 4, 2])),
        mask=draw(st.one_of(masks, masks, masks, st.none())),
    )


@st.composite
def broken_streams(draw):
    """Frames, valid ones first, with some bytes flipped, lost or added."""
    stream = bytearray(draw(valid_streams())[0] + b"".join(draw(st.lists(any_frames(), max_size=3))))
    for kind in draw(st.lists(st.sampled_from(["flip", "lose", "put", "cut"]), max_size=3)):
        at = draw(st.integers(0, min(len(stream), 200)))
        if kind == "flip" and at < len(stream):
            stream[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "lose":
            del stream[at : at + draw(st.integers(1, 10))]
        elif kind == "put":
            stream[at:at] = draw(st.binary(min_size=1, max_size=10))
        elif kind == "cut":
            del stream[at * len(stream) // 200 :]
    return bytes(stream)


def joined(parts):
    """The whole messages and the control frames that parts give, as (opcode, payload)."""
    messages, begun = [], None
    for opcode, payload in parts:
        if opcode & 0b1000:
            messages.append((opcode, payload))
            continue
        if opcode & 0b1111:
            assert begun is None
            begun = [opcode & ~FIN, b""]
        assert payload or opcode & FIN
        begun[1] += payload
        if opcode & FIN:
            messages.append(tuple(begun))
            begun = None
    return messages


@given(valid=valid_streams(), sizes=sizes)
def test_any_valid_stream_is_read(codec, valid, sizes):
    stream, expected = valid
    for feed in (by_receive, by_buffer):
        check(server(codec), functools.partial(feed, sizes=sizes), stream, expected)
        reader = server(codec, parts=True)
        assert joined(feed(reader, stream, sizes)) == expected


@given(
    stream=broken_streams(),
    max_size=st.sampled_from([10, 1000, MIB, UNLIMITED]),
    masked=st.sampled_from([True, True, True, False]),
    rsv1=st.booleans(),
    sizes=sizes,
    buffer_sizes=sizes,
)
@settings(max_examples=150)
def test_the_division_of_a_stream_does_not_change_its_messages(
    codec, stream, max_size, masked, rsv1, sizes, buffer_sizes
):
    def outcome(module, feed, sizes, parts=False):
        reader = module.MessageReader(max_size, masked, rsv1, False, parts)
        messages = feed(reader, stream, sizes)
        return messages, reader.error, reader.closed

    specified = outcome(pure, by_receive, [2**30])
    assert outcome(codec, by_receive, [2**30]) == specified
    assert outcome(codec, by_receive, sizes) == specified
    assert outcome(codec, by_buffer, buffer_sizes) == specified
    for feed, pieces in ((by_receive, sizes), (by_buffer, buffer_sizes)):
        in_parts = outcome(codec, feed, pieces, parts=True)
        assert (joined(in_parts[0]), *in_parts[1:]) == specified
        assert in_parts == outcome(pure, feed, pieces, parts=True)


def test_parts_arrive_before_their_frame_is_complete(codec):
    reader = server(codec, 10, parts=True)
    stream = frame(BINARY, b"abcdef", fin=False) + frame(PING, b"") + frame(CONTINUATION, b"") + frame(TEXT, b"")
    assert by_receive(reader, stream[:8], [8]) == [(BINARY, b"ab")]
    assert by_receive(reader, stream[8:11], [1]) == [(0, b"c"), (0, b"d"), (0, b"e")]
    assert reader.receive(stream[11:12]) == [(0, b"f")]
    assert reader.receive(stream[12:]) == [(PING, b""), (FIN, b""), (FIN | TEXT, b"")]


def test_parts_of_a_message_are_limited_together(codec):
    for size, error in ((10, 0), (11, TOO_BIG)):
        reader = server(codec, 10, parts=True)
        stream = b"".join(fragments(BINARY, bytes(6), bytes(size - 6)))
        by_receive(reader, stream, [3])
        assert reader.error == error
        by_receive(reader, frame(BINARY, bytes(10)), [3])
        assert reader.error == error


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_text_in_parts_is_refused_at_its_first_wrong_byte(codec, cut):
    payload = "\u00e4\u20ac".encode()[:cut] + b"\xff" + bytes(10)
    for stream in (frame(TEXT, payload), b"".join(fragments(TEXT, payload[:cut], payload[cut:]))):
        reader = server(codec, parts=True)
        at = next(at for at in range(len(stream)) if reader.receive(stream[at : at + 1]) is None or reader.error)
        assert reader.error == INVALID_UTF8
        assert at < len(stream) - 10
        assert server(codec, parts=True).receive(stream) == []


def test_a_large_part_costs_its_bytes(codec):
    """Memory is allocated for received bytes, not for the length in a header."""
    stream = header(0x82, 2**40, MASK) + bytes(100_000)
    tracemalloc.start()
    try:
        reader = server(codec, UNLIMITED, parts=True)
        parts = by_buffer(reader, stream, [5000])
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(len(payload) for _, payload in parts) == 100_000
    assert current < 110_000
    assert peak < 150_000


# Memory


def test_a_dribbled_message_costs_its_bytes(codec):
    payload = bytes(20_000)
    stream = frame(BINARY, payload)
    tracemalloc.start()
    try:
        reader = server(codec)
        assert by_receive(reader, stream[:-1], sizes=[1]) == []
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(payload) < current < 1.3 * len(payload)
    assert peak < 3 * len(payload)


def test_a_fragment_costs_its_bytes(codec):
    stream = frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"a", fin=False) * 10_000
    tracemalloc.start()
    try:
        reader = server(codec)
        assert reader.receive(stream) == []
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 10_000 < current < 20_000


def test_a_reader_stops_once_memory_has_run_out():
    """The state of the compiled codec would be inconsistent, unless nothing had been read."""
    speedups = pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)
    testcapi = pytest.importorskip("_testcapi")
    messages = [(TEXT, b"t" * 1000), (PING, b"p" * 100), (BINARY, b"b" * 5000)]
    stream = frame(*messages[0]) + frame(PING, b"p" * 100).join(fragments(BINARY, b"b" * 2000, b"b" * 3000))
    failures = 0
    for size in (900, 3500, len(stream)):
        for allocation in range(20):
            reader = server(speedups)
            testcapi.set_nomemory(allocation, allocation + 1)
            try:
                reader.receive(stream[:size])
            except MemoryError:
                failures += 1
                testcapi.remove_mem_hooks()
                expected = [] if reader.closed else messages
                assert reader.receive(stream) == expected
            finally:
                testcapi.remove_mem_hooks()
    assert failures > 10


def read_a_mix(codec):
    """Twenty messages: whole, fragmented, in pieces, in place, refused and abandoned ones."""
    reader, spare = server(codec), bytearray(64)
    text, ping = frame(TEXT, b"a text of thirty-odd characters."), frame(PING, b"ping")
    parts = fragments(BINARY, b"one" * 20, b"", b"three" * 30)
    assert len(reader.receive(text + ping + text)) == 3
    assert len(reader.receive(ping.join(parts))) == 3
    assert len(by_receive(reader, text + ping, [5])) == 2
    large = header(0x82, 70_000, MASK)
    reader.receive(large)
    reader.get_buffer(spare)
    assert len(reader.receive(bytes(70_000))) == 1
    in_parts = server(codec, parts=True)
    assert len(by_receive(in_parts, text + ping.join(parts), [50])) > 3
    abandoned = [large, text[:9], ping[:9], parts[0] + ping[:-1], parts[0] + large + b"a"]
    refused = [frame(TEXT, b"\xff"), frame(TEXT, b"ab" * 50 + b"\xff")[:-1], b"\xff\xff"]
    for stream in [*abandoned, *refused, b"", text, parts[0]]:
        other = server(codec, parts=len(stream) % 2)
        by_receive(other, stream, [50])
        other.get_buffer(spare)
    for call in (codec.apply_mask, codec.serialize):
        with contextlib.suppress(TypeError, ValueError, BufferError):
            call(b"data", b"short")
    with contextlib.suppress(ValueError):
        codec.parse_header(b"\xff\xff", True, False, 0)


def test_reading_leaks_no_memory(codec):
    rounds = 200 if codec is pure else 500
    for _ in range(50):
        read_a_mix(codec)
    # A leak grows in each round. A single growth comes from elsewhere in the process, such as an earlier test.
    assert any(growth(codec, rounds) < rounds for _ in range(3))  # the smallest leak is 16 bytes a round


def growth(codec, rounds):
    """Bytes that are allocated after so many rounds and were not before."""
    tracemalloc.start()
    try:
        read_a_mix(codec)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(rounds):
            read_a_mix(codec)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before
