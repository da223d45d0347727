"""Fixtures for tests of the server: an HTTP client, and a folder for commands."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any, NamedTuple

import pytest

from ..support.tls import Tls
from .command import ECHO, ONE_VIEW


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection to a server, for any bytes of a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, head_only: bool = False) -> Response:
        head = await self.reader.readuntil(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = 0 if head_only else int(headers.get("content-length", 0))
        body = await self.reader.readexactly(length)
        version, status, _ = status_line.split(" ", 2)
        assert version == "HTTP/1.1"
        return Response(int(status), headers, body)

    async def get(self, target: str = "/") -> Response:
        self.send(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return await self.response()

    async def rest(self) -> bytes:
        """The bytes up to the server's close of the connection."""
        return await self.reader.read()

    async def end(self) -> bytes:
        """The bytes up to the server's close or reset of the connection."""
        with suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@asynccontextmanager
async def _connected(server: Any, tls: Tls | None) -> AsyncIterator[Client]:
    options: dict[str, Any] = {} if tls is None else {"ssl": tls.client, "server_hostname": "localhost"}
    if server.port is None:
        path = server.addresses[0].partition(":")[2]
        reader, writer = await asyncio.open_unix_connection(path, **options)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, **options)
    try:
        yield Client(reader, writer)
    finally:
        # A test may leave when the server has reset the connection, or waits for more.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
def ssl(either_tls: Tls | None) -> SSLContext | None:
    """The context of a server: None, and then one with a certificate."""
    return either_tls and either_tls.server


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[Client]]:
    """Connects to a server, over TLS if its address tells so, or never: `connect(server, plain=True)`."""

    def connect(server: Any, *, plain: bool = False) -> AbstractAsyncContextManager[Client]:
        secure = server.addresses[0].startswith("wss") and not plain
        return _connected(server, request.getfixturevalue("tls") if secure else None)

    return connect


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with applications for the `duck` command."""
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "one_view.py").write_text(ONE_VIEW)
    return tmp_path


@pytest.fixture
def raising_filter(caplog):
    """The server's log has a filter that raises an ArithmeticError."""

    def raising(record):
        raise ArithmeticError

    logger = logging.getLogger("duck.server")
    caplog.set_level(logging.INFO, logger.name)
    logger.addFilter(raising)
    yield
    logger.removeFilter(raising)
