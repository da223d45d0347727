"""Every client against every kind of server: each end gets the messages of the other, and both agree on the end."""

import json
import signal
import uuid
from pathlib import Path

import pytest
import websockets

from . import chromium
from .peers import websockets_peer
from .serving import serving

MIB = 1024 * 1024

TEXTS = ["", "duck", "mixed: é ✓ 🦆\0", "🦆" * 20_000]
BINARIES = [b"", bytes(range(256)), b"\xff\0" * 40_000]

APP = Path(__file__).with_name("app.py")


@pytest.mark.parametrize("message", TEXTS + BINARIES, ids=lambda message: f"{type(message).__name__}-{len(message)}")
async def test_a_message_is_echoed(connect, message):
    async with connect("/echo") as peer:
        await peer.send(message)
        assert await peer.receive() == message


async def test_messages_keep_their_order(connect):
    messages = [message for i in range(50) for message in (f"text {i}", b"binary %d" % i)]
    async with connect("/echo") as peer:
        for message in messages:
            await peer.send(message)
        assert [await peer.receive() for _ in messages] == messages


@pytest.mark.parametrize("unit", ["0123456789é🦆", b"0123456789\xff\0\x80\n"], ids=["text", "binary"])
async def test_a_message_of_5_mib_is_echoed(connect, unit):
    size = len(unit.encode() if isinstance(unit, str) else unit)
    async with connect("/echo") as peer:
        assert await peer.echoes(unit, 5 * MIB // size)


@pytest.mark.parametrize("message", ["a🦆" * 1000, b"\xf0" * 2999], ids=["text", "binary"])
async def test_fragments_of_the_server_are_joined(connect, message):
    async with connect("/fragments") as peer:
        await peer.send(message)
        assert await peer.receive() == message


async def test_a_long_message_leaves_in_fragments(server):
    async with websockets.connect(server.url("/fragments"), ssl=server.trust) as socket:
        await socket.send(["dr", "", "ake"] * 1000)
        fragments = [fragment async for fragment in socket.recv_streaming()]
        assert [len(fragment) for fragment in fragments] == [1000] * 5 + [0]
        assert "".join(fragments) == "drake" * 1000


async def test_a_ping_between_fragments_is_answered(server):
    async with websockets.connect(server.url("/echo"), ssl=server.trust) as socket:

        async def parts():
            yield b"one, "
            await (await socket.ping(b"in between"))
            yield b"two"

        await socket.send(parts())
        assert await socket.recv() == b"one, two"


@pytest.mark.parametrize("code", [1000, 3000, 4999])
async def test_the_view_gets_the_clients_close_code_and_reason(connect, server, code):
    name = str(uuid.uuid4())
    async with websockets_peer(server, f"/ending/{name}") as witness:
        async with connect(f"/echo/{name}") as peer:
            await peer.close(code, "the cliént's reason")
        assert json.loads(await witness.receive()) == [code, "the cliént's reason"]


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4999])
async def test_the_client_gets_the_views_close_code_and_reason(connect, code):
    async with connect(f"/close/{code}") as peer:
        assert await peer.closed() == (code, "the sërver's reason")


async def test_a_client_that_vanishes_is_1006(server):
    name = str(uuid.uuid4())
    async with websockets_peer(server, f"/ending/{name}") as witness:
        async with websockets.connect(server.url(f"/echo/{name}"), ssl=server.trust) as socket:
            socket.transport.abort()
        assert json.loads(await witness.receive()) == [1006, ""]


async def test_a_message_over_the_limit_closes_with_1009(connect):
    async with connect("/fail") as peer:  # 1 MiB
        await peer.send(bytes(2 * MIB))
        assert await peer.closed() == (1009, "message too big")


async def test_a_handler_that_fails_closes_with_1011(connect):
    async with connect("/fail") as peer:
        await peer.send("anything")
        assert await peer.closed() == (1011, "internal error")


async def test_a_subprotocol_is_agreed_on(connect):
    async with connect("/echo", ["goose", "chat", "duck"]) as peer:
        assert peer.subprotocol == "chat"


async def test_without_an_offer_there_is_no_subprotocol(connect):
    async with connect("/echo") as peer:
        assert peer.subprotocol is None


async def test_a_page_of_another_origin_is_refused(devtools, server):
    elsewhere = server.page("/").replace("localhost", "127.0.0.1")
    async with chromium.open_page(devtools, elsewhere) as page:
        with pytest.raises(RuntimeError, match="no connection"):
            await page.evaluate(f"globalThis.peer = new Peer({server.url('/echo')!r}); peer.opened")


async def test_a_stopping_server_sends_its_close_code():
    with serving(APP) as server:
        async with websockets.connect(server.url("/echo")) as socket:
            server.process.send_signal(signal.SIGTERM)
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1001, "server shutting down")
        assert server.process.wait(30) == 0
