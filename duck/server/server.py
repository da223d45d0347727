"""A running server: its listening sockets, and account of everything that goes on behind them."""

import asyncio
import contextlib
import logging
import ssl as tls
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from duck.contrib.websockets import CloseCode, WebSocketView
from duck.http.request import ClientAddress
from duck.views import View

from .census import Census
from .http import HttpProtocol
from .limits import Limits
from .listen import UnixListener, bind, duplicates, url
from .proxies import Proxies
from .routes import Routes

__all__ = ["Server", "serve"]

logger = logging.getLogger("duck.server")

BACKLOG = 4096
"""Connections that the kernel holds until they are accepted; it caps the figure at its own."""

TURNED_AWAY = 32
"""Clients that are told at a time that there is no room; further ones are told nothing."""


@dataclass(frozen=True, slots=True)
class Application:
    """What requests name as their `application`; a framework's has more to it."""

    server: "Server"


class Server:
    """Serves an application; made by `serve` or `run`.

    Attributes:
        limits: What clients may ask for.
        routes: The application.
        proxies: Those whose word is taken for who the client is; None if nobody's is.
        application: What requests name as their application.
        closing: Whether the server is shutting down.
        addresses: Where it listens, as URLs.
        port: The port of the first socket; None before it listens, and on a Unix socket.
    """

    def __init__(
        self,
        urlpatterns: Iterable[Mapping[str, Any]] | type[View],
        *,
        limits: Limits | None = None,
        trusted_proxies: Iterable[str] = (),
        shutdown_timeout: float = 10.0,
    ) -> None:
        """Prepare an application.

        Args:
            urlpatterns: The routes, or one view for every path.
            limits: What clients may ask for.
            trusted_proxies: Those whose word is taken for who the client is; see `Proxies`.
            shutdown_timeout: Seconds that `close` waits for views to end.

        Raises:
            TypeError, ValueError: The routes are malformed.
        """
        self.limits = limits or Limits()
        self.routes = Routes(urlpatterns)
        self.proxies = Proxies(trusted_proxies) if trusted_proxies else None
        self.application = Application(self)
        self.closing = False
        self.addresses: list[str] = []
        self.port: int | None = None
        self._shutdown_timeout = shutdown_timeout
        self._listeners: list[asyncio.Server] = []
        self._unix_listener: UnixListener | None = None
        self._census = Census(self.limits)
        self._protocols: set[HttpProtocol] = set()
        self._turned_away = 0  # how many of them there is no room for
        self._answers: set[asyncio.Task[None]] = set()
        self._views: dict[asyncio.Future[None], WebSocketView] = {}
        self._no_protocols = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(self._listeners[0].sockets) if self._listeners else ()

    @property
    def connections(self) -> list[WebSocketView]:
        """The WebSocket views that run now."""
        return list(self._views.values())

    async def listen(
        self,
        host: str | None,
        port: int,
        *,
        uds: str | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        """Begin to serve, on the running loop.

        Raises:
            OSError: The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"backlog": BACKLOG}
        if ssl is not None:
            options |= {"ssl": ssl, "ssl_handshake_timeout": self.limits.head_timeout}

        protocol = partial(HttpProtocol, self, loop)
        listen_on: Callable[..., Awaitable[asyncio.Server]]
        if uds is None:
            sock = bind(host, port)
            where: dict[str, Any] = {"host": host, "port": port} if sock is None else {"sock": sock}
            listen_on = loop.create_server
            listener = await listen_on(protocol, **where, **options)
            self.port = listener.sockets[0].getsockname()[1]
        else:
            listen_on = loop.create_unix_server
            self._unix_listener = UnixListener(uds)
            listener = await listen_on(protocol, sock=self._unix_listener.socket, **options)
        self._listeners.append(listener)
        for sock in duplicates(listener):
            self._listeners.append(await listen_on(protocol, sock=sock, **options))
        self.addresses = [url(sock, secure=ssl is not None) for sock in self.sockets]

    async def close(self) -> None:
        """Shut down: tell every client, wait for the views to end, and in the end cancel them."""
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_task(self._shut_down())
        await asyncio.shield(self._closed)

    async def _shut_down(self) -> None:
        self.closing = True
        for listener in self._listeners:
            listener.close()
        if self._unix_listener is not None:
            self._unix_listener.unlink()
        for protocol in list(self._protocols):
            protocol.shut_down()
        try:
            async with asyncio.timeout(self._shutdown_timeout):
                await asyncio.gather(*map(_say_goodbye, self._views.values()))
                await self._wait_for_all()
        except TimeoutError:
            for task in self._answers:
                task.cancel()
            for ended, view in list(self._views.items()):
                if isinstance(ended, asyncio.Task):
                    ended.cancel()
                else:
                    view.terminate()
            for protocol in list(self._protocols):
                protocol.abort()
            await self._wait_for_all()
        # Since Python 3.12 this waits for connections too, so for what a view left unsent.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_timeout):
                for listener in self._listeners:
                    await listener.wait_closed()

    async def _wait_for_all(self) -> None:
        while running := {*self._answers, *self._views}:
            await asyncio.wait(running)
        while self._protocols:
            self._no_protocols.clear()
            await self._no_protocols.wait()

    # What connections call.

    def connection_opened(self, protocol: HttpProtocol) -> bool:
        """Account for a connection.

        Returns:
            Whether there is room for it.
        """
        room = self._census.enter(protocol.address)
        self._protocols.add(protocol)
        self._turned_away += not room
        if self.closing or self._turned_away > TURNED_AWAY:
            protocol.abort()
        return room

    def connection_closed(self, protocol: HttpProtocol) -> None:
        """Forget a connection that is gone."""
        if protocol.has_room:
            self._census.leave(protocol.address)
        else:
            self._turned_away -= 1
        self._forget(protocol)

    def _forget(self, protocol: HttpProtocol) -> None:
        self._protocols.discard(protocol)
        if not self._protocols:
            self._no_protocols.set()

    def start_answer(self, answer: Coroutine[Any, Any, None]) -> None:
        """Run what answers a request."""
        task = asyncio.get_running_loop().create_task(answer)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def hand_over(self, protocol: HttpProtocol, view: WebSocketView) -> None:
        """Run a WebSocket view, which has its connection to itself from now on."""
        self._forget(protocol)
        address = protocol.address
        try:
            ended = view.start()
        except Exception as error:
            self._census.leave(address)
            _view_failed(view, error)
            return
        if ended is not None:
            self._views[ended] = view
            # The address is kept only where it is needed again.
            ended.add_done_callback(
                partial(self._view_ended, address=address) if self._census.per_address else self._view_ended
            )
        else:
            # The client was refused, and has a while to read why.
            asyncio.get_running_loop().call_later(self.limits.linger_timeout, self._census.leave, address)

    def _view_ended(self, ended: asyncio.Future[None], address: ClientAddress = None) -> None:
        view = self._views.pop(ended)
        self._census.leave(address)
        if ended.cancelled():
            _view_failed(view, None)
        elif (error := ended.exception()) is not None:
            _view_failed(view, error)
        # Else the view has closed its transport, or will once the client has its answer.


def _view_failed(view: WebSocketView, error: BaseException | None) -> None:
    if error is not None:
        logger.error("the view for %r failed", view.request, exc_info=error)
    transport = view.request.transport
    # One that is lost must not be aborted: asyncio's may have let go of its loop.
    if transport is not None and (not transport.is_closing() or transport.get_write_buffer_size()):
        transport.abort()


async def _say_goodbye(view: WebSocketView) -> None:
    try:
        await view.send_close(CloseCode.GOING_AWAY, "server shutting down")
    except Exception:
        logger.debug("cannot say goodbye to %r", view.request, exc_info=True)


@contextlib.asynccontextmanager
async def serve(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | None = None,
    ssl: tls.SSLContext | None = None,
    shutdown_timeout: float = 10.0,
    limits: Limits | None = None,
    trusted_proxies: Iterable[str] = (),
) -> AsyncIterator[Server]:
    """Serve an application for as long as the block runs.

    Args:
        urlpatterns: The routes, or one `View` class for every path.
        host: A name or an address; None for every interface.
        port: 0 for a free one, which is then the server's `port`.
        uds: The path of a Unix socket to listen on instead.
        ssl: How to encrypt.
        shutdown_timeout: Seconds that views have to end when the block is left.
        limits: What clients may ask for.
        trusted_proxies: IP addresses and networks of the proxies whose `X-Forwarded-For`, `-Proto` and `-Host`, or
            `Forwarded`, are taken for true, and `unix` for whoever comes by a Unix socket.

    Raises:
        OSError: The address cannot be had.
        TypeError, ValueError: The routes are malformed, or a trusted proxy.
    """
    server = Server(
        urlpatterns,
        limits=limits,
        trusted_proxies=trusted_proxies,
        shutdown_timeout=shutdown_timeout,
    )
    try:
        await server.listen(host, port, uds=uds, ssl=ssl)
        yield server
    finally:
        await server.close()
