"""A WebSocket protocol for uvicorn, which serves any ASGI application with this package's codec:

    uvicorn app:app --ws duck.contrib.websockets.uvicorn:WebSocketProtocol

uvicorn creates one instance for each upgrade request and feeds it the head of the request. The application then runs in
its own task. Its `send` events are a response (101 or another) and, after 101, messages. From the 101 response on, the
transport belongs to a `SessionProtocol`. If the application is a view (`as_asgi`), the view uses the transport itself;
the events of its response still pass through the application's middleware.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Self

import httptools
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.utils import (
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)

from duck.http.request import HttpRequest

from .codec import Counters
from .compression import DEFAULT_NEGOTIATORS
from .exceptions import ConnectionClosed, HandshakeError
from .hosts import upgrade
from .hosts.asgi import EXTENSION, HANDSHAKE, Scope, Send, acceptance_event, denial, reply, request_of, run
from .hosts.asgi_session import Accepted, Headers, Session, SessionProtocol, Stage
from .hosts.upgrade_head import UpgradeHead, header_lines
from .logging import label, printable, traceback_of
from .metrics import Metrics
from .opcodes import CloseCode
from .protocol import stepping
from .protocol.lingering import LINGER_TIMEOUT, Lingering
from .protocol.transports import close_transport
from .sansio import handshake
from .view import WebSocketView

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["WebSocketProtocol"]

logger = logging.getLogger("uvicorn.error")


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket connection of uvicorn.

    Args:
        config: uvicorn's settings; its `ws_*` are honoured.
        server_state: uvicorn's record of connections and tasks.
        app_state: The state of the application's lifespan.

    Attributes:
        transport: The connection.
        LINGER_TIMEOUT: Seconds for a client to read a refusal, or any other response than 101.
        SHUTDOWN_TIMEOUT: Seconds without progress after which a stopping server cuts a client.
        metrics: Counts the connections; None for no counting. To count all connections of a process, set it in the
            class: `WebSocketProtocol.metrics = Metrics()`.
    """

    LINGER_TIMEOUT = LINGER_TIMEOUT
    metrics: Metrics | None = None
    SHUTDOWN_TIMEOUT = 1.0

    __slots__ = (
        "_answered",
        "_bodiless",
        "_config",
        "_denial",
        "_fields",
        "_key",
        "_loop",
        "_request",
        "_responder",
        "_scope",
        "_server_state",
        "_session",
        "_state",
        "_view",
        "_writable",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        config: "Config",
        server_state: "ServerState",
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._server_state = server_state
        self._state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._session = Session(self._loop, self, config.ws_max_queue, config.ws_max_size)
        self._view: WebSocketView | None = None  # the view that takes the connection
        self._responder: _Responder | None = None  # for that view
        # Until the connection is accepted or denied:
        self._request: HttpRequest | None = None
        self._key = ""  # of the request
        self._fields: list[tuple[bytes, bytes]] = []  # of the handshake; middleware may replace those of the scope
        self._scope: dict[str, Any] = {}
        self._denial: bytes | None = None  # the head of another response, until it is sent
        self._bodiless = False  # whether that response has no body, even if the application sends one
        self._answered = False  # whether that response has been sent, so that the peer has to close
        self._writable: asyncio.Future[None] | None = None

    # Calls of uvicorn and of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._trace("WebSocket connection made")

    def data_received(self, data: bytes) -> None:
        """Receives the head of the request, then the bytes that a client sends before the response."""
        if self._request is None and self._session.stage is Stage.CONNECTING:
            self._begin(data)
        elif self._request is not None:
            self._request.content += data
            if len(self._request.content) >= upgrade.EARLY_LIMIT:
                self.transport.pause_reading()

    def eof_received(self) -> None:
        pass

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self._session.lost()

    def __deepcopy__(self, memo: object) -> Self:
        """Returns itself: middleware may deepcopy a scope, which contains `run_view`."""
        return self

    def shutdown(self) -> None:
        """Ends the connection, because the server stops."""
        if self._session.stage is Stage.CONNECTING:
            self._deny(503, b"Service Unavailable")
            if self._view is not None:
                self._view.terminate()  # it may be deciding on the handshake
        elif self._view is None or self._responder is None or self._responder.fields is None:
            self._session.shut_down(CloseCode.SERVICE_RESTART, self.SHUTDOWN_TIMEOUT)
        elif self._view.initiated_upgrade:
            self._view._shut_down(CloseCode.SERVICE_RESTART, self.SHUTDOWN_TIMEOUT)
        else:
            self.transport.abort()  # between the event and the 101 response

    # The request

    def _begin(self, data: bytes) -> None:
        try:
            head = UpgradeHead(data)
            self._request = request = self._make_request(head)
            self._key = handshake.check(request, ("*",))  # the application decides whose pages may connect
        except HandshakeError as error:
            self._refuse(error)
            return
        except (ValueError, httptools.HttpParserError):
            # uvicorn passes on some malformed requests. After an exception here it would not notice the end of the
            # connection, and would wait for it at its shutdown.
            self._refuse(HandshakeError(400, "malformed request"))
            return
        self._fields = [(name, value) for name, value in head.headers if name in HANDSHAKE]
        self._scope = self._make_scope(head)
        context = Context() if getattr(self._config, "reset_contextvars", False) else None
        # In a later callback, because uvicorn sets this object as the transport's protocol only afterwards, and an
        # eager task would run before that.
        self._loop.call_soon(self._start, context=context)

    def _start(self) -> None:
        task = self._loop.create_task(self._run())
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _make_request(self, head: UpgradeHead) -> HttpRequest:
        return HttpRequest(
            head.method,
            head.target.decode("latin-1"),
            head.headers,
            client_address=get_remote_addr(self.transport),
            secure=is_ssl(self.transport),
            transport=self.transport,
        )

    @property
    def _counters(self) -> Counters | None:
        return None if self.metrics is None else self.metrics.counters

    def _refuse(self, error: HandshakeError) -> None:
        """Refuses an invalid handshake; further bytes of the client are read for a while and discarded."""
        logger.info("%s - WebSocket refused: %d %s", get_remote_addr(self.transport), error.status, error)
        if self.metrics is not None:
            self.metrics.refused(error)
        self._session.refused()
        head_only = self._request is not None and self._request.method == "HEAD"
        self._answer_last(handshake.refusal(error, head_only, header_lines(self._server_state.default_headers)))

    def _make_scope(self, head: UpgradeHead) -> dict[str, Any]:
        return {
            **head.scope(is_ssl(self.transport), self._config.root_path),
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "state": self._state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: {"run": self.run_view}},
        }

    # The application

    async def _run(self) -> None:
        session = self._session
        try:
            application: Any = self._config.loaded_app
            result = await application(self._scope, session.receive, session.send)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the server
            if stepping.is_abandoned(error, self._loop):
                raise
            if stepping.is_cancelled(error):
                self._end(CloseCode.SERVICE_RESTART)
                raise
            if not (isinstance(error, ConnectionClosed) and self._is_gone):
                logger.error("Exception in ASGI application\n", exc_info=traceback_of(error))
                if self.metrics is not None:
                    self.metrics.counters.note(("error",))
            self._end(CloseCode.INTERNAL_ERROR, "internal error")
        else:
            if session.stage is Stage.CONNECTING and not self._is_gone:
                logger.error("ASGI callable returned without completing handshake.")
            if result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
                self._end(CloseCode.INTERNAL_ERROR, "internal error")
            else:
                self._end(CloseCode.NORMAL_CLOSURE)

    def _end(self, code: CloseCode, reason: str = "") -> None:
        """Closes whatever the application has left open at its end."""
        stage = self._session.stage
        if stage is Stage.CONNECTING:
            self._deny(500, b"Internal Server Error")
        elif stage is Stage.ACCEPTED:
            with contextlib.suppress(ConnectionClosed):
                self._session.close(code, reason)
        elif stage is Stage.DENYING:
            self._send_denial(None)
            close_transport(self.transport)

    @property
    def _is_gone(self) -> bool:
        """Whether the peer has disconnected, is being disconnected, or has been sent its last response."""
        return self._answered or self._session.has_ended or self.transport.is_closing()

    async def run_view(self, make_view: Callable[[HttpRequest], WebSocketView], scope: Scope, send: Send) -> None:
        """Runs a view on the connection itself; called by `hosts.asgi.Application`.

        Args:
            make_view: Creates the view from an upgrade request.
            scope: The scope that the application received from its middleware.
            send: The `send` that the application received from its middleware.
        """
        received = self._request
        if received is None:
            raise ConnectionClosed  # uvicorn has begun to stop, and the request is answered, while middleware ran
        self._request = request = request_of(scope, self.transport, self._fields)
        request.content = received.content
        request.metrics = self.metrics
        request.responder = self._responder = responder = _Responder(send)
        view = make_view(request)
        self._limit(view)
        self._view = view
        try:
            result = await run(view)
        finally:
            if self._session.stage is Stage.CLOSED and not self._answered:
                self.transport.abort()  # does nothing if it is closed already
                self._session.lost()
        if self._session.stage is Stage.CONNECTING and not self._is_gone:
            for event in denial(scope, responder.refusal or reply(view, result)):
                await send(event)

    def _limit(self, view: WebSocketView) -> None:
        """Applies the stricter of the view's and uvicorn's settings."""
        config = self._config
        for name, limit in (
            ("MAX_FRAME_SIZE", config.ws_max_size),
            ("PING_INTERVAL", config.ws_ping_interval),
            ("PONG_TIMEOUT", config.ws_ping_timeout),
        ):
            own = getattr(view, name)
            if limit and not (own and own <= limit):
                view._set_for_host(name, limit)
        if view.COMPRESSION and not config.ws_per_message_deflate:
            view._set_for_host("COMPRESSION", False)

    # For the session: 101

    def accept(self, subprotocol: str | None, headers: Headers) -> SessionProtocol | None:
        """Sends the 101 response, and starts the session's protocol; returns None if a view does both itself."""
        request = self._request
        assert request is not None
        lines = [*self._server_state.default_headers, *headers]
        if self._responder is not None:
            self._responder.fields = header_lines(lines)
            self.transport.pause_reading()  # until the view uses the transport
            self._accepted()
            return None
        if subprotocol:
            lines.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        config = self._config
        extensions = DEFAULT_NEGOTIATORS if config.ws_per_message_deflate else {}
        try:
            acceptance = handshake.agree(request, self._key, extensions=extensions)
        except HandshakeError as error:
            self._refuse(error)
            self._session.disconnected()
            raise ConnectionClosed from None
        response = handshake.switching_protocols(acceptance, header_lines(lines))
        endpoint = Accepted(
            self._session,
            label(request),
            config.ws_max_size,
            config.ws_ping_interval,
            config.ws_ping_timeout,
            self._counters,
        )
        protocol = SessionProtocol(self._session, endpoint, acceptance.extensions)
        early = upgrade.attach(request, protocol, response)
        self._accepted()
        protocol.start(early)
        return protocol

    def _accepted(self) -> None:
        self._log("[accepted]")
        self._request, self._scope, self._fields = None, {}, []

    def ended(self) -> None:
        """Handles the loss of the connection."""
        self._server_state.connections.discard(self)
        self._view = None  # whose scope refers to this object
        self._trace("WebSocket connection lost")

    # For the session: another response

    def deny(self, status: int, headers: Headers) -> None:
        """Starts a response other than 101; its head leaves with the first part of its body."""
        lines = [*self._server_state.default_headers, *headers]
        self._bodiless = status in handshake.BODILESS
        # The body leaves as it is: unchunked, and none for a 204.
        dropped = (b"connection", b"transfer-encoding", *((b"content-length",) if status == 204 else ()))
        lines = [(name, value) for name, value in lines if name.lower() not in dropped]
        head = b"HTTP/1.1 %d %b\r\n" % (status, handshake.reason_phrase(status).encode())
        self._denial = head + header_lines([*lines, (b"connection", b"close")])
        self._log(str(status))

    async def deny_body(self, body: bytes, more: bool) -> None:
        """Sends a part of the body. Without Content-Length, the end of the connection marks the end of the body."""
        if self._denial is not None:
            self._send_denial(None if more else len(body))
        if self._bodiless:
            body = b""
        if not more:
            self._answer_last(body)
            return
        self.transport.write(body)
        if self._writable is not None:
            await asyncio.shield(self._writable)  # an application may give up, and others wait for it, too

    def _send_denial(self, length: int | None) -> None:
        """Sends the head of the response, unless it has been sent."""
        head, self._denial = self._denial, None
        if head is not None:
            if length is not None and not self._bodiless and b"\r\ncontent-length:" not in head.lower():
                head += b"content-length: %d\r\n" % length
            self.transport.write(head + b"\r\n")

    def _deny(self, status: int, body: bytes) -> None:
        """Answers a request that the application has not answered."""
        if not self._is_gone:
            self.deny(status, [(b"content-type", b"text/plain; charset=utf-8")])
            self._send_denial(len(body))
            self._answer_last(body)
            self._session.disconnected()

    def _answer_last(self, data: bytes) -> None:
        """Writes the end of another response; further bytes of the client are read for a while and discarded."""
        self._answered, self._request = True, None
        self.transport.write(data)
        if not self.transport.is_closing():
            Lingering(self.transport, self.LINGER_TIMEOUT, lost=self.connection_lost)

    # Logging, as uvicorn does it

    def _log(self, outcome: str) -> None:
        if logger.isEnabledFor(logging.INFO):
            client = self._scope["client"]
            # Middleware may have set a list, which uvicorn cannot format.
            scope: Any = {**self._scope, "client": client and tuple(client)}
            address = printable(get_client_addr(scope))  # uvicorn takes any text from a trusted proxy
            logger.info('%s - "WebSocket %s" %s', address, get_path_with_query_string(scope), outcome)

    def _trace(self, event: str) -> None:
        if logger.isEnabledFor(TRACE_LOG_LEVEL):
            client = get_remote_addr(self.transport)
            logger.log(TRACE_LOG_LEVEL, "%s%s", "{}:{} - ".format(*client) if client else "", event)


class _Responder:
    """The responder for a view: it passes the response through the middleware and uvicorn.

    Args:
        send: The `send` that the application received.

    Attributes:
        fields: The header lines of the 101 response, once its event has passed the middleware.
        refusal: The refusal of the view.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.fields: bytes | None = None
        self.refusal: HandshakeError | None = None

    async def accept(self, acceptance: handshake.Acceptance) -> bytes:
        await self._send(acceptance_event(acceptance))
        if self.fields is None:
            raise ConnectionClosed  # middleware has sent another response
        return handshake.switching_protocols(acceptance, self.fields)

    def refuse(self, error: HandshakeError) -> None:
        self.refusal = error
