"""Writers at both ends of a connection: a client masks, a server does not."""

import os
import random
import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duck.contrib.websockets import codec as chosen
from duck.contrib.websockets.codec import pure
from duck.contrib.websockets.extensions import PerMessageDeflate
from duck.contrib.websockets.sansio.connection import Connection

from ..fuzz import codecs as fuzz

BATCH = 4 * pure.MASK_BATCH
# Around each length at which a header or the writer's method changes.
SIZES = [0, 1, 3, 4, 125, 126, 127, 4000, pure.UNCOPIED - 1, pure.UNCOPIED, pure.UNCOPIED + 1, 65535, 65536, 300_001]


def source(seed=0):
    """Random bytes that are the same in each run."""
    return random.Random(seed).randbytes


def masks_of(codec, data):
    """The masks of the frames in a stream."""
    found = []
    while data:
        size, _, length, mask = codec.parse_header(data, True, True, codec.MAX_LENGTH)
        found.append(mask)
        data = data[size + length :]
    return found


def writer_of(codec, client, make=os.urandom):
    return codec.MaskingWriter(make) if client else codec.FrameWriter()


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_each_end_reads_the_frames_of_the_other(codec, client, kind):
    writer = writer_of(codec, client)
    reader = codec.MessageReader(codec.MAX_LENGTH, client, True)
    expected = []
    for size in SIZES:
        for opcode in (1, 2, codec.RSV1 | 1, codec.RSV1 | 2, 9, 10):
            payload = bytes(at % 127 for at in range(min(size, 125) if opcode & codec.CONTROL else size))
            writer.write(codec.FIN | opcode, kind(payload))
            expected.append((opcode, payload))
    writer.write(2, kind(b"a fragment"))
    assert writer.fragmenting
    writer.write(codec.FIN, kind(b" and the last one"))
    assert not writer.fragmenting
    assert not writer.closed
    writer.write(codec.FIN | 8, kind(b"\x03\xe8"))
    assert writer.closed
    expected += [(2, b"a fragment and the last one"), (8, b"\x03\xe8")]
    received = [message for chunk in writer.take() for message in reader.receive(chunk)]
    assert not reader.error
    assert received == expected
    assert writer.size == 0
    assert writer.take() == []


FRAMES = st.lists(
    st.tuples(
        st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0xC1, 0x89, 0x8A, 256, -1]),
        st.one_of(st.text(max_size=70).map(str.encode), st.sampled_from(SIZES).map(bytes)),
        st.sampled_from([bytes, bytearray, memoryview]),
        st.booleans(),
    ),
    max_size=12,
)


@given(FRAMES, st.booleans())
@example([(0x82, bytes(3), bytes, False)] * (pure.MASK_BATCH + 2), True)
def test_both_codecs_write_the_same(frames, client):
    speedups = pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)

    def written(codec):
        writer = writer_of(codec, client, source())
        data, states = b"", []
        for first, payload, kind, take in frames:
            try:
                writer.write(first, kind(payload))
            except ValueError as error:
                states.append(str(error))
            if take:
                data += b"".join(writer.take())
            states.append((writer.closed, writer.fragmenting, bool(writer.size)))
        return data + b"".join(writer.take()), states

    assert written(speedups) == written(pure)


@given(FRAMES, st.booleans(), st.integers(1, 20_000))
def test_written_frames_are_read_back(frames, client, step):
    """This holds for all opcodes and sizes, and for every division into reads."""
    for codec in fuzz.CODECS:
        writer = writer_of(codec, client)
        reader = codec.MessageReader(codec.MAX_LENGTH, client, True)
        expected = []
        for first, payload, kind, _ in frames:
            if not 0x80 < first <= 0xFF:
                continue  # fragments have an order
            payload = payload[:125] if first & codec.CONTROL else payload
            writer.write(first, kind(payload))
            expected.append((first & 0x4F, payload))
        data = b"".join(writer.take())
        received = [one for at in range(0, len(data), step) for one in reader.receive(data[at : at + step])]
        assert (received, reader.error) == (expected, 0)


def test_each_frame_has_the_next_mask_of_its_batch(codec):
    batches = []

    def draw(size):
        batches.append(os.urandom(size))
        return batches[-1]

    writer = codec.MaskingWriter(draw)
    assert batches == []
    for number in range(3 * codec.MASK_BATCH):
        writer.write(0x82, bytes(codec.UNCOPIED if number % 50 == 9 else 5))
    data = b"".join(writer.take())
    assert [len(batch) for batch in batches] == [BATCH] * 3
    assert masks_of(codec, data) == [b"".join(batches)[at : at + 4] for at in range(0, 3 * BATCH, 4)]
    assert b"\x82\x85" + batches[0][:4] + batches[0][:4] + batches[0][:1] == data[:11]


def test_no_writer_is_made_without_a_source(codec):
    with pytest.raises(TypeError):
        codec.MaskingWriter()

    class Forgetful(codec.MaskingWriter):
        def __init__(self, source):
            """Does not call that of its base."""

    writer = Forgetful(lambda size: b"mask" * (size // 4))
    try:
        writer.write(0x82, b"x")
    except AttributeError:
        assert codec is pure
    else:
        assert b"".join(writer.take())[2:6] == b"mask"


def test_two_writers_share_no_mask(codec):
    writers = [codec.MaskingWriter(os.urandom) for _ in range(3)]
    for writer in writers * codec.MASK_BATCH:
        writer.write(0x82, b"x")
    masks = [mask for writer in writers for mask in masks_of(codec, b"".join(writer.take()))]
    assert len(set(masks)) == len(masks)


def test_a_failing_source_leaves_the_writer_unchanged(codec):
    answers = [OSError("no entropy"), b"short", bytes(BATCH + 1), bytes(range(256))]

    def draw(size):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    writer = codec.MaskingWriter(draw)
    for expected, words in ((OSError, "no entropy"), (ValueError, "not 5"), (ValueError, f"not {BATCH + 1}")):
        with pytest.raises(expected, match=words):
            writer.write(0x88, b"")
        assert (writer.size, writer.closed) == (0, False)
    writer.write(0x82, b"")
    assert b"".join(writer.take()) == b"\x82\x80\x00\x01\x02\x03"


def test_a_source_may_write_itself(codec):
    """A signal handler may do so while masks are drawn."""
    depth = 0

    def draw(size):
        nonlocal depth
        depth += 1
        if depth == 1:
            writer.write(0x82, b"inner")
        return os.urandom(size)

    writer = codec.MaskingWriter(draw)
    writer.write(0x82, b"outer")
    data = b"".join(writer.take())
    assert codec.MessageReader(100, True, False).receive(data) == [(2, b"inner"), (2, b"outer")]
    first, second = masks_of(codec, data)
    assert first != second


# The hot path of each role


class Transport:
    """Keeps the written bytes."""

    def __init__(self):
        self.data = b""

    def get_write_buffer_size(self):
        return 0

    def write(self, data):
        self.data += bytes(data)

    def abort(self):
        raise AssertionError("nothing is missing")


class Loop:
    """Is gone once its burst has been made, so nothing waits for its next iteration."""


class Dispatcher:
    """Keeps the delivered messages."""

    def __init__(self):
        self.messages = []

    def deliver(self, messages):
        self.messages += messages


@pytest.fixture
def connected(codec, monkeypatch):
    """Both ends of a connection without I/O: a `HotPath` of each role without the rest of a connection."""
    monkeypatch.setattr(chosen, "FrameWriter", codec.FrameWriter)
    monkeypatch.setattr(chosen, "MaskingWriter", codec.MaskingWriter)
    monkeypatch.setattr(chosen, "MessageReader", codec.MessageReader)
    buffer, burst = codec.ReceiveBuffer(65536), codec.Burst(Loop())

    class End(codec.HotPath):
        def __init__(self, client, extensions):
            self.connection = Connection(client=client, extensions=extensions)
            self.reader, self.writer = self.connection.reader, self.connection.writer
            self.consumer, self.transport, self.buffer, self.burst = Dispatcher(), Transport(), buffer, burst
            self.thread, self.fd, self.max_size = threading.get_ident(), -1, codec.MAX_LENGTH
            self.alive = self.corked = self.lost = self.writes_paused = self.queued = self.busy = False
            self.direct_in, self.direct_out = True, self.connection.is_plain
            self.deflate, self.threshold = (extensions[0], 10) if extensions else (None, 0)

        def write_chunks(self, chunks):
            for chunk in chunks:
                self.transport.write(chunk)

        def received(self, messages):
            self.consumer.deliver(self.connection.received(messages))

        def yield_reading(self):
            """Reads on at once."""

        def rest(self):
            return codec.SENT

    def feed(end, data):
        while data:
            target = memoryview(end.get_buffer(-1))
            some = min(len(target), len(data))
            target[:some] = data[:some]
            target.release()
            end.buffer_updated(some)
            data = data[some:]

    def carry(sender, receiver):
        data, sender.transport.data = sender.transport.data, b""
        feed(receiver, data)
        messages, receiver.consumer.messages = receiver.consumer.messages, []
        return data, [receiver.connection.decode(*one) if one[0] & codec.RSV1 else one for one in messages]

    return End, carry


MESSAGES = ["", "Grüße", b"", b"\x00\xff", "x" * 3000, bytes(pure.UNCOPIED), b"y" * 300_000, "z" * 300_000, b"w" * 9]


@pytest.mark.parametrize("deflate", [None, (15, 15, False), (9, 12, False), (8, 10, True)])
@pytest.mark.parametrize("corked", [False, True])
def test_each_role_takes_the_short_way(codec, connected, deflate, corked):
    make, carry = connected

    def extensions(client):
        if deflate is None:
            return ()
        ours, theirs, alone = deflate
        return [
            PerMessageDeflate(
                "permessage-deflate", alone, False, ours, server_max_window_bits=theirs, client=client, threshold=10
            )
        ]

    client, server = make(True, extensions(True)), make(False, extensions(False))
    for sender, receiver in ((client, server), (server, client)) * 2:
        if corked:
            sender.cork()
        for message in MESSAGES:
            assert sender.direct_out
            assert sender.send(message, 1 if isinstance(message, str) else 2) is codec.SENT
        sender.uncork()
        data, received = carry(sender, receiver)
        assert not receiver.reader.error
        assert received == [(1, m.encode()) if isinstance(m, str) else (2, m) for m in MESSAGES]
        assert bool(data[1] & 0x80) is (sender is client)


def test_an_end_refuses_frames_of_its_own_role(codec, connected):
    make, carry = connected
    for client, error in ((True, codec.FRAME_MASKED), (False, codec.FRAME_NOT_MASKED)):
        one, other = make(client, ()), make(client, ())
        one.send("hello", 1)
        assert carry(one, other)[1] == []
        assert other.reader.error == error
