"""What tests of the server share: an event loop of each kind, a certificate, an HTTP client."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
import trustme

SECONDS = 30
"""How long a test may wait for anything before it has failed."""


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection to a server, on which a test writes what it likes."""

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
        """What comes until the server has closed the connection."""
        return await self.reader.read()

    async def end(self) -> bytes:
        """What comes until the server has closed or reset the connection."""
        with suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@asynccontextmanager
async def _connect(server: Any, tls: Any = None) -> AsyncIterator[Client]:
    options = {} if tls is None else {"ssl": tls.client, "server_hostname": "localhost"}
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
def connect() -> Callable[..., Any]:
    return _connect


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Coroutine[Any, Any, None]]:
    """Waits for what nothing tells of."""

    async def wait(condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    return wait


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request: pytest.FixtureRequest) -> str:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture
def run(runner: asyncio.Runner) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine, on each kind of loop in turn."""

    async def limited(scenario: Coroutine[Any, Any, Any]) -> Any:
        async with asyncio.timeout(SECONDS):
            return await scenario

    return lambda scenario: runner.run(limited(scenario))


class Tls(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext
    certfile: str
    keyfile: str


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    folder = tmp_path_factory.mktemp("certificate")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    return Tls(server, client, str(folder / "cert.pem"), str(folder / "key.pem"))


@pytest.fixture(params=["tcp", "tls"])
def either_tls(request: pytest.FixtureRequest) -> Tls | None:
    """A certificate, and then none: for what must work on both kinds of transport."""
    return request.getfixturevalue("tls") if request.param == "tls" else None
