"""`connect`: a connection as a context manager, or to be awaited."""

from collections.abc import Generator
from types import TracebackType
from typing import Any, Unpack

from .client import ClientConnection, Options

__all__ = ["connect"]


class connect:
    """Connects to a server.

        async with connect("wss://example.org/chat", compression=True) as ws:
            await ws.send("hello")
            print(await ws.recv(timeout=5))
            async for message in ws:
                print(message)

    The connection is closed behind the block: with 1000, with 1011 if an exception has left it, with 1001 if it was
    cancelled. `ws = await connect(...)` leaves it to you to `await ws.close()`.

    Args:
        url: `ws://` or `wss://`; user and password in it become a field Authorization.
        options: See `Options`.

    Raises:
        HandshakeFailed: The server has refused, or its response breaks the rules; has status, headers and body.
        OSError: The network, the proxy or TLS has failed. A TimeoutError is one, after `open_timeout`.
        TypeError, ValueError: An option or the URL cannot be what it is.
    """

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        self._url = url
        self._options = options
        self._connection: ClientConnection | None = None

    async def _open(self) -> ClientConnection:
        connection = ClientConnection(self._url, **self._options)
        await connection.open()
        return connection

    def __await__(self) -> Generator[Any, Any, ClientConnection]:
        return self._open().__await__()

    async def __aenter__(self) -> ClientConnection:
        self._connection = await self._open()
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.__aexit__(kind, error, traceback)
