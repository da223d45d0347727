"""Servers in the loop of a test: the embedded one for a view, and uvicorn's protocols for an ASGI application."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing.network import Network
from duck.contrib.websockets.testing.serving import Server as InMemory
from duck.server import Server, serve

from .handshake import upgrade
from .peers import ENDING, Peer, Session, dial
from .tls import Tls

__all__ = ["OURS", "SLOW", "AsgiServer", "answering", "connected", "connected_in_memory", "serving", "serving_asgi"]

OURS = "duck.contrib.websockets.uvicorn:WebSocketProtocol"

SLOW = {"receive_buffer": 2**14, "send_buffer": 2**14, "read_limit": 2**12}
"""Options of `connected` for small buffers: the view may send about 100 KiB to a peer that does not read."""


@asynccontextmanager
async def serving(
    view_class: type[WebSocketView], *, tls: Tls | None = None, by_run: bool = False, **options: Any
) -> AsyncIterator[Server]:
    """Serves a view on a free port.

    `server.views` is a queue with a pair (view, end) for each created view. `end` is a future; None after a refusal.
    With `by_run`, `end` is a task that awaits `run()`.
    """
    views: asyncio.Queue[tuple[WebSocketView, Any]] = asyncio.Queue()

    def start(self: WebSocketView) -> Any:
        end = view_class.start(self)
        views.put_nowait((self, end))
        return end

    class Observed(view_class):  # type: ignore[valid-type, misc]
        if by_run:

            async def run(self, *args: Any, **kwargs: Any) -> None:
                await super().run(*args, **kwargs)

    Observed.start = start  # an override in the class statement causes a warning
    Observed.__name__ = Observed.__qualname__ = view_class.__name__
    async with serve(Observed, port=0, ssl=tls and tls.server, **options) as server:
        server.views = views  # type: ignore[attr-defined]
        yield server


@asynccontextmanager
async def connected(
    view_class: type[WebSocketView],
    *,
    tls: Tls | None = None,
    by_run: bool = False,
    send_buffer: int | None = None,
    **options: Any,
) -> AsyncIterator[Session]:
    """Serves a view and connects to it; the options are those of `dial`.

    `send_buffer` is the size of the kernel's send buffer on the view's side in bytes; None lets the kernel enlarge it
    up to a few MiB. At the end of the block the view must end soon, whatever the state of the connection.
    """
    async with serving(view_class, tls=tls, by_run=by_run) as server:
        async with dial(server, tls=tls, **options) as peer:
            session = Session(peer, server)
            status, _ = await peer.head()
            assert status == 101
            session.view, session.end = await server.views.get()  # type: ignore[attr-defined]
            if send_buffer is not None:
                sock = session.view.request.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            yield session
        if not session.end.done():
            await session.ended()


@asynccontextmanager
async def connected_in_memory(
    view_class: type[WebSocketView],
    *,
    read_limit: int = 2**16,
    receive_buffer: int | None = None,
    send_buffer: int | None = None,
    **options: Any,
) -> AsyncIterator[Session]:
    """`connected` on the network of `testing`, without sockets. The sizes of kernel buffers have no effect.

    The other options are those of `upgrade`.
    """
    loop, network = asyncio.get_running_loop(), Network()
    server = InMemory(view_class, {}, False, None, None)
    reader = asyncio.StreamReader(read_limit)
    protocol = asyncio.StreamReaderProtocol(reader)
    network.server.connect(server)
    network.client.connect(protocol)
    peer = Peer(reader, asyncio.StreamWriter(network.client, protocol, reader, loop))
    peer.write(upgrade(**options))
    try:
        status, _ = await peer.head()
        assert status == 101
        assert server.ended is not None
        session = Session(peer, server)
        session.view, session.end = server.view, server.ended
        yield session
    finally:
        network.client.abort()
    if not session.end.done():
        await session.ended()


@asynccontextmanager
async def answering(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    tls: Tls | None = None,
    limit: int = 2**16,
) -> AsyncIterator[str]:
    """Serves any bytes: calls a function for each connection, which ends with the call; yields the URL of a WebSocket.

    At the end it waits for the calls. Python 3.11 reports the cancellation of one as an error of the loop.

    Args:
        limit: Bytes that the stream of a connection may buffer.
    """
    calls: set[asyncio.Task[Any]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call is not None
        calls.add(call)
        try:
            await answer(reader, writer)
        finally:
            writer.close()
            calls.remove(call)

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=tls and tls.server, limit=limit) as server:
        yield f"{'wss' if tls else 'ws'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        if calls:
            await asyncio.wait(calls)


class AsgiServer:
    """uvicorn's protocols on a port, without its main loop.

    Attributes:
        state: uvicorn's record of connections and tasks.
    """

    def __init__(self, config: Any, state: Any, port: int) -> None:
        self.config = config
        self.state = state
        self.port = port

    async def shut_down(self) -> None:
        """Stops all connections as uvicorn does."""
        for connection in list(self.state.connections):
            connection.shutdown()
        await self.idle()

    async def idle(self) -> None:
        """Waits until no connection and no task is left."""
        while self.state.connections or self.state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving_asgi(
    app: Any, *, tls: Tls | None = None, ws: Any = OURS, **options: Any
) -> AsyncIterator[AsgiServer]:
    """Serves an ASGI application with uvicorn's settings as options, and waits for connections and tasks at the end."""
    config = pytest.importorskip("uvicorn.config").Config(app, ws=ws, lifespan="off", log_config=None, **options)
    config.load()
    state = pytest.importorskip("uvicorn.server").ServerState()
    state.default_headers = [(b"server", b"uvicorn")]
    loop = asyncio.get_running_loop()

    def protocol() -> asyncio.BaseProtocol:
        made: asyncio.BaseProtocol = config.http_protocol_class(config, state, {"from": "lifespan"}, loop)
        return made

    listener = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls and tls.server)
    try:
        server = AsgiServer(config, state, listener.sockets[0].getsockname()[1])
        yield server
        async with asyncio.timeout(ENDING):
            await server.idle()
    finally:
        listener.close()
        for task in state.tasks:
            task.cancel()
        for connection in state.connections:
            connection.transport.abort()
