"""Hostile and odd input that has broken other implementations: answered as it should be, at a bounded cost."""

import asyncio
import contextlib
import time

import pytest

from duck.contrib.websockets import Frame, OpCode, PerMessageDeflate, WebSocketView, handshake
from duck.contrib.websockets.connection import Connection
from duck.contrib.websockets.exceptions import HandshakeError
from duck.http.request import HttpRequest

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode
KIB, MIB = 2**10, 2**20


def frame(opcode, payload=b"", fin=True, **bits):
    return Frame(opcode, fin, payload, **bits).serialize(mask=True)


# Reserved bits where an extension uses one


@pytest.mark.usefixtures("on_codec")
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, rsv2=True),
        frame(TEXT, rsv3=True),
        frame(TEXT, rsv1=True, rsv2=True),
        frame(PING, rsv1=True),
        frame(CLOSE, rsv1=True),
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, rsv1=True),
        frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07", fin=False, rsv1=True) + frame(CONTINUATION, b"\0", rsv1=True),
    ],
    ids=["rsv2", "rsv3", "rsv1 and rsv2", "ping", "close", "continuation", "continuation of a compressed message"],
)
def test_reserved_bits_with_compression(data):
    """picows: they passed once deflate was agreed on. RSV1 is for the first frame of a data message only."""
    server = Connection(extensions=[PerMessageDeflate("permessage-deflate")])
    server.receive(data)
    server.respond()
    assert (server.failed.close_code, str(server.failed)) == (1002, "reserved bits set")


# The handshake


LONG = {
    "extensions": ("Sec-WebSocket-Extensions", 'a; b="' + "\\c" * 32_000),
    "extensions with many parameters": ("Sec-WebSocket-Extensions", "a; b=" * 16_000),
    "subprotocols": ("Sec-WebSocket-Protocol", "a, " * 20_000),
    "connection options": ("Connection", "a, " * 20_000 + "Upgrade"),
    "upgrades": ("Upgrade", "a/1," * 16_000 + "websocket"),
    "key": ("Sec-WebSocket-Key", "A" * 64_000),
    "origin": ("Origin", "http://" + "a." * 32_000),
    "host": ("Host", "a." * 32_000),
}


@pytest.mark.parametrize("case", LONG)
def test_long_headers_take_linear_time(case):
    """ws, websocket-extensions: an expression went back and forth over them for ever."""
    name, value = LONG[case]
    fields = {
        "Host": "a",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "http://a",
        name: value,
    }
    request = HttpRequest(headers=fields.items())
    start = time.perf_counter()
    with contextlib.suppress(HandshakeError):
        handshake.accept(request, subprotocols=["chat"], allowed_origins=None)
    assert time.perf_counter() - start < 0.5


# On a socket


class Echo(WebSocketView):
    CLOSE_TIMEOUT = 0.5
    handled = 0

    async def on_receive(self, message, opcode):
        self.handled += 1
        await self.send(message, opcode)


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\x00", "\x7f"])
def test_control_characters_in_a_header(run, serving, dial, character):
    """daphne: some split a header for one reader and not for another."""

    async def scenario():
        async with serving(Echo) as server, dial(server, headers={"X-Odd": f"a{character}Origin: b"}) as peer:
            assert (await peer.head())[0] == 400
            assert server.views.empty()

    run(scenario())


def test_ten_thousand_headers(run, serving, dial):
    async def scenario():
        async with serving(Echo) as server:
            async with dial(server, headers={f"X-{i}": "x" for i in range(10_000)}) as peer:
                assert (await peer.head())[0] == 431
            async with dial(server) as peer:
                assert (await peer.head())[0] == 101

    run(scenario())


def test_a_message_too_big_is_refused_on_its_header(run, connect):
    async def scenario():
        async with connect(Echo) as session:
            session.peer.write(b"\x82\xff" + (MIB + 1).to_bytes(8) + bytes(4))
            assert await session.peer.closing() == (1009, "message too big")
            assert session.view.handled == 0

    run(scenario())


def test_a_message_too_big_whose_sender_sends_on(run, connect):
    async def scenario():
        async with connect(Echo) as session:
            peer = session.peer
            peer.write(b"\x82\xff" + (2**40).to_bytes(8) + bytes(4))
            with pytest.raises(ConnectionError):
                while True:
                    peer.write(bytes(64 * KIB))
                    await peer.writer.drain()
                    await asyncio.sleep(0)
            # It is let go in the end, but it could have read why.
            await session.ended()
            assert session.view.close_code == 1009

    run(scenario())


def test_pings_of_a_peer_that_does_not_read_the_answers(run, connect):
    """They are not read any more once the answers pile up."""

    async def scenario():
        async with connect(Echo, receive_buffer=4 * KIB, read_limit=4 * KIB) as session:
            await session.peer.flood(frame(PING, bytes(125)) * 500)
            assert session.view.request.transport.get_write_buffer_size() < MIB

    run(scenario())


def test_a_large_message_that_comes_byte_by_byte(run, connect):
    data = frame(TEXT, b"x" * 300)

    async def scenario():
        async with connect(Echo) as session:
            for i in range(len(data)):
                session.peer.write(data[i : i + 1])
                await asyncio.sleep(0)
            assert await session.peer.message() == "x" * 300

    run(scenario())


@pytest.mark.parametrize("size", [2**23, 2**24])
def test_large_messages(run, connect, size):
    class Large(Echo):
        MAX_FRAME_SIZE = None

    async def scenario():
        async with connect(Large) as session:
            payload = bytes(range(256)) * (size // 256)
            session.peer.send(payload, "behind")
            assert await session.peer.message() == payload
            assert await session.peer.message() == "behind"

    run(scenario())


def test_20000_messages_on_one_connection(run, connect):
    async def scenario():
        async with connect(Echo) as session:
            batch = ["x"] * 1000
            for _ in range(20):
                session.peer.send(*batch)
                for _ in batch:
                    assert await session.peer.message() == "x"
            assert session.view.handled == 20_000

    run(scenario())
