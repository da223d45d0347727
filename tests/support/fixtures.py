"""The fixtures of all rooms: a loop of each kind, a server for one view, a peer on a raw socket, a certificate."""

import asyncio
import collections
import importlib.metadata
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from duck.contrib.websockets import CloseCode, Frame, OpCode
from duck.contrib.websockets import codec as chosen
from duck.contrib.websockets.sansio.connection import Connection, parse_close
from duck.server import serve

SECONDS = 15
"""How long a test may take before it has failed."""

ENDING = 5
"""Seconds in which a view must have ended once its peer is gone."""

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEAD = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture
def on_codec(codec, monkeypatch):
    """Has every `Connection` made in a test run on each of the two codecs in turn."""
    for name, value in vars(codec).items():
        if hasattr(chosen, name) and not name.startswith("_"):
            monkeypatch.setattr(chosen, name, value)
    assert type(Connection().reader) is codec.MessageReader, "connections do not take the codec from the package"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request):
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return request.param


@pytest.fixture
def run(runner):
    """Runs a coroutine on each kind of loop in turn; what is raised where nobody sees it fails the test."""
    unseen = []

    async def limited(scenario):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(SECONDS):
            return await scenario

    yield lambda scenario: runner.run(limited(scenario))
    runner.close()
    assert not unseen


class Peer:
    """A client that does as it is told, allowed or not, and does nothing by itself."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    def write(self, data):
        self.writer.write(data)

    def send(self, *messages):
        """Sends texts, bytes and frames, all in one piece."""
        self.write(b"".join(map(self.serialize, messages)))

    @staticmethod
    def serialize(message):
        if isinstance(message, str):
            message = Frame(OpCode.TEXT, payload=message.encode())
        elif isinstance(message, bytes):
            message = Frame(OpCode.BINARY, payload=message)
        return message.serialize(mask=True)

    def ping(self, payload=b""):
        self.send(Frame(OpCode.PING, payload=payload))

    def close(self, code=CloseCode.NORMAL_CLOSURE, reason=""):
        self.send(Frame(OpCode.CLOSE, payload=code.to_bytes(2) + reason.encode()))

    async def head(self):
        """The head of the response: its status, and its fields by their names in lower case."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        headers = dict(field.split(": ", 1) for field in fields)
        return int(line.split()[1]), {name.lower(): value for name, value in headers.items()}

    async def frame(self):
        """The next frame, as it is on the wire."""
        return await Frame.parse(self.reader.readexactly, mask_required=False)

    async def message(self):
        """The next frame, which is a whole message: its str or bytes."""
        frame = await self.frame()
        assert frame.fin, frame
        assert frame.opcode in (OpCode.TEXT, OpCode.BINARY), (frame, frame.payload)
        return frame.payload.decode() if frame.opcode == OpCode.TEXT else frame.payload

    async def closing(self):
        """The next frame, which is a close frame: its code and reason."""
        frame = await self.frame()
        assert frame.opcode == OpCode.CLOSE, frame
        return parse_close(frame.payload)

    async def rest(self):
        """The frames until the server has closed its side."""
        frames = []
        try:
            while True:
                frames.append(await self.frame())
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            assert not getattr(error, "partial", b""), "the stream ends inside a frame"
            return frames

    async def flood(self, data, most=400):
        """Sends `data` until it is not taken any more: how often that was, which is less than `most`.

        What is sent is in the buffers of the sockets then, some MiB, and of both ends.
        """
        self.writer.transport.set_write_buffer_limits(high=0)
        for count in range(1, most):
            self.write(data)
            try:
                async with asyncio.timeout(0.2):
                    await self.writer.drain()
            except TimeoutError:
                return count
        raise AssertionError(f"all of {most} times {len(data)} bytes have been taken")

    async def settled(self):
        """The frames until the server has read everything that was sent to it."""
        probe = b"settled?"
        self.ping(probe)
        frames = []
        while True:
            frame = await self.frame()
            if (frame.opcode, frame.payload) == (OpCode.PONG, probe):
                return frames
            frames.append(frame)

    def shut(self):
        """Sends an end of stream."""
        self.writer.write_eof()

    def leave(self):
        """Is gone, without a word."""
        self.writer.transport.abort()

    def reset(self):
        """Is gone, with a TCP reset."""
        no_linger = b"\1\0\0\0\0\0\0\0"
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self.leave()


class Session:
    """A peer, and the view that it talks to.

    Attributes:
        end: A future that is done when all is over.
    """

    def __init__(self, peer, server):
        self.peer = peer
        self.server = server
        self.view = None
        self.end = None

    async def ended(self, seconds=ENDING):
        """Until all is over; what the view raised is raised."""
        async with asyncio.timeout(seconds):
            await asyncio.wait([self.end])
        return self.end.result()


@asynccontextmanager
async def _dial(
    server,
    *,
    target="/",
    headers=(),
    without=(),
    behind=b"",
    read_limit=2**16,
    receive_buffer=None,
    tls=None,
    cut=None,
):
    """A peer that has sent its request up to the `cut`, and what is `behind` it, in one piece."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
    options = {} if tls is None else {"ssl": tls.client, "server_hostname": "localhost"}
    reader, writer = await asyncio.open_connection(sock=sock, limit=read_limit, **options)
    fields = {**HEAD, **dict(headers)}
    lines = [f"{name}: {value}" for name, value in fields.items() if name not in without]
    request = "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")
    writer.write(request[:cut] + behind)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
        for _ in range(3):
            # For a refused connection, to which nobody holds, the server's side has to see the end before the loop is
            # closed; a server of Python 3.11 does not wait for it.
            await asyncio.sleep(0)


@pytest.fixture
def serving():
    """Serves a view: `async with serving(View) as server`.

    `server.views` gives each (view, end) that comes to be; `end` is a future, None after a refusal. It is a task that
    awaits `run()`, as hosts do that have no other way, if `by_run` is true.
    """

    @asynccontextmanager
    async def serving(view_class, *, tls=None, by_run=False, **options):
        views = asyncio.Queue()

        class Observed(view_class):
            def start(self):
                end = super().start()
                views.put_nowait((self, end))
                return end

            if by_run:

                async def run(self, *args, **kwargs):
                    await super().run(*args, **kwargs)

        Observed.__name__ = Observed.__qualname__ = view_class.__name__
        async with serve(Observed, port=0, ssl=tls and tls.server, **options) as server:
            server.views = views
            yield server

    return serving


@pytest.fixture
def dial():
    """Connects to a server: `async with dial(server) as peer`; the answer is not read."""
    return _dial


@pytest.fixture
def connect(serving):
    """Serves a view and connects to it: `async with connect(View) as session`.

    However a test leaves the connection, the view has to end soon.
    """

    @asynccontextmanager
    async def connect(view_class, *, tls=None, by_run=False, **options):
        async with serving(view_class, tls=tls, by_run=by_run) as server:
            async with _dial(server, tls=tls, **options) as peer:
                session = Session(peer, server)
                status, _ = await peer.head()
                assert status == 101
                session.view, session.end = await server.views.get()
                yield session
            if not session.end.done():
                await session.ended()

    return connect


class Tls(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def tls():
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


@pytest.fixture
def log(caplog):
    """What the package has logged from WARNING on, as (level, message, exception)."""
    caplog.set_level("INFO", "duck")
    Entry = collections.namedtuple("Entry", "level message error")

    def entries():
        return [
            Entry(record.levelname, record.getMessage(), record.exc_info and record.exc_info[1])
            for record in caplog.records
            if record.levelno >= 30
        ]

    return entries


class AsgiServer:
    """uvicorn without its main loop: its protocols, as its settings have them, on a port.

    Attributes:
        state: Where uvicorn keeps account of connections and tasks.
    """

    def __init__(self, config, state, port):
        self.config = config
        self.state = state
        self.port = port

    async def shut_down(self):
        """What uvicorn does to end."""
        for connection in list(self.state.connections):
            connection.shutdown()
        while self.state.connections or self.state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
def serving_asgi():
    """Serves an ASGI application: `async with serving_asgi(app) as server`, with uvicorn's settings as options.

    In the end no connection and no task may be left over.
    """
    config = pytest.importorskip("uvicorn.config")
    server_module = pytest.importorskip("uvicorn.server")

    @asynccontextmanager
    async def serving_asgi(app, *, tls=None, ws="duck.contrib.websockets.uvicorn:WebSocketProtocol", **options):
        settings = config.Config(app, ws=ws, lifespan="off", log_config=None, **options)
        settings.load()
        state = server_module.ServerState()
        state.default_headers = [(b"server", b"uvicorn")]
        loop = asyncio.get_running_loop()

        def protocol():
            return settings.http_protocol_class(settings, state, {"from": "lifespan"}, loop)

        listener = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls and tls.server)
        try:
            server = AsgiServer(settings, state, listener.sockets[0].getsockname()[1])
            yield server
            async with asyncio.timeout(ENDING):
                while state.connections or state.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        finally:
            listener.close()
            for task in state.tasks:
                task.cancel()
            for connection in state.connections:
                connection.transport.abort()

    return serving_asgi


@pytest.fixture(params=["taken over", "bridged"])
def ws(request):
    """The protocols of uvicorn that a view is served by: ours gives the connection away, the other has events only."""
    if request.param == "taken over":
        return "duck.contrib.websockets.uvicorn:WebSocketProtocol"
    if tuple(map(int, importlib.metadata.version("uvicorn").split(".")[:2])) < (0, 53):
        pytest.skip("events of this uvicorn's own protocol have faults, which are mended in 0.53")
    return "websockets-sansio"


@pytest.fixture
def until():
    """Waits for what nothing tells of."""

    async def wait(condition):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    return wait
