"""A running server: its listening sockets, and account of everything that goes on behind them."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl as tls
import weakref
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from duck.contrib.websockets import CloseCode, WebSocketView
from duck.contrib.websockets.logging import format_address
from duck.http.request import ClientAddress, HttpRequest
from duck.http.response import HttpResponse
from duck.views import View

from . import proxy_protocol as proxy_header
from .accept import BACKLOG, Acceptor, LoopAcceptor
from .census import Census, Place
from .hosts import AllowedHosts, checked_origins
from .http import HttpProtocol
from .limits import Limits
from .listen import UnixListener, bind, url
from .proxies import Proxies
from .routes import Routes

__all__ = ["Server", "serve"]

logger = logging.getLogger("duck.server")

_SHUTDOWN_CODES = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)
_FAREWELL = 1.0  # seconds of the shutdown that are for the closing handshakes
_LAST = 2.0  # seconds in which what has been cancelled must end
_NAMED = 10  # of those that hang

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
        allowed_hosts: The names by which clients may ask for the server; None for any.
        allowed_origins: The `ALLOWED_ORIGINS` of the views that have none.
        application: What requests name as their application.
        closing: Whether the server is shutting down.
        addresses: Where it listens, as URLs.
        ssl: How new connections are encrypted.
        hung: What `close` had to give up: views and pages that did not end when they were cancelled.
        port: The port of the first socket; None before it listens, and on a Unix socket.
    """

    def __init__(
        self,
        urlpatterns: Iterable[Mapping[str, Any]] | type[View],
        *,
        limits: Limits | None = None,
        trusted_proxies: Iterable[str] = (),
        proxy_protocol: bool = False,
        allowed_hosts: Collection[str] = (),
        allowed_origins: Collection[str] | None = None,
        shutdown_timeout: float = 10.0,
        shutdown_code: int = CloseCode.GOING_AWAY,
    ) -> None:
        """Prepare an application.

        Args:
            urlpatterns: The routes, or one view for every path.
            limits: What clients may ask for.
            trusted_proxies: Those whose word is taken for who the client is; see `Proxies`.
            proxy_protocol: Whether their connections begin with a header of the PROXY protocol.
            allowed_hosts: The names by which clients may ask for the server, see `AllowedHosts`; none for any.
            allowed_origins: The `ALLOWED_ORIGINS` of the views that have none.
            shutdown_timeout: Seconds that `close` waits for views to end.
            shutdown_code: The close code that it sends.

        Raises:
            TypeError, ValueError: The routes are malformed, or the code is another, or there is no proxy to be trusted
                with the PROXY protocol.
        """
        self.limits = limits or Limits()
        self.routes = Routes(urlpatterns)
        self.proxies = Proxies(trusted_proxies) if trusted_proxies else None
        if proxy_protocol and self.proxies is None:
            raise ValueError("proxy_protocol needs trusted_proxies: anybody else could claim to be anybody")
        self._proxy_protocol = proxy_protocol
        self.allowed_hosts = AllowedHosts(allowed_hosts) if allowed_hosts else None
        self.allowed_origins = None if allowed_origins is None else checked_origins(allowed_origins)
        self.application = Application(self)
        self.closing = False
        self.addresses: list[str] = []
        self.port: int | None = None
        if shutdown_code not in _SHUTDOWN_CODES:
            raise ValueError(f"shutdown_code must be 1001 or, for a restart, 1012, not {shutdown_code!r}")
        self._shutdown_timeout = shutdown_timeout
        self._shutdown_code = shutdown_code
        self.ssl: tls.SSLContext | None = None
        self.hung: list[str] = []
        self._acceptors: list[Acceptor | LoopAcceptor] = []
        self._unix_listener: UnixListener | None = None
        self._census = Census(self.limits)
        self._protocols: set[HttpProtocol] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._turned_away = 0  # how many of them there is no room for
        self._answers: dict[asyncio.Task[None], HttpRequest] = {}
        self._views: dict[asyncio.Future[None], WebSocketView] = {}
        self._no_protocols = asyncio.Event()
        self._closed: asyncio.Task[None] | None = None

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets."""
        return () if self.closing else tuple(acceptor.socket for acceptor in self._acceptors)

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
        uds_mode: int | None = None,
        sockets: Sequence[socket.socket] = (),
        ssl: tls.SSLContext | None = None,
    ) -> None:
        """Begin to serve, on the running loop; the arguments are those of `serve`.

        Raises:
            OSError: The address cannot be had.
        """
        self.ssl = ssl
        if uds is not None:
            self._unix_listener = UnixListener(uds, uds_mode)
            sockets = [self._unix_listener.socket]
        elif not sockets:
            sockets = await bind(host, port)
        try:
            for sock in sockets:
                await self._listen_on(sock)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        self.addresses = [url(sock, secure=ssl is not None) for sock in sockets]
        name = sockets[0].getsockname()
        self.port = name[1] if isinstance(name, tuple) else None

    async def _listen_on(self, sock: socket.socket) -> None:
        sock.listen(BACKLOG)
        loop = asyncio.get_running_loop()
        if self.ssl is None and not self._proxy_protocol and LoopAcceptor.suits(loop):
            by_loop = LoopAcceptor(sock)
            self._acceptors.append(by_loop)
            await by_loop.start(loop, partial(HttpProtocol, self, loop))
        else:
            self._acceptors.append(Acceptor(loop, sock, self._accepted))

    async def close(self) -> None:
        """Shut down: wait for the answers and handlers at work, close every connection, and in the end cancel them.

        What does not even end then is given up, and named in the log.
        """
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_task(self._shut_down())
        await asyncio.shield(self._closed)

    async def _shut_down(self) -> None:
        self.closing = True
        for acceptor in self._acceptors:
            acceptor.close()
        if self._unix_listener is not None:
            self._unix_listener.unlink()
        for handshake in self._handshakes:
            handshake.cancel()
        for protocol in list(self._protocols):
            protocol.shut_down()
        timeout = self._shutdown_timeout
        patience = timeout - min(timeout / 4, _FAREWELL)
        loop = asyncio.get_running_loop()
        farewells = [loop.create_task(self._say_goodbye(view, patience)) for view in self._views.values()]
        if not await self._wait_for_all(timeout):
            for farewell in farewells:
                farewell.cancel()
            self._cut()
            if not await self._wait_for_all(_LAST):
                self._give_up()

    async def _say_goodbye(self, view: WebSocketView, patience: float) -> None:
        try:
            await view.drain(patience)
            await view.send_close(self._shutdown_code, "server shutting down")
        except Exception:
            logger.debug("cannot say goodbye to %r", view.request, exc_info=True)

    async def _wait_for_all(self, patience: float) -> bool:
        """Wait for all that runs and all connections.

        Returns:
            Whether they have ended in time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while running := {*self._answers, *self._views}:
                    await asyncio.wait(running)
                while self._protocols:
                    self._no_protocols.clear()
                    await self._no_protocols.wait()
            return True
        return False

    def _cut(self) -> None:
        """Cancel all that runs, and drop all connections."""
        for answer in self._answers:
            answer.cancel()
        for ended, view in list(self._views.items()):
            if isinstance(ended, asyncio.Task):
                ended.cancel()
            else:
                view.terminate()
        for protocol in list(self._protocols):
            protocol.abort()

    def _give_up(self) -> None:
        """Tell who hangs, with nothing left to be done about it."""
        self.hung = [
            *(f"{type(view).__name__} at {view.request.path!r}" for view in self._views.values()),
            *(f"the page at {request.path!r}" for request in self._answers.values()),
        ]
        for view in self._views.values():
            _abort(view)
        if not self.hung:
            return
        names = ", ".join(self.hung[:_NAMED]) + (", ..." if len(self.hung) > _NAMED else "")
        logger.error("%d did not end though cancelled, and were given up: %s", len(self.hung), names)

    # From a connection to its protocol.

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        if self._census.is_full:
            # Others may have left since the loop looked at the sockets: that is known two of its turns later.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._begin, sock, peer)
        else:
            self._begin(sock, peer)

    def _begin(self, sock: socket.socket, peer: Any) -> None:
        loop = asyncio.get_running_loop()
        protocol = HttpProtocol(self, loop)
        if not self.admit(protocol, peer):
            sock.close()
            self.connection_closed(protocol)
            return
        connecting = loop.create_task(self._connect(protocol, sock))
        if self.ssl is not None or self._proxy_protocol:
            self._handshakes.add(connecting)
            connecting.add_done_callback(self._handshakes.discard)

    async def _connect(self, protocol: HttpProtocol, sock: socket.socket) -> None:
        """Make the transport of a connection, which takes a while with TLS, and with a header of the PROXY protocol."""
        options: dict[str, Any] = {}
        if self.ssl is not None:
            options = {"ssl": self.ssl, "ssl_handshake_timeout": protocol.first_timeout}
        try:
            if self._proxy_protocol:
                await self._receive_proxy_header(protocol, sock)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock, **options)
        except OSError as error:
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("%s has not come to a connection: %s", format_address(protocol.address), error)
            protocol.connection_lost(error)
        except BaseException:
            protocol.connection_lost(None)
            raise

    async def _receive_proxy_header(self, protocol: HttpProtocol, sock: socket.socket) -> None:
        """Learn from a trusted proxy whose connection it is.

        Raises:
            OSError: That has not been told; the socket is closed.
        """
        if self.proxies is None or not self.proxies.trusts(protocol.address):
            return
        try:
            async with asyncio.timeout(protocol.first_timeout):
                header = await proxy_header.receive(asyncio.get_running_loop(), sock)
        except BaseException as error:
            sock.close()
            if not isinstance(error, ValueError):
                raise
            if logger.isEnabledFor(logging.INFO):
                words = "%s dropped: %s; a trusted proxy must send a header of the PROXY protocol"
                logger.info(words, format_address(protocol.address), error)
            raise ConnectionAbortedError from error
        protocol.secure = header.secure
        if header.address is not None:
            protocol.address = header.address
            if protocol.place is not None and not self.move(protocol.place, header.address):
                protocol.place.leave()
                protocol.place = None
                self._turned_away += 1

    # What connections call.

    def admit(self, protocol: HttpProtocol, peer: Any) -> bool:
        """Account for a connection, and give it a place if there is one.

        Args:
            peer: The address of its peer, as a socket tells it.

        Returns:
            Whether it may go on, if only to be told that there is no room for it.
        """
        protocol.address = address = (peer[:2] if isinstance(peer, tuple) else os.fsdecode(peer or "")) or None
        place = self._census.enter()
        if place is not None and not self.move(place, address):
            place.leave()
            place = None
        protocol.place = place
        self._turned_away += place is None
        self._protocols.add(protocol)
        return not self.closing and self._turned_away <= TURNED_AWAY

    def move(self, place: Place, address: ClientAddress) -> bool:
        """Count a connection as one from an address, but one of a trusted proxy as nobody's.

        Returns:
            Whether there is room for it.
        """
        if self.proxies is not None and self.proxies.trusts(address):
            place.part()
            return True
        return place.move(address)

    def connection_closed(self, protocol: HttpProtocol) -> None:
        """Forget a connection that is gone."""
        if protocol.place is not None:
            protocol.place.leave()
        else:
            self._turned_away -= 1
        self._forget(protocol)

    def _forget(self, protocol: HttpProtocol) -> None:
        self._protocols.discard(protocol)
        if not self._protocols:
            self._no_protocols.set()

    def start_answer(self, request: HttpRequest, answer: Coroutine[Any, Any, None]) -> None:
        """Run what answers a request."""
        task = asyncio.get_running_loop().create_task(answer)
        if not task.done():
            self._answers[task] = request
            task.add_done_callback(self._answers.pop)

    def hand_over(self, protocol: HttpProtocol, view: WebSocketView) -> None:
        """Run a WebSocket view, which has its connection to itself from now on."""
        self._forget(protocol)
        place = protocol.place
        assert place is not None
        try:
            ended = view.start()
        except Exception as error:
            self._clear_up(view, place, protocol, None, error)
            return
        if ended is None:
            # The client was refused, and has a while to read why.
            asyncio.get_running_loop().call_later(self.limits.linger_timeout, place.leave)
            return
        self._views[ended] = view
        if isinstance(ended, asyncio.Task):
            # The protocol is of no more use, unless the view leaves the transport to it.
            ended.add_done_callback(partial(self._run_ended, place=place, protocol=weakref.ref(protocol)))
        elif place is self._census.anywhere:
            ended.add_done_callback(self._view_ended)
        else:
            ended.add_done_callback(partial(self._view_ended, place=place))

    def _view_ended(self, ended: asyncio.Future[None], place: Place | None = None) -> None:
        """The connection of a view is gone."""
        view = self._views.pop(ended)
        (place or self._census.anywhere).leave()
        if ended.cancelled():
            _abort(view)
        elif (error := ended.exception()) is not None:
            logger.error("the view for %r failed", view.request, exc_info=error)
            _abort(view)

    def _run_ended(
        self, ended: asyncio.Task[Any], place: Place, protocol: "weakref.ReferenceType[HttpProtocol]"
    ) -> None:
        """A view has a `run` of its own, or steps of it, and that has ended; the connection need not have."""
        view = self._views.pop(ended)
        if ended.cancelled():
            _abort(view)
            self._clear_up(view, place, protocol(), None, None)
        elif (error := ended.exception()) is not None:
            self._clear_up(view, place, protocol(), None, error)
        else:
            self._clear_up(view, place, protocol(), ended.result(), None)

    def _clear_up(
        self,
        view: WebSocketView,
        place: Place,
        protocol: HttpProtocol | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        """Answer for a view that has not, and see that its connection ends.

        Args:
            protocol: That of the connection before the view had it.
            result: What `run` gave,
            error: or raised.
        """
        if error is not None:
            logger.error("the view for %r failed", view.request, exc_info=error)
        transport = view.request.transport
        assert transport is not None
        if protocol is not None and transport.get_protocol() is protocol:
            if not isinstance(result, HttpResponse):
                if error is None and not transport.is_closing():
                    logger.error("%s answered nothing to %r", type(view).__name__, view.request)
                result = HttpResponse("500\n", 500, "text/plain; charset=utf-8")
            self._protocols.add(protocol)
            protocol.take_back(transport, result, head_only=view.request.method == "HEAD")
        elif transport.is_closing():
            place.leave()
        elif view.initiated_upgrade:
            if error is None:
                logger.error("%s left the connection of %r open", type(view).__name__, view.request)
            closing = asyncio.get_running_loop().create_task(_close(view))
            self._views[closing] = view
            closing.add_done_callback(partial(self._view_ended, place=place))
        else:
            # The client was refused, or has been told something else; it has a while to read it.
            asyncio.get_running_loop().call_later(self.limits.linger_timeout, self._drop, view, place)

    def _drop(self, view: WebSocketView, place: Place) -> None:
        _abort(view)
        place.leave()


async def _close(view: WebSocketView) -> None:
    """End a connection that is open, and that its view does not serve."""
    await view.send_close(CloseCode.INTERNAL_ERROR, "internal error")
    view.terminate()
    await view.safe_close()


def _abort(view: WebSocketView) -> None:
    transport = view.request.transport
    # One that is lost must not be aborted: asyncio's may have let go of its loop.
    if transport is not None and (not transport.is_closing() or transport.get_write_buffer_size()):
        transport.abort()


@contextlib.asynccontextmanager
async def serve(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | None = None,
    uds_mode: int | None = None,
    sockets: Sequence[socket.socket] = (),
    ssl: tls.SSLContext | None = None,
    shutdown_timeout: float = 10.0,
    shutdown_code: int = CloseCode.GOING_AWAY,
    limits: Limits | None = None,
    trusted_proxies: Iterable[str] = (),
    proxy_protocol: bool = False,
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] | None = None,
) -> AsyncIterator[Server]:
    """Serve an application for as long as the block runs.

    Args:
        urlpatterns: The routes, or one `View` class for every path.
        host: A name or an address; None for every interface, by IPv4 and IPv6.
        port: 0 for a free one, which is then the server's `port`.
        uds: The path of a Unix socket to listen on instead.
        uds_mode: Its permissions; None for those of a socket that it replaces, or else 0o666, for anybody.
        sockets: Bound sockets to listen on instead, which are closed in the end.
        ssl: How to encrypt.
        shutdown_timeout: Seconds that views and their handlers have to end when the block is left.
        shutdown_code: The close code that clients get then: 1001, or 1012 for a restart.
        limits: What clients may ask for.
        trusted_proxies: IP addresses and networks of the proxies whose `X-Forwarded-For`, `-Proto` and `-Host`, or
            `Forwarded`, are taken for true, and `unix` for whoever comes by a Unix socket.
        proxy_protocol: Whether their connections begin with a header of the PROXY protocol, version 1 or 2; those of
            others have none. Needs a loop that can watch sockets, which Windows' proactor cannot.
        allowed_hosts: The names and addresses by which clients may ask for the server, such as `localhost` and
            `*.example.org`; requests with another Host are answered 421. Any, if there are none.
        allowed_origins: The `ALLOWED_ORIGINS` of the views that have none.

    Raises:
        OSError: The address cannot be had.
        TypeError, ValueError: The routes are malformed, or a trusted proxy, a host or an origin.
    """
    server = Server(
        urlpatterns,
        limits=limits,
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
        shutdown_timeout=shutdown_timeout,
        shutdown_code=shutdown_code,
    )
    try:
        await server.listen(host, port, uds=uds, uds_mode=uds_mode, sockets=sockets, ssl=ssl)
        yield server
    finally:
        await server.close()
