"""The clients of the tests, each behind the same few methods."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import websockets
from aiohttp.connector import Connection
from websockets.asyncio.client import ClientConnection

from .chromium import Page, shared_page
from .serving import Server

__all__ = ["Peer", "aiohttp_peer", "chromium_peer", "websockets_peer"]


class Peer(Protocol):
    """One end of a connection."""

    subprotocol: str | None

    async def send(self, message: str | bytes) -> None: ...

    async def receive(self) -> str | bytes: ...

    async def echoes(self, unit: str | bytes, times: int) -> bool:
        """Sends a message, a repeated unit; returns whether the same message comes back."""
        message = unit * times
        await self.send(message)
        return await self.receive() == message

    async def close(self, code: int, reason: str) -> None: ...

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the other end, once it has closed the connection."""
        ...


class WebsocketsPeer(Peer):
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.subprotocol = socket.subprotocol
        self.send = socket.send
        self.receive = socket.recv
        self.close = socket.close

    async def closed(self) -> tuple[int, str]:
        await self._socket.wait_closed()
        return self._socket.close_code, self._socket.close_reason


@asynccontextmanager
async def websockets_peer(server: Server, path: str, subprotocols: Sequence[str] = ()) -> AsyncIterator[WebsocketsPeer]:
    url = server.url(path)
    async with websockets.connect(url, ssl=server.trust, subprotocols=subprotocols or None, max_size=None) as socket:
        yield WebsocketsPeer(socket)


class AiohttpPeer(Peer):
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.subprotocol = socket.protocol
        self.compress = socket.compress

    async def send(self, message: str | bytes) -> None:
        await (self._socket.send_str(message) if isinstance(message, str) else self._socket.send_bytes(message))

    async def receive(self) -> str | bytes:
        message = await self._socket.receive()
        assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message
        return message.data

    async def close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())

    async def closed(self) -> tuple[int, str]:
        message = await self._socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return message.data, message.extra


class AiohttpConnector(aiohttp.TCPConnector):
    """A connector with `until_closed`: connections over TLS are still open once a session is closed."""

    def __init__(self) -> None:
        super().__init__()
        self._closings: list[asyncio.Future[None] | None] = []

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        connection = await super().connect(*args, **kwargs)
        assert connection.protocol is not None
        self._closings.append(connection.protocol.closed)
        return connection

    async def until_closed(self) -> None:
        await asyncio.gather(*filter(None, self._closings), return_exceptions=True)


@asynccontextmanager
async def aiohttp_peer(
    server: Server, path: str, subprotocols: Sequence[str] = (), compress: int = 0
) -> AsyncIterator[AiohttpPeer]:
    connector = AiohttpConnector()
    options = {"ssl": server.trust or True, "protocols": subprotocols, "max_msg_size": 0, "compress": compress}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(server.url(path), **options) as socket,
    ):
        yield AiohttpPeer(socket)
    await connector.until_closed()


class ChromiumPeer(Peer):
    """A WebSocket of a page; the JavaScript is in the page that `app.py` serves."""

    _numbers = itertools.count()

    def __init__(self, page: Page) -> None:
        self._page = page
        self._name = f"peer{next(self._numbers)}"
        self.subprotocol: str | None = None

    async def open(self, url: str, subprotocols: Sequence[str]) -> None:
        arguments = f"{json.dumps(url)}, {json.dumps(subprotocols)}"
        await self._page.evaluate(f"globalThis.{self._name} = new Peer({arguments}); {self._name}.opened")
        self.subprotocol = await self._page.evaluate(f"{self._name}.socket.protocol") or None

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._page.evaluate(f"{self._name}.socket.send({json.dumps(message)})")
        else:
            await self._page.evaluate(f"{self._name}.sendBinary('{base64.b64encode(message).decode()}')")

    async def receive(self) -> str | bytes:
        message = await self._page.evaluate(f"{self._name}.receive()")
        return message["text"] if "text" in message else base64.b64decode(message["base64"])

    async def echoes(self, unit: str | bytes, times: int) -> bool:
        is_binary = isinstance(unit, bytes)
        arguments = json.dumps([unit.decode("latin-1") if is_binary else unit, times, is_binary])
        return bool(await self._page.evaluate(f"{self._name}.echoes(...{arguments})"))

    async def close(self, code: int, reason: str) -> None:
        await self._page.evaluate(f"{self._name}.socket.close({code}, {json.dumps(reason)})")

    async def closed(self) -> tuple[int, str]:
        code, reason = await self._page.evaluate(f"{self._name}.closed")
        return code, reason

    async def drop(self) -> None:
        """Closes the connection without waiting, and leaves nothing of it in the page."""
        await self._page.evaluate(f"{self._name}.socket.close(); delete globalThis.{self._name}")


@asynccontextmanager
async def chromium_peer(
    devtools: str, server: Server, path: str, subprotocols: Sequence[str] = ()
) -> AsyncIterator[ChromiumPeer]:
    async with shared_page(devtools, server.page(f"/#{server.process.pid}")) as page:
        peer = ChromiumPeer(page)
        try:
            await peer.open(server.url(path), subprotocols)
            yield peer
        finally:
            await peer.drop()
