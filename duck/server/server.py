"""`Server`: the listening sockets of a server, its connections, and its running work."""

import asyncio
import logging
import math
import os
import socket
import ssl as tls
import weakref
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from duck.contrib.websockets import CloseCode, State, WebSocketView
from duck.contrib.websockets.logging import format_address, text_of, traceback_of
from duck.contrib.websockets.metrics import Metrics, Stats
from duck.contrib.websockets.protocol.lingering import Lingering
from duck.http.request import ClientAddress, HttpRequest
from duck.http.response import HttpResponse
from duck.urls import path
from duck.views import View

from .application.routes import Routes
from .http import proxy_protocol as proxy_header
from .http.allowed_hosts import AllowedHosts, checked_origins
from .http.connection_limit import ConnectionLimiter, Permit
from .http.pages import plain
from .http.protocol import HttpProtocol
from .http.proxies import Proxies
from .listening.accept import BACKLOG, Acceptor, LoopAcceptor
from .listening.sockets import UnixListener, bind, closed_on_failure, url
from .options import Options
from .shutdown import Work, abort, drain, shut_down

__all__ = ["Server"]

logger = logging.getLogger("duck.server")

TURNED_AWAY = 32
"""The number of concurrent refusals for lack of room; further clients are disconnected without a response."""


_SHORTEST = 0.001  # seconds for a TLS handshake: event loops refuse 0


@dataclass(frozen=True, slots=True)
class Application:
    """The `application` of requests; a framework's own has more members."""

    server: "Server"


class Server:
    """A server for one application; created by `serve` or `run`.

    Attributes:
        limits: The limits on clients.
        routes: The routes of the application.
        proxies: The trusted proxies; None without any.
        allowed_hosts: The names by which clients may address the server; None for any.
        allowed_origins: The `ALLOWED_ORIGINS` of views without their own.
        application: The `application` of requests.
        metrics: The counts of its WebSocket connections.
        state: The value of the application's lifespan; None without one.
        health_path: The path that answers health checks; None for no such path.
        draining: Whether the server has begun to shut down.
        retry_after: The Retry-After, in seconds, of clients refused by 503; None while none are refused.
        closing: Whether the server has stopped accepting connections and is ending the open ones.
        addresses: The listening addresses, as URLs.
        ssl: The TLS context of new connections.
        hung: The views and pages that `close` has abandoned, because they did not end when cancelled.
        port: The port of the first socket; None before it listens, and for a Unix socket.
    """

    def __init__(self, urlpatterns: Iterable[Mapping[str, Any]] | type[View], options: Options) -> None:
        """Prepares an application.

        Args:
            urlpatterns: The routes, or one view for every path.
            options: The options of the server.

        Raises:
            TypeError, ValueError: A route, a trusted proxy, a host or an origin is malformed.
        """
        self._options = options
        self.limits = options.limits
        self.health_path = options.health_path
        own = [] if options.health_path is None else [path(options.health_path, self._health)]
        self.routes = Routes(urlpatterns, own)
        self.proxies = Proxies(options.trusted_proxies) if options.trusted_proxies else None
        self.allowed_hosts = AllowedHosts(options.allowed_hosts) if options.allowed_hosts else None
        origins = options.allowed_origins
        self.allowed_origins = None if origins is None else checked_origins(origins)
        self.application = Application(self)
        self.metrics = Metrics()
        self.state: Any = None
        self.draining = self.closing = False
        self.retry_after: int | None = None
        self.addresses: list[str] = []
        self.port: int | None = None
        self.ssl: tls.SSLContext | None = None
        self.hung: list[str] = []
        self._acceptors: list[Acceptor | LoopAcceptor] = []
        self._unix_listener: UnixListener | None = None
        self._limiter = ConnectionLimiter(self.limits, self.metrics)
        self._handshakes: set[asyncio.Task[None]] = set()
        self._turned_away = 0  # refusals for lack of room under way
        self._work = Work()
        self._closed: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets."""
        return tuple(acceptor.socket for acceptor in self._acceptors)

    @property
    def connections(self) -> list[WebSocketView]:
        """The WebSocket views in the state OPEN, so none in its handshake, and none whose connection is lost."""
        views = list(self._work.views.values())  # a copy first, because another thread may ask
        return [view for view in views if view._connection_state is State.OPEN]

    def stats(self) -> Stats:
        """Returns the numbers of the WebSocket connections since the creation of the server."""
        return self.metrics.stats()

    async def listen(self, sockets: Sequence[socket.socket] = (), ssl: tls.SSLContext | None = None) -> None:
        """Starts to serve, on the running loop.

        Args:
            sockets: Bound sockets to listen on; none for the address in the options.
            ssl: The TLS context.

        Raises:
            OSError: The address is not available.
        """
        self.ssl = ssl
        if not sockets and self._options.uds is not None:
            self._unix_listener = UnixListener(self._options.uds, self._options.uds_mode)
            sockets = [self._unix_listener.socket]
        elif not sockets:
            sockets = await bind(self._options.host, self._options.port)
        with closed_on_failure(sockets):
            for sock in sockets:
                await self._listen_on(sock)
        self.addresses = [url(sock, secure=ssl is not None) for sock in sockets]
        name = sockets[0].getsockname()
        self.port = name[1] if isinstance(name, tuple) else None

    async def _listen_on(self, sock: socket.socket) -> None:
        sock.listen(BACKLOG)
        loop = asyncio.get_running_loop()
        if self.ssl is None and not self._options.proxy_protocol and LoopAcceptor.suits(loop):
            by_loop = LoopAcceptor(sock)
            self._acceptors.append(by_loop)
            await by_loop.start(loop, partial(HttpProtocol, self, loop))
        else:
            self._acceptors.append(Acceptor(loop, sock, self._accepted))

    async def close(self, *, replaced: bool = False) -> None:
        """Shuts down: drains, waits for running answers and handlers, closes every connection, and cancels the rest.

        While the server drains it accepts connections, so that health checks and handshakes are answered by 503,
        handshakes with Retry-After. Work that does not end when cancelled is abandoned, and named in the log.

        Args:
            replaced: Whether another server accepts the connections of the same sockets. This one then accepts no more,
                serves those that it has accepted, and closes WebSockets with 1012.
        """
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_task(self._shut_down(replaced))
        await asyncio.shield(self._closed)

    async def serve_forever(self) -> None:
        """Waits until the server has been closed; without a `close` in another task, until it is cancelled."""
        await self._ended.wait()

    async def _shut_down(self, replaced: bool) -> None:
        options = self._options
        self.draining = True
        if self._work.views:  # in a callback, because a filter of the log may raise
            words = "shutting down; open WebSockets: %d"
            asyncio.get_running_loop().call_soon(logger.info, words, len(self._work.views))
        code = CloseCode.SERVICE_RESTART if replaced else options.shutdown_code
        if replaced:
            self._stop_accepting()
            for _ in range(3):
                await asyncio.sleep(0)  # the loop may have accepted connections before it calls `connection_made`
            await self._work.until_requested()
        elif options.drain:
            self.retry_after = math.ceil(options.drain)
        if options.drain:
            await drain(self._work, options.drain, code)
        self.closing = True
        self._stop_accepting()
        await asyncio.sleep(0)  # a handshake begins, because one cancelled before would leave its socket open
        handshakes = list(self._handshakes)
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        self.hung = await shut_down(self._work, options.shutdown_timeout, code)
        self._ended.set()

    def _stop_accepting(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        if self._unix_listener is not None:
            self._unix_listener.unlink()

    def _health(self, request: HttpRequest) -> HttpResponse:
        status, words = (503, "draining") if self.draining else (200, "ok")
        return HttpResponse(f"{words}\n", status, "text/plain; charset=utf-8")

    # Accepted connections.

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        if self._limiter.is_full:
            # Connections may have ended since the loop polled the sockets; it reports them two passes later.
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
        if self.ssl is not None or self._options.proxy_protocol:
            self._handshakes.add(connecting)
            connecting.add_done_callback(self._handshakes.discard)

    async def _connect(self, protocol: HttpProtocol, sock: socket.socket) -> None:
        """Creates the transport of a connection, which takes time with TLS and with a header of the PROXY protocol."""
        options: dict[str, Any] = {}
        if self.ssl is not None:
            options = {"ssl": self.ssl, "ssl_handshake_timeout": max(protocol.first_timeout, _SHORTEST)}
        try:
            if self._options.proxy_protocol:
                await self._receive_proxy_header(protocol, sock)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock, **options)
        except OSError as error:
            protocol.connection_lost(error)  # before the log, as everywhere here, because a filter of the log may raise
            # Faults of TLS, such as a missing certificate, need a log line; clients that leave do not.
            level = logging.INFO if isinstance(error, tls.SSLError) else logging.DEBUG
            if logger.isEnabledFor(level):
                words = "%s: the connection has failed at its start: %s"
                logger.log(level, words, format_address(protocol.address), text_of(error))
        except BaseException:
            protocol.connection_lost(None)
            raise

    async def _receive_proxy_header(self, protocol: HttpProtocol, sock: socket.socket) -> None:
        """Reads the client's address from a trusted proxy.

        Raises:
            OSError: The header is missing; the socket is closed.
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
            if protocol.permit is not None:
                self._seat(protocol, protocol.permit)

    # Calls of connections.

    def admit(self, protocol: HttpProtocol, peer: Any) -> bool:
        """Registers a connection, and acquires a permit for it if there is room.

        Args:
            peer: The address of its peer, as a socket reports it.

        Returns:
            Whether the connection may continue, at least until its refusal for lack of room.
        """
        protocol.admitted = True
        protocol.address = (peer[:2] if isinstance(peer, tuple) else os.fsdecode(peer or "")) or None
        self._seat(protocol, self._limiter.acquire())
        self._work.protocols.add(protocol)
        return not self.closing and self._turned_away <= TURNED_AWAY

    def _seat(self, protocol: HttpProtocol, permit: Permit | None) -> None:
        """Gives a connection its permit, if its address has room."""
        if permit is not None and not self.assign(permit, protocol.address):
            permit.release()
            permit = None
        protocol.permit = permit
        if permit is None:
            self._turned_away += 1

    def assign(self, permit: Permit, address: ClientAddress) -> bool:
        """Counts a connection for an address; one of a trusted proxy counts for none.

        Returns:
            Whether the address has room.
        """
        if self.proxies is not None and self.proxies.trusts(address):
            permit.unassign()
            return True
        return permit.assign(address)

    def connection_closed(self, protocol: HttpProtocol) -> None:
        """Removes a connection that is lost."""
        if protocol.permit is not None:
            protocol.permit.release()
        else:
            self._turned_away -= 1
        self._work.forget(protocol)

    def start_answer(self, request: HttpRequest, answer: Coroutine[Any, Any, None]) -> None:
        """Runs the coroutine that answers a request."""
        task = asyncio.get_running_loop().create_task(answer)
        if not task.done():
            self._work.answers[task] = request
            task.add_done_callback(self._work.answers.pop)

    def hand_over(self, protocol: HttpProtocol, view: WebSocketView) -> None:
        """Runs a WebSocket view, which owns its connection from now on."""
        self._work.forget(protocol)
        permit = protocol.permit
        assert permit is not None
        try:
            ended = view.start()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit of a computed setting, which would end the server
            self._clear_up(view, permit, protocol, None, error)
            return
        if ended is None:
            self._linger(view, permit)
            return
        self._work.views[ended] = view
        if isinstance(ended, asyncio.Task):
            # The protocol is used again only if the view has not used the transport.
            ended.add_done_callback(partial(self._run_ended, permit=permit, protocol=weakref.ref(protocol)))
        elif permit is self._limiter.shared:
            ended.add_done_callback(self._view_ended)
        else:
            ended.add_done_callback(partial(self._view_ended, permit=permit))

    def _view_ended(self, ended: asyncio.Future[None], permit: Permit | None = None) -> None:
        """Releases the permit of a view whose connection has ended."""
        view = self._work.views.pop(ended)
        permit = permit or self._limiter.shared
        if ended.cancelled():
            abort(view)
        elif (error := ended.exception()) is not None:
            self._view_failed(view, permit, error)
            return
        elif not view.initiated_upgrade:  # `on_handshake` has refused the client
            self._linger(view, permit)
            return
        permit.release()

    def _view_failed(self, view: WebSocketView, permit: Permit, error: BaseException) -> None:
        transport = view.request.transport
        assert transport is not None
        protocol = transport.get_protocol()
        if isinstance(protocol, HttpProtocol):  # the client has no response yet
            self._clear_up(view, permit, protocol, None, error)
            return
        abort(view)
        permit.release()
        logger.error("the view for %r failed", view.request, exc_info=traceback_of(error))

    def _run_ended(
        self, ended: asyncio.Task[Any], permit: Permit, protocol: "weakref.ReferenceType[HttpProtocol]"
    ) -> None:
        """Cleans up after an overridden `run` or a step of it has ended; the connection may still be open."""
        view = self._work.views.pop(ended)
        result: Any = None
        error: BaseException | None = None
        if not ended.cancelled():
            error = ended.exception()
            result = None if error is not None else ended.result()
        elif ended.cancelling():
            abort(view)
        else:  # it has awaited something that was cancelled
            error = asyncio.CancelledError()
        self._clear_up(view, permit, protocol(), result, error)

    def _clear_up(
        self,
        view: WebSocketView,
        permit: Permit,
        protocol: HttpProtocol | None,
        result: Any,
        error: BaseException | None,
    ) -> None:
        """Answers on behalf of a view that has sent no response, and makes sure that its connection ends.

        Args:
            protocol: The protocol of the connection before the view had it.
            result: The result of `run`.
            error: The exception of `run`.
        """
        if isinstance(result, HttpResponse):
            try:
                result.check()
            except Exception as invalid:
                error = invalid
        if error is not None:
            result = None
        transport = view.request.transport
        assert transport is not None
        if protocol is not None and transport.get_protocol() is protocol:
            is_answered = isinstance(result, HttpResponse) or transport.is_closing()
            response = result if isinstance(result, HttpResponse) else plain(500)
            self._work.protocols.add(protocol)
            protocol.take_back(transport, response, head_only=view.request.method == "HEAD")
            if error is None and not is_answered:
                logger.error("%s answered nothing to %r", type(view).__name__, view.request)
        elif transport.is_closing():
            permit.release()
        elif view.initiated_upgrade:
            closing = asyncio.get_running_loop().create_task(_close(view))
            self._work.views[closing] = view
            closing.add_done_callback(partial(self._view_ended, permit=permit))
            if error is None:
                logger.error("%s left the connection of %r open", type(view).__name__, view.request)
        else:
            self._linger(view, permit)
        if error is not None:
            logger.error("the view for %r failed", view.request, exc_info=traceback_of(error))

    def _linger(self, view: WebSocketView, permit: Permit) -> None:
        """Gives a client time to read its refusal or another answer, and then releases the permit."""
        transport = view.request.transport
        assert transport is not None
        if transport.is_closing():
            permit.release()
            return
        protocol: Any = transport.get_protocol()
        if not isinstance(protocol, Lingering):  # it is that of an overridden `run`, which has returned
            protocol = Lingering(transport, self.limits.linger_timeout, lost=protocol.connection_lost)
        self._work.linger(protocol, permit.release)


async def _close(view: WebSocketView) -> None:
    """Closes an open connection that its view does not serve."""
    await view.send_close(CloseCode.INTERNAL_ERROR, "internal error")
    view.terminate()
    await view.safe_close()
