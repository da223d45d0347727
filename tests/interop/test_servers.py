"""Our client against the servers of others: messages of many sizes, compression, pings, and the end."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest
import websockets

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.client import connect
from duck.server import serve

NODE = Path(__file__).with_name("node")
SIZES = (0, 1, 125, 126, 70_000, 300_000)


@asynccontextmanager
async def by_websockets() -> AsyncIterator[int]:
    async def echo(peer: Any) -> None:
        async for message in peer:
            await peer.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def by_aiohttp() -> AsyncIterator[int]:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        peer = aiohttp.web.WebSocketResponse()
        await peer.prepare(request)
        async for message in peer:
            await (peer.send_str if message.type is aiohttp.WSMsgType.TEXT else peer.send_bytes)(message.data)
        return peer

    app = aiohttp.web.Application()
    app.router.add_get("/", echo)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Echo(WebSocketView):
    async def on_receive(self, message: bytes, opcode: Any) -> None:
        await self.send(message, opcode)


@asynccontextmanager
async def by_ourselves() -> AsyncIterator[int]:
    async with serve(Echo, port=0) as server:
        yield server.port


SERVERS: dict[str, Callable[[], AbstractAsyncContextManager[int]]] = {
    "websockets": by_websockets,
    "aiohttp": by_aiohttp,
    "duck": by_ourselves,
}


async def talk(port: int, compression: bool) -> None:
    async with connect(f"ws://127.0.0.1:{port}/", compression=compression, ping_interval=0.01) as ws:
        assert bool(ws.extensions) is compression
        for size in SIZES:
            for message in ("duck"[: size % 5] * (size // 4 + 1), os.urandom(size)):
                if isinstance(message, str):
                    await ws.send_text(message)
                else:
                    await ws.send_binary(message)
                assert await ws.recv(timeout=10) == message
        while ws.latency is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert ws.close_code == 1000


@pytest.mark.parametrize("compression", [True, False])
@pytest.mark.parametrize("name", SERVERS)
async def test_our_client_connects_to_servers_in_python(name, compression):
    async with SERVERS[name]() as port:
        await talk(port, compression)


@pytest.mark.parametrize("compression", [True, False])
def test_our_client_connects_to_a_server_in_node(run, ws, compression):
    command = ["node", str(NODE / "echo.mjs")]
    with subprocess.Popen(command, cwd=ws, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        port = int(process.stdout.readline())
        run(talk(port, compression))
        process.stdin.close()
