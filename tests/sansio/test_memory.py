"""Memory of a connection under input that has pinned it elsewhere, on both codecs."""

import contextlib
import gc
import tracemalloc

import pytest

from duck.contrib.websockets import Compression, Frame, OpCode, PerMessageDeflate, extensions
from duck.contrib.websockets.codec import deflate
from duck.contrib.websockets.sansio.connection import Connection

from ..support.frames import RSV1, frame, taken

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode
KIB, MIB = 2**10, 2**20

pytestmark = pytest.mark.usefixtures("on_codec")


class Memory:
    """Bytes that Python has allocated since the block began: `peak` at most, `kept` at its end."""

    peak = kept = 0


@contextlib.contextmanager
def allocated():
    memory = Memory()
    gc.collect()
    tracemalloc.start()
    try:
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        memory.kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_frame_that_comes_byte_by_byte_takes_its_size():
    """aiohttp: reads of one byte pinned 28 times the memory."""
    data = frame(BINARY, bytes(8 * KIB))
    server = Connection(max_size=MIB)
    messages = []
    with allocated() as memory:
        for i in range(len(data)):
            messages += server.receive(data[i : i + 1])
    assert [len(payload) for _, payload in messages] == [8 * KIB]
    assert memory.peak < 32 * KIB


def test_a_message_in_tiny_fragments_takes_its_size():
    """ws: 131 000 fragments of one byte pinned 13.5 MB; here a fragment costs its byte."""
    server = Connection(max_size=10_000)
    start, fragment = frame(BINARY, b"x", fin=False), frame(CONTINUATION, b"x", fin=False)
    some = fragment * 1000
    with allocated() as memory:
        server.receive(start)
        for _ in range(9):
            assert server.receive(some) == []
        assert not server.needs_response
    assert memory.peak < 50_000
    # And at the limit it ends.
    server.receive(some)
    server.respond()
    assert server.failed.close_code == 1009


def test_a_header_with_a_large_length_takes_no_memory():
    """aiohttp: payloads were kept up to a length that would have been refused; here the header is."""
    server = Connection(max_size=MIB)
    header = frame(BINARY)[:1] + b"\xff" + (2**40).to_bytes(8) + bytes(4)
    with allocated() as memory:
        server.receive(header)
        for _ in range(64):
            server.receive(bytes(64 * KIB))
    assert memory.peak < 128 * KIB
    server.respond()
    assert server.failed.close_code == 1009


def test_a_header_with_the_maximum_length_takes_no_memory():
    """Memory for a payload grows with the received bytes."""
    server = Connection(max_size=2**40)
    with allocated() as memory:
        server.receive(frame(BINARY)[:1] + b"\xff" + (2**40).to_bytes(8) + bytes(4))
        server.receive(bytes(64 * KIB))
    assert memory.peak < 32 * MIB
    assert not server.needs_response


def test_delivered_payloads_are_not_kept():
    """A grown buffer is released as well."""
    server = Connection(max_size=None)
    data = frame(BINARY, bytes(8 * MIB))
    pieces = [data[i : i + 64 * KIB] for i in range(0, len(data), 64 * KIB)]
    with allocated() as memory:
        assert sum(len(payload) for piece in pieces for _, payload in server.receive(piece)) == 8 * MIB
    assert memory.kept < 64 * KIB


def test_a_read_is_of_a_bounded_size():
    server = Connection(max_size=None)
    spare = bytearray(4 * KIB)
    server.received(server.reader.receive(frame(BINARY, bytes(32 * MIB))[:100_000]))
    for _ in range(20):
        buffer = memoryview(server.reader.get_buffer(spare))
        assert 0 < len(buffer) <= 256 * KIB
        size = len(buffer)
        del buffer
        server.received(server.reader.buffer_updated(spare, size))


def test_pings_cost_no_more_than_their_answers():
    server = Connection()
    flood = frame(PING, bytes(125)) * 1000
    with allocated() as memory:
        server.receive(flood)
        assert len(taken(server)) == 127 * 1000
    assert memory.peak < 2 * MIB


@pytest.mark.parametrize("fragments", [1, 50])
def test_a_bomb_takes_no_more_memory_than_the_limit(fragments):
    """Duck Framework: 97 KB became 100 MB, and reached the handler."""
    extension = PerMessageDeflate("permessage-deflate")
    bomb = extension.encode(Frame(BINARY, payload=bytes(64 * MIB))).payload
    assert len(bomb) < MIB / 10
    size = -(-len(bomb) // fragments)
    pieces = [bomb[i : i + size] for i in range(0, len(bomb), size)]
    frames = [
        frame(CONTINUATION if i else BINARY, piece, fin=i == len(pieces) - 1, rsv=0 if i else RSV1)
        for i, piece in enumerate(pieces)
    ]
    server = Connection(max_size=MIB, extensions=[PerMessageDeflate("permessage-deflate")])
    with allocated() as memory:
        for data in frames:
            assert server.receive(data) == []
    assert memory.peak < 4 * MIB
    assert memory.kept < 64 * KIB  # until the peer closes
    server.respond()
    assert server.failed.close_code == 1009


@pytest.mark.parametrize("name", deflate.BACKENDS)
def test_a_connection_that_has_compressed_keeps_its_windows_only(name, monkeypatch):
    """Elsewhere 48 KiB for the compressor and the decompressor alone; here a window of 4 KiB for each direction."""
    try:
        monkeypatch.setattr(deflate, "BACKEND", deflate.load(name))
    except ImportError:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setattr(extensions, "KEPT", 0)
    offer = [("client_max_window_bits", None)]
    text = b"".join(b'{"id": %d, "price": %d}, ' % (i, i * 7919 % 1000) for i in range(60))
    payload = PerMessageDeflate("permessage-deflate", server_max_window_bits=12).compress(text)
    with allocated() as memory:
        servers = [Connection(max_size=MIB, extensions=[Compression().accept(offer)]) for _ in range(50)]
        for server in servers:
            for _ in range(10):
                assert server.receive(frame(TEXT, payload, rsv=RSV1)) == [(TEXT, text)]
                server.send(TEXT, text)
                assert len(taken(server)) < len(text)
    assert memory.kept / len(servers) < 12 * KIB


# Messages that must still pass


def test_65536_fragments_pass():
    """A cap on their number would fail Autobahn's cases 9.3 and 9.4."""
    server = Connection(max_size=4 * MIB)
    fragment = frame(CONTINUATION, bytes(64), fin=False)
    server.receive(frame(BINARY, bytes(64), fin=False))
    for _ in range(64):
        server.receive(fragment * 1023)
    left = 65_536 - 1 - 64 * 1023 - 1
    server.receive(fragment * left)
    assert server.receive(frame(CONTINUATION, bytes(64))) == [(BINARY, bytes(4 * MIB))]


@pytest.mark.parametrize("size", [2**23 - 1, 2**23, 2**24])
def test_a_large_frame_passes(size):
    """aiohttp's compiled parser broke at 2**23."""
    server, client = Connection(max_size=None), Connection(client=True)
    client.send(BINARY, bytes(size))
    assert server.receive(taken(client)) == [(BINARY, bytes(size))]


def test_20000_messages_in_fragments_pass():
    """ws: a counter of fragments was never reset."""
    server = Connection(max_size=100)
    stream = (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION)) * 100
    for _ in range(200):
        assert server.receive(stream) == [(TEXT, b"a")] * 100
    assert server.is_open
