"""permessage-deflate with clients that others wrote, and with every set of parameters that they have."""

import base64
import itertools
import json
import os
import subprocess

import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from .chromium import open_page
from .conftest import NODE, Kind
from .peers import aiohttp_peer

JSON = json.dumps([{"symbol": f"S{i}", "price": i * 7919 % 1000 / 10, "side": "buy"} for i in range(200)])
MESSAGES = [JSON, "", "small", JSON, os.urandom(5000), "é🦆" * 3000, b"", bytes(300_000), JSON[:500], JSON]


@pytest.fixture(scope="module")
def kind():
    """One server for all: loop and TLS do not depend on compression."""
    return Kind("auto", False)


WINDOWS = [None, 8, 9, 12, 15]
CLIENT_WINDOWS = [None, True, 9, 12, 15]


@pytest.mark.parametrize("server_window", WINDOWS)
@pytest.mark.parametrize("client_window", CLIENT_WINDOWS)
async def test_websockets_agrees_on_every_set_of_parameters(server, server_window, client_window):
    for alone in itertools.product((False, True), repeat=2):
        factory = ClientPerMessageDeflateFactory(
            *alone, server_max_window_bits=server_window, client_max_window_bits=client_window
        )
        async with websockets.connect(
            server.url("/echo"), ssl=server.trust, compression=None, extensions=[factory], max_size=None
        ) as socket:
            (extension,) = socket.protocol.extensions
            assert extension.remote_max_window_bits == min(server_window or 15, 12)
            for message in MESSAGES:
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send([JSON[:300], "", JSON[300:]])
            assert await socket.recv() == JSON


async def test_compressed_fragments_of_the_server_are_joined(server):
    async with websockets.connect(server.url("/fragments"), ssl=server.trust) as socket:
        assert [extension.name for extension in socket.protocol.extensions] == ["permessage-deflate"]
        for message in (JSON, "small", JSON):
            await socket.send(message)
            assert await socket.recv() == message


@pytest.mark.parametrize("window", [9, 12, 15])
async def test_aiohttp_exchanges_compressed_messages(server, window):
    async with aiohttp_peer(server, "/echo", compress=window) as peer:
        assert peer.compress
        for message in MESSAGES:
            await peer.send(message)
            assert await peer.receive() == message


async def test_chromium_exchanges_compressed_messages(server, devtools):
    async with open_page(devtools, server.page("/")) as page:
        url = json.dumps(server.url("/echo"))
        await page.evaluate(f"globalThis.peer = new Peer({url}, []); peer.opened")
        assert await page.evaluate("peer.socket.extensions") == (
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
        )
        for message in MESSAGES:
            if isinstance(message, str):
                await page.evaluate(f"peer.socket.send({json.dumps(message)})")
                assert (await page.evaluate("peer.receive()"))["text"] == message
            else:
                await page.evaluate(f"peer.sendBinary('{base64.b64encode(message).decode()}')")
                assert base64.b64decode((await page.evaluate("peer.receive()"))["base64"]) == message


NODE_OPTIONS = {
    "its defaults": (True, "server_max_window_bits=12; client_max_window_bits=12"),
    "small messages too": ({"threshold": 0}, "server_max_window_bits=12; client_max_window_bits=12"),
    "small windows": (
        {"threshold": 0, "serverMaxWindowBits": 9, "clientMaxWindowBits": 10},
        "server_max_window_bits=9; client_max_window_bits=10",
    ),
    "no context": (
        {"threshold": 0, "serverNoContextTakeover": True, "clientNoContextTakeover": True},
        "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
    ),
}


@pytest.mark.parametrize("name", NODE_OPTIONS)
def test_node_exchanges_compressed_messages(server, ws, name):
    options, answer = NODE_OPTIONS[name]
    messages = [
        {"text": message} if isinstance(message, str) else {"base64": base64.b64encode(message).decode()}
        for message in MESSAGES
    ]
    done = subprocess.run(
        ["node", str(NODE / "talk.mjs"), server.url("/echo")],
        cwd=ws,
        input=json.dumps({"options": options, "messages": messages}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["extensions"] == f"permessage-deflate; {answer}"
    assert said["received"] == messages
    assert said["code"] == 1000
