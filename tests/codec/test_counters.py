"""Counters: the same numbers from both codecs, for each way that a frame takes through a reader or a writer."""

import os

import pytest

from ..support.frames import RSV1, frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def nonzero(counts):
    return {opcode: count for opcode, count in enumerate(counts) if count}


def test_received_frames_are_counted_by_the_opcode_of_their_message(codec, feed):
    reader = codec.MessageReader(1 << 20, True, True)
    reader.counters = counters = codec.Counters()
    large = codec.IN_PLACE + 5
    stream = b"".join(
        (
            frame(TEXT, b"whole"),
            frame(BINARY, b"two ", fin=False),
            frame(PING, b"ping"),
            frame(0, b"fragments"),
            frame(TEXT, b"\xaa\x00", rsv=RSV1),  # compressed: counted as it is
            frame(BINARY, bytes(large)),
            frame(CLOSE),
        )
    )
    feed(reader, stream)
    assert nonzero(counters.received) == {TEXT: 2, BINARY: 2, PING: 1, CLOSE: 1}
    assert nonzero(counters.received_bytes) == {TEXT: 7, BINARY: 13 + large, PING: 4}


def test_parts_of_a_message_are_counted_on_arrival(codec):
    reader = codec.MessageReader(1 << 20, True, False, parts=True)
    reader.counters = counters = codec.Counters()
    first, rest = frame(BINARY, b"first ", fin=False), frame(0, b"second")
    reader.receive(first + rest[:-2])
    assert nonzero(counters.received) == {}
    assert counters.received_bytes[BINARY] == 10
    reader.receive(rest[-2:] + frame(BINARY, b"whole"))
    assert nonzero(counters.received) == {BINARY: 2}
    assert counters.received_bytes[BINARY] == 17


def test_a_message_that_breaks_a_rule_is_not_counted(codec):
    reader = codec.MessageReader(100, True, False)
    reader.counters = counters = codec.Counters()
    reader.receive(frame(TEXT, b"\xff"))
    assert reader.error and not any(counters.received)


@pytest.mark.parametrize("masking", [False, True])
def test_sent_frames_are_counted_by_the_opcode_of_their_message(codec, masking):
    writer = codec.MaskingWriter(os.urandom) if masking else codec.FrameWriter()
    writer.counters = counters = codec.Counters()
    writer.write(0x81, b"text")
    writer.write(0x02, b"first ")
    writer.write(0x8A, b"pong")
    writer.write(0x00, bytearray(b"second "))
    writer.write(0x80, memoryview(bytes(2 * codec.UNCOPIED)))
    writer.write(0x82, bytes(codec.UNCOPIED))
    writer.write(0x88, b"\x03\xe8")
    assert nonzero(counters.sent) == {TEXT: 1, BINARY: 2, PONG: 1, CLOSE: 1}
    assert nonzero(counters.sent_bytes) == {TEXT: 4, BINARY: 13 + 3 * codec.UNCOPIED, PONG: 4, CLOSE: 2}


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_serialized_frames_are_counted_without_their_headers(codec, size):
    writer = codec.FrameWriter()
    writer.counters = counters = codec.Counters()
    writer.write_serialized(codec.serialize(0x82, bytes(size)))
    assert counters.sent[BINARY] == 1
    assert counters.sent_bytes[BINARY] == size


def test_a_histogram_counts_values_up_to_each_bound(codec):
    histogram = codec.Histogram([1, 2.5, 10])
    for value in (0, 1, 1.5, 2.5, 10, 11, 1e9):
        histogram.observe(value)
    assert histogram.bounds == (1.0, 2.5, 10.0)
    assert histogram.counts == [2, 2, 1, 2]
    assert histogram.sum == 26 + 1e9
    for bounds in ([], [2, 1], [1, 1], range(21)):
        with pytest.raises(ValueError, match="ascending"):
            codec.Histogram(bounds)


def test_events_add_up_and_peaks_stay(codec):
    counters = codec.Counters()
    counters.note(("close", "1000", "peer"))
    counters.note(("close", "1000", "peer"))
    counters.note(("dropped", "closing"), 7)
    counters.note_waiting(3, 100)
    counters.note_waiting(2, 200)
    counters.note_write_buffer(5)
    counters.note_write_buffer(4)
    counters.note_inflated(10, 100)
    counters.note_deflated(20, 50)
    assert counters.events == {("close", "1000", "peer"): 2, ("dropped", "closing"): 7}
    assert (counters.waiting_peak, counters.waiting_bytes_peak, counters.write_buffer_peak) == (3, 200, 5)
    assert (counters.inflated, counters.deflated) == ([10, 100], [20, 50])
