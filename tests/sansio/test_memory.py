"""Memory of a connection under input that has pinned it elsewhere, on both codecs; the reader has tests of its own."""

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


def test_delivered_payloads_are_not_kept():
    """A grown buffer is released as well."""
    server = Connection(max_size=None)
    data = frame(BINARY, bytes(8 * MIB))
    pieces = [data[i : i + 64 * KIB] for i in range(0, len(data), 64 * KIB)]
    with allocated() as memory:
        assert sum(len(payload) for piece in pieces for _, payload in server.receive(piece)) == 8 * MIB
    assert memory.kept < 64 * KIB


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
