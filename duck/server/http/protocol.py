"""`HttpProtocol`: answers HTTP requests in order, and passes connections of WebSockets to their views.

A connection is in one of five phases:

    COMING     the transport does not exist yet, for example during the TLS handshake
    READING    a request, or the rest of one, is awaited
    ANSWERING  a view creates a response; reading is paused, so there is one request at a time
    ENDING     the last response has been written; further bytes are discarded
    GONE       the connection is lost, or belongs to a WebSocket view

Reading is resumed in the context of the connection, never in that of a page. Loops call a protocol in the context in
which its transport began to read, and the next request on the connection may be from another user.

READING and ENDING have a deadline. The timer is set only for a deadline earlier than its own, and is set again when it
fires early. So a read costs no more than a call of the clock.
"""

import asyncio
import enum
import logging
from collections.abc import Collection, Coroutine
from contextvars import Context, copy_context
from ssl import SSLContext
from typing import Any, Protocol

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.logging import cut, log_access
from duck.contrib.websockets.metrics import Metrics
from duck.contrib.websockets.protocol.lingering import Lingering
from duck.contrib.websockets.protocol.loop import receive_buffer, shared
from duck.contrib.websockets.protocol.transports import NO_BACKLOG, backlog, close_transport
from duck.http.request import ClientAddress, HttpRequest
from duck.http.response import HttpResponse

from ..application.routes import Match, Routes
from ..limits import Limits
from .allowed_hosts import AllowedHosts
from .connection_limit import Permit
from .head import Refusal, RequestHead, RequestReader
from .pages import fault_of_post, log_refusal, plain, respond
from .proxies import Proxies

__all__ = ["HttpProtocol", "Owner"]

logger = logging.getLogger("duck.server")

_NEVER = float("inf")
_SPARE_TIME = 0.05  # seconds beyond the first deadline for a request that waits to be read
_NO_ROOM = "too many connections: see Limits.connections and connections_per_address"


class Phase(enum.Enum):
    """The phases of a connection; see the module."""

    COMING = enum.auto()
    READING = enum.auto()
    ANSWERING = enum.auto()
    ENDING = enum.auto()
    GONE = enum.auto()


class Owner(Protocol):
    """The server of the connection; see `Server`."""

    @property
    def limits(self) -> Limits: ...
    @property
    def routes(self) -> Routes: ...
    @property
    def proxies(self) -> Proxies | None: ...
    @property
    def allowed_hosts(self) -> AllowedHosts | None: ...
    @property
    def allowed_origins(self) -> Collection[str] | None: ...
    @property
    def health_path(self) -> str | None: ...
    @property
    def retry_after(self) -> int | None: ...
    @property
    def application(self) -> Any: ...
    @property
    def ssl(self) -> SSLContext | None: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def closing(self) -> bool: ...

    def admit(self, protocol: "HttpProtocol", peer: Any) -> bool: ...
    def assign(self, permit: Permit, address: ClientAddress) -> bool: ...
    def connection_closed(self, protocol: "HttpProtocol") -> None: ...
    def start_answer(self, request: HttpRequest, answer: Coroutine[Any, Any, None]) -> None: ...
    def hand_over(self, protocol: "HttpProtocol", view: WebSocketView) -> None: ...


class HttpProtocol(asyncio.BufferedProtocol):
    """Speaks HTTP/1.1 on one connection.

    Attributes:
        admitted: Whether the server has registered the connection, as it does before a TLS handshake.
        address: The address of the client.
        secure: Whether the client's connection to a proxy in front of this server is encrypted, as the proxy reports.
        permit: The permit of the connection; None if the server has no room, so that the request is answered 503.
    """

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_answered",
        "_buffer",
        "_clock",
        "_context",
        "_deadline",
        "_loop",
        "_lost",
        "_phase",
        "_reader",
        "_server",
        "_spared",
        "_tick",
        "_transport",
        "_unsent",
        "_writing_paused",
        "address",
        "admitted",
        "permit",
        "secure",
    )

    data_received = None  # uvloop looks it up, and catches an exception if there is none

    _context: Context
    _transport: asyncio.Transport

    address: ClientAddress
    permit: Permit | None

    def __init__(self, server: Owner, loop: asyncio.AbstractEventLoop) -> None:
        """Creates the protocol of a connection that is still to be made.

        Args:
            server: Provides routes and limits, and records running work.
            loop: The loop of the connection.
        """
        self._server = server
        self._loop = loop
        ours = shared(loop)
        self._buffer = ours.buffer or receive_buffer(loop)
        self._clock = ours.clock
        self._reader = RequestReader(server.limits)
        self._phase = Phase.COMING
        self._deadline = self._alarm = _NEVER
        self._tick = 0
        self.admitted = self.secure = self._lost = self._spared = self._writing_paused = False
        self._answered = False
        self._unsent = NO_BACKLOG

    # Calls of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's are not instances of it
        self._context = copy_context()
        self._phase = Phase.READING
        if self.admitted:
            welcome = not self._server.closing
        else:  # the loop has accepted it
            welcome = self._server.admit(self, transport.get_extra_info("peername"))
        self._await_head()
        if not welcome:
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = self._buffer.unused()
        return self._buffer.window

    def buffer_updated(self, nbytes: int) -> None:
        if self._phase is not Phase.READING:
            return
        was_idle = not self._reader.in_request
        self._reader.feed(self._buffer.window[:nbytes])
        self._advance(was_idle)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._advance_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._phase is not Phase.GONE:
            self._leave()

    # Calls of the server.

    @property
    def is_fresh(self) -> bool:
        """Whether the client is connected, and its first request has not been received or answered."""
        return not self._answered and self._phase in (Phase.COMING, Phase.READING, Phase.ANSWERING)

    @property
    def first_timeout(self) -> float:
        """Seconds for a TLS handshake, and for a request."""
        limits = self._server.limits
        return limits.head_timeout if self.permit is not None else limits.linger_timeout

    def shut_down(self) -> None:
        """Closes the connection now, or after the pending response."""
        if self._phase is Phase.READING:
            self._end()

    def abort(self) -> None:
        """Closes the connection in any phase."""
        if self._phase not in (Phase.COMING, Phase.GONE):
            self._transport.abort()

    def take_back(self, transport: asyncio.Transport, response: HttpResponse, head_only: bool) -> None:
        """Answers on behalf of a WebSocket view that has not used the transport, and ends the connection."""
        if self._lost:
            self._server.connection_closed(self)
            return
        self._transport = transport
        if not transport.is_closing():
            transport.write(response.to_bytes(head_only=head_only, close=True))
        self._end(linger=not transport.is_closing())

    # From one request to the next.

    def _advance_soon(self) -> None:
        """Schedules the next request, in the connection's context.

        A callback of the loop is needed, because a task that starts eagerly would nest each answer in the previous one
        until the stack is full.
        """
        self._loop.call_soon(self._advance, context=self._context)

    def _advance(self, was_idle: bool = True) -> None:
        """Starts to answer the next request if it is complete.

        Args:
            was_idle: Whether no part of that request had been parsed before.
        """
        if self._phase is not Phase.READING:
            return
        if self._writing_paused:
            # A client that does not read its responses must not send more requests.
            self._transport.pause_reading()
            return
        request = self._reader.next_request()
        if request is None:
            if was_idle and self._reader.in_request:
                self._await_head()
            self._transport.resume_reading()
        elif isinstance(request, Refusal):
            self._refuse(request.status, request.reason, request.head_only)
        elif self.permit is None:
            self._refuse(503, _NO_ROOM, request.method == "HEAD")
        else:
            self._dispatch(request)

    def _await_head(self) -> None:
        self._set_deadline(self.first_timeout)

    def _dispatch(self, head: RequestHead) -> None:
        assert self.permit is not None
        head_only = head.method == "HEAD"
        try:
            request = self._request(head)
        except ValueError as error:
            self._refuse(400, f"{cut(head.target)!r} is not a request target: {cut(str(error))}", head_only)
            return
        # Load balancers address their servers by any name.
        hosts = None if request.path == self._server.health_path else self._server.allowed_hosts
        if hosts is not None and (host := request.headers.get("host", "")) not in hosts:
            self._refuse(421, f"{cut(host)!r} is not a host of ours: see allowed_hosts", head_only)
            return
        if self._server.proxies is not None and not self._server.assign(self.permit, request.client_address):
            self._refuse(503, _NO_ROOM, head_only)
            return
        match = self._server.routes.match(request.path)
        if match is not None and match.route.is_websocket:
            if (seconds := self._server.retry_after) is not None:
                self._server.metrics.counters.note(("refused", "draining"))
                self._refuse(503, "the server drains", head_only, headers=[("Retry-After", str(seconds))])
                return
            copy_context().run(self._hand_over, request, match)
        elif fault := fault_of_post(request, head, match, self._server.allowed_origins):
            self._refuse(fault.status, fault.reason, head_only)
        else:
            self._set_deadline(_NEVER)
            self._transport.pause_reading()
            self._phase = Phase.ANSWERING
            self._server.start_answer(request, self._answer(request, match, head.keep_alive))

    def _request(self, head: RequestHead) -> HttpRequest:
        client = self.address
        secure = self.secure or self._server.ssl is not None
        headers = head.headers
        if self._server.proxies is not None:
            client, secure, headers = self._server.proxies.client(client, headers, secure)
        request = HttpRequest(head.method, head.target, headers)  # keyword arguments would cost twice as much
        request.http_version = head.http_version
        request.client_address = client
        request.secure = secure
        request.transport = self._transport
        request.content = head.body or b""
        request.application = self._server.application
        request.metrics = self._server.metrics
        return request

    def _hand_over(self, request: HttpRequest, match: Match) -> None:
        """Gives the connection to a WebSocket view, and never touches the transport again."""
        request.content = self._reader.take_rest()
        try:
            view_class: Any = match.route.handler
            view = view_class._create(request, match.kwargs)
            if self._server.allowed_origins is not None and view.ALLOWED_ORIGINS is None:
                view._set_for_host("ALLOWED_ORIGINS", self._server.allowed_origins)
        except KeyboardInterrupt:
            raise
        except BaseException:  # such as SystemExit, which would end the server
            self._refuse(500, "the view cannot be made", request.method == "HEAD")
            logger.exception("cannot make the view for %r", request)
            return
        self._release()
        self._server.hand_over(self, view)

    async def _answer(self, request: HttpRequest, match: Match | None, keep_alive: bool) -> None:
        try:
            self._send_response(request, await respond(request, match, self._loop), keep_alive)
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:  # such as MemoryError, or the error of a log's filter
            self.abort()
            logger.exception("the response to %r cannot be sent", request)

    def _send_response(self, request: HttpRequest, response: HttpResponse, keep_alive: bool) -> None:
        if self._phase is Phase.GONE or self._transport.is_closing():
            return
        close = not keep_alive or self._server.closing
        self._answered = True
        self._unsent = NO_BACKLOG
        self._transport.write(response.to_bytes(head_only=request.method == "HEAD", close=close))
        log_access(request, response.status, 0 if request.method == "HEAD" else len(response.content))
        if close:
            self._end(linger=self._reader.stopped)
        else:
            self._phase = Phase.READING
            self._set_deadline(self._server.limits.keep_alive_timeout)
            self._advance_soon()

    # The end.

    def _refuse(self, status: int, reason: str, head_only: bool, **kwargs: Any) -> None:
        """Answers bytes that are not a valid request, and ends the connection."""
        self._transport.write(plain(status, **kwargs).to_bytes(head_only=head_only, close=True))
        self._end(linger=True)
        log_refusal(self.address, status, reason)  # last, because a filter of the log may raise
        log_access(None, status, address=self.address)

    def _end(self, linger: bool = False) -> None:
        """Closes the connection once all is sent.

        Args:
            linger: Whether to continue reading for a while. If a socket with unread bytes is closed, the connection is
                reset, and the client might never get the response.
        """
        self._phase = Phase.ENDING
        self._reader.stop()
        limits, transport = self._server.limits, self._transport
        if linger:
            self._set_deadline(_NEVER)
            patience = limits.keep_alive_timeout
            Lingering(transport, limits.linger_timeout, patience=patience, lost=self.connection_lost)
        else:
            # With all data sent, a TLS connection waits only for the client's TLS shutdown.
            only_tls = not transport.get_write_buffer_size() and self._server.ssl is not None
            self._set_deadline(limits.linger_timeout if only_tls else limits.keep_alive_timeout)
            close_transport(transport)

    def _leave(self) -> None:
        """Releases a lost connection."""
        self._reader.stop()
        self._release()
        self._server.connection_closed(self)

    def _release(self) -> None:
        """Releases the transport."""
        self._phase = Phase.GONE
        if self._alarm != _NEVER:
            self._clock.drop(self._tick, self)
            self._alarm = _NEVER  # a view may give the connection back, which then needs another one
        # A TLS transport refers to methods of its protocol, in a cycle.
        if hasattr(self, "_transport"):
            del self._transport

    def _set_deadline(self, seconds: float) -> None:
        """Schedules `_expire`, unless another deadline is set first.

        Args:
            seconds: From now; `_NEVER` for no deadline.
        """
        self._deadline = deadline = self._loop.time() + seconds
        if deadline < self._alarm:
            self._set_alarm()

    def wake(self) -> None:
        """Checks whether the deadline has passed; called by the clock."""
        self._alarm = _NEVER
        if self._loop.time() >= self._deadline:
            self._expire()
        elif self._deadline != _NEVER:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm != _NEVER:
            self._clock.drop(self._tick, self)
        self._alarm = self._deadline
        self._tick = self._clock.set(self._loop, self._alarm, self)

    def _expire(self) -> None:
        before, self._unsent = self._unsent, backlog(self._transport)
        if self._unsent.has_moved(before) or (self._unsent.size and not before.size):
            # The client reads, but slowly. The transport below TLS reports no bytes between two of its writes.
            self._set_deadline(self._server.limits.keep_alive_timeout)
        elif self._unsent.size:
            self._transport.abort()
        elif self._phase is Phase.READING and self._reader.in_request:
            timeout = self._server.limits.head_timeout
            reason = f"the request has not arrived within {timeout:g} s: see Limits.head_timeout"
            self._refuse(408, reason, self._reader.is_head)
        elif self._transport.is_closing():
            self._transport.abort()
        elif self._phase is Phase.READING and not self._spared:
            # A request may have arrived while the loop was busy, because uvloop runs timers before it reads.
            self._spared = True
            self._set_deadline(_SPARE_TIME)
        else:
            self._end()
