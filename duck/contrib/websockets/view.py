"""`WebSocketView`, the base of users' classes on a server: an endpoint that answers an upgrade request."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from duck.http.request import HttpRequest
from duck.views import View

from .codec import Counters, type_version
from .compression import DEFAULT_NEGOTIATORS, PERMESSAGE_DEFLATE
from .definition import Definition
from .endpoint import WebSocketEndpoint
from .exceptions import ConnectionClosed, HandshakeError
from .hosts import upgrade
from .hosts.decision import Decision
from .logging import access_logger, end_of, label, log_access, log_event, log_failure, log_refusal, logger
from .metrics import Metrics
from .opcodes import CloseCode
from .protocol.stepping import is_abandoned, start_task
from .sansio import handshake
from .sansio.handshake import Handshake
from .sansio.negotiation import Negotiator
from .settings import BY_NAME
from .state import State

if TYPE_CHECKING:
    from .hosts.asgi import Application
    from .metrics import Stats

__all__ = ["WebSocketView"]


_USED_BEFORE_ON_HANDSHAKE = frozenset(
    {
        "ALLOWED_ORIGINS",
        "COMPRESSION",
        "EXTENSIONS",
        "HANDSHAKE_TIMEOUT",
        "SUBPROTOCOLS",
        "initiate_upgrade_to_ws",
        "on_handshake",
        "run",
        "run_forever",
    }
)
"""Settings and steps that a view has used when `on_handshake` is called."""


class Server(Protocol):
    """The interface of the embedded server for a view; see `duck.server.Server`."""

    @property
    def addresses(self) -> list[str]: ...
    @property
    def port(self) -> int | None: ...
    @property
    def state(self) -> Any: ...
    @property
    def draining(self) -> bool: ...
    @property
    def closing(self) -> bool: ...
    @property
    def connections(self) -> "list[WebSocketView]": ...
    def stats(self) -> "Stats": ...


class WebSocketView(WebSocketEndpoint, View):
    """One WebSocket connection. Override `on_receive`, and `on_open` and `on_close` as needed.

    Handlers start in the order of the messages. A handler that waits does not delay later messages: their handlers
    start meanwhile, and up to MAX_CONCURRENT_MESSAGES of them may wait at a time.

    Attributes in capitals are settings; `docs/reference/settings.md` in the repository has their units and meanings.

    Args:
        upgrade_request: The upgrade request of the peer.
        kwargs: The parameters of the URL.

    Attributes:
        request: The upgrade request.
        scope: The ASGI scope, with `scope["user"]`, `scope["state"]` and so on; None on the embedded server.
        kwargs: The parameters of the URL.
        subprotocol: The agreed subprotocol, or None.
        extensions: The agreed extensions.
        initiated_upgrade: Whether the 101 response has been sent.
    """

    MAGIC_STRING = handshake.MAGIC_STRING
    """The GUID for the computation of `Sec-WebSocket-Accept` (RFC 6455, section 1.3)."""

    ALLOWED_ORIGINS: Sequence[str] | None = None
    HANDSHAKE_TIMEOUT: float | None = 10
    EXTENSIONS: Mapping[str, Negotiator] = {}

    min_websocket_version = handshake.VERSION

    # Defaults of the class spare each view the assignments.
    client_websocket_version: int | None = None
    initiated_upgrade = False
    _decision: Decision | None = None  # while `on_handshake` runs
    _opening: "asyncio.Task[None] | None" = None  # likewise; a strong reference, which the loop does not keep

    def __init__(self, upgrade_request: HttpRequest, **kwargs: Any) -> None:
        self.request = upgrade_request
        # The union with Any admits `self.scope["user"]` without a check for None, in views that run under ASGI only.
        self.scope: MutableMapping[str, Any] | Any = getattr(upgrade_request, "scope", None)
        self.kwargs = kwargs
        super().__init__()

    @classmethod
    def _create(cls, request: HttpRequest, kwargs: Mapping[str, Any]) -> Self:
        """Returns the view of a request, for its host.

        Raises:
            TypeError: The class has an `__init__` that does not call that of its base.
        """
        view = cls(request, **kwargs)
        if not (hasattr(view, "request") and hasattr(view, "_protocol")):
            raise TypeError(f"{cls.__name__}.__init__ must call super().__init__(request, **kwargs)")
        return view

    def __repr__(self) -> str:
        try:
            return f"<{type(self).__name__} {self._label} {self._connection_state.name}>"
        except AttributeError:  # no request, or an `__init__` that has not ended
            return f"<{type(self).__name__} without a request>"

    def _watch(self, name: str, value: object) -> None:
        if self._decision is not None and name in _USED_BEFORE_ON_HANDSHAKE:
            attribute = f"{type(self).__name__}.{name}"
            raise AttributeError(f"{attribute} is fixed once on_handshake is called; set it in the class or __init__")
        super()._watch(name, value)

    def _set_for_host(self, name: str, value: object) -> None:
        """Sets a setting on behalf of the host. A property without a setter keeps its own value."""
        with contextlib.suppress(AttributeError):
            setattr(self, name, value)

    def _recheck(self, request: HttpRequest) -> bool:
        """Checks a class that has changed, and the computed settings, again; returns False after refusing bad ones."""
        cls = type(self)
        try:
            if not cls._definition.is_that_of(cls):
                cls._definition = Definition(cls, cls._definition.base)
            for name in cls._definition.computed:
                BY_NAME[name].check(cls.__name__, getattr(self, name))
        except (TypeError, ValueError) as error:
            logger.error("%r: %s", label(request), error)
            self._refuse(request, HandshakeError(500, "internal error"))
            return False
        return True

    # Properties of the connection

    @property
    def server(self) -> Server:
        """The embedded server that runs this view.

        Raises:
            AttributeError: Another server runs it, such as uvicorn, or a test without the argument `server`.
        """
        application = self.request.application
        if application is None:
            raise AttributeError(
                "only the embedded server is `self.server`: elsewhere self.scope['state'] has the state of the"
                " lifespan, and a test gives connect(..., server=...)"
            )
        server: Server = application.server
        return server

    @property
    def sock(self) -> Any:
        """The socket of the connection."""
        return self.request.client_socket

    def strictly_async(self) -> bool:
        """True: `run` is a coroutine."""
        return True

    # The handshake

    async def on_handshake(self, handshake: Handshake, /) -> None:
        """Decides on an opening handshake, before the 101 response.

        The request is a valid handshake from an allowed origin. To accept it, return; results such as a user may be
        stored as attributes of the view. To refuse it, raise a `HandshakeError`:

            raise HandshakeError(401, "sign in first", {"WWW-Authenticate": "Bearer"})

        Any other exception is logged, and the client gets 500. The hook is cancelled when the client disconnects. It is
        also cancelled after HANDSHAKE_TIMEOUT seconds, and the client gets 503. An ASGI server without the extension
        `websocket.http.response` answers every refusal with 403.

        Args:
            handshake: The request, the offered subprotocols, and the header fields to add to the response.
        """

    # Serving

    @classmethod
    def as_asgi(cls, **kwargs: Any) -> "Application":
        """Returns the view as an ASGI application, for the routes of Starlette, FastAPI, Django Channels and others.

        uvicorn with `--ws duck.contrib.websockets.uvicorn:WebSocketProtocol` gives the view the whole connection. With
        any other server the view exchanges messages: the server sends the pings, and sends each message as a whole.

        Args:
            kwargs: Parameters of the view, in addition to those of the route.
        """
        from .hosts.asgi import Application

        return Application(cls, kwargs)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Raises an error with advice: an ASGI server calls a class with a scope, and then the object."""
        name = type(self).__name__
        raise TypeError(f"{name} is a class of views, not an ASGI application: serve {name}.as_asgi()")

    async def run(self, *_: Any, **__: Any) -> None:
        """Serves the connection from its upgrade request to its end; called by the server."""
        await self.run_forever()
        await upgrade.leave(self.request)

    async def run_forever(self) -> None:
        """Upgrades the connection and serves it until it is closed and every hook has ended.

        It encloses all hooks: an override can release what `on_handshake` has acquired, however the handshake ends. If
        cancelled, it closes the connection with 1001, cancels the handlers, and ends after `on_close`.
        """
        if not await self.initiate_upgrade_to_ws():
            return
        closed = self._serve(self._overridden)
        try:
            await asyncio.shield(closed)
        except asyncio.CancelledError:
            self.terminate()
            await asyncio.shield(closed)
            raise

    def start(self) -> "asyncio.Future[None] | None":
        """Starts `run` without a task that lives as long as the connection; for servers that can wait for a future.

        Returns:
            A future that is done when the connection is closed and every hook has ended, or after a refusal by
            `on_handshake`; None after any other refusal. If `run`, `run_forever` or `initiate_upgrade_to_ws` is
            overridden, the future is a task, and may be cancelled as one.
        """
        if self._definition.version != type_version(type(self)) and not self._recheck(self.request):
            return None
        overridden = self._overridden
        if not overridden.isdisjoint(("run", "run_forever", "initiate_upgrade_to_ws")):
            upgrade.pause(self.request)
            return asyncio.get_running_loop().create_task(_run(self))
        if "on_handshake" in overridden:
            upgrade.pause(self.request)
            return self._start_decision()
        acceptance = self._agree(self.request)
        if acceptance is None:
            return None
        if not self._upgrade(self.request, acceptance, handshake.switching_protocols(acceptance), overridden):
            return None
        return self._serve(overridden)

    def _start_decision(self) -> "asyncio.Future[None] | None":
        """`start` of a view with its own `on_handshake`."""
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        self._opening = start_task(loop, self._open(closed))
        has_failed = closed.done() and (closed.cancelled() or closed.exception() is not None)
        return closed if has_failed or not closed.done() or self.initiated_upgrade else None

    async def _open(self, closed: "asyncio.Future[None]") -> None:
        """Runs `on_handshake`, then serves the connection; `closed` completes at its end."""
        try:
            if await self.initiate_upgrade_to_ws():
                self._open_protocol().closed = closed
                self._serve(self._overridden)
            else:
                closed.set_result(None)
        except asyncio.CancelledError:
            closed.cancel()
            raise
        except BaseException as error:  # such as SystemExit of a computed setting, which would end the server
            if isinstance(error, KeyboardInterrupt) or is_abandoned(error, closed.get_loop()):
                raise
            closed.set_exception(error)
        finally:
            self._opening = None

    async def drain(self, patience: float) -> None:
        """Waits for the running handlers, and handles no later messages. For servers that shut down.

        Before the 101 response it waits for `on_handshake`. A hook that takes longer is cancelled, and the client gets
        503.

        Args:
            patience: Seconds to wait.
        """
        if self._decision is not None:
            loop = asyncio.get_running_loop()
            until = loop.time() + patience
            await self._decision.over(patience)
            patience = max(until - loop.time(), 0.0)
        if self._protocol is not None:
            await self._protocol.drain(patience)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Closes the connection and waits until it is lost, as `close` of a client. May be called repeatedly.

        `send_close` does the same without the wait.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            reason: Truncated to 123 bytes of UTF-8.

        Raises:
            RuntimeError: `on_handshake` has not ended.
            TypeError, ValueError: As for `send_close`.
        """
        await self.send_close(code, reason)
        await self.safe_close()

    def terminate(self) -> None:
        """Closes the connection with 1001, without waiting for the peer, and cancels the handlers.

        Before the 101 response it cancels `on_handshake`, and the client gets 503.
        """
        if self._decision is not None:
            self._decision.cancel()
        super().terminate()

    async def initiate_upgrade_to_ws(self) -> bool:
        """Answers the upgrade request.

        Returns:
            True once the 101 response has been sent; False after a refusal, or if the peer has disconnected.
        """
        try:
            request = await upgrade.adopt(self.request)
            if self._definition.version != type_version(type(self)) and not self._recheck(request):
                return False
            acceptance = self._agree(request)
            if acceptance is None:
                return False
            if "on_handshake" not in self._overridden:
                response = await upgrade.accept(request, acceptance)
                return self._upgrade(request, acceptance, response, self._overridden)
            decided = await self._decide(request, acceptance)
            if decided is None:
                return False
            acceptance, context = decided
            response = await upgrade.accept(request, acceptance)
            return context.run(self._upgrade, request, acceptance, response, self._overridden)
        except ConnectionClosed:
            self._connection_state = State.CLOSED
            return False

    async def _decide(
        self, request: HttpRequest, acceptance: handshake.Acceptance
    ) -> tuple[handshake.Acceptance, Context] | None:
        """Runs `on_handshake`; returns the acceptance with its changes, and its context; None after a refusal."""
        if self._decision is not None:
            raise RuntimeError("on_handshake decides on this handshake: return to accept it")
        waiting = Handshake(request, acceptance)
        self._decision = decision = Decision(self.on_handshake, waiting, self.HANDSHAKE_TIMEOUT)
        try:
            context = await decision.made()
        except HandshakeError as error:
            self._refuse(request, error)
            return None
        except ConnectionClosed:
            log_event(request, "LEFT", "during the handshake")
            raise
        finally:
            self._decision = None
        return waiting.acceptance, context

    def _agree(self, request: HttpRequest) -> handshake.Acceptance | None:
        """Checks the upgrade request; refuses it if it is not acceptable."""
        self._connection_state = State.INITIATING
        try:
            key = handshake.check(request, self.ALLOWED_ORIGINS)
            return handshake.agree(request, key, self.SUBPROTOCOLS, self._negotiators())
        except HandshakeError as error:
            self._refuse(request, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # from a negotiator, such as SystemExit, which would end the server
            log_failure(error, "%r: error in the handshake of %s", label(request), type(self).__name__)
            self._refuse(request, HandshakeError(500, "internal error"))
        return None

    def _upgrade(
        self, request: HttpRequest, acceptance: handshake.Acceptance, response: bytes, overridden: frozenset[str]
    ) -> bool:
        """Sends the 101 response, and sets the transport's protocol; returns False if the peer has disconnected."""
        self.client_websocket_version = handshake.VERSION
        if acceptance.subprotocol is not self.subprotocol:
            self.subprotocol = acceptance.subprotocol
        if acceptance.extensions:
            self.extensions = acceptance.extensions
        connection = self._new_connection(overridden)
        self._protocol = protocol = self._new_protocol(connection, overridden)
        try:
            early = upgrade.attach(request, protocol, response)
        except ConnectionClosed:
            self._protocol = None
            self._connection_state = State.CLOSED
            return False
        if early:
            self._early = early
        if access_logger.level <= logging.INFO:  # saves two calls per connection
            log_access(request, 101)
        self.initiated_upgrade = True
        self._connection_state = State.INITIATED
        return True

    def _refuse(self, request: HttpRequest, error: HandshakeError) -> None:
        request.META["DEBUG_MESSAGE"] = f"WebSocket Error: {error}"
        log_refusal(request, error)
        metrics = self._metrics
        if metrics is not None:
            metrics.refused(error)
        log_access(request, error.status)
        upgrade.refuse(request, error)
        self._connection_state = State.CLOSED

    def _negotiators(self) -> Mapping[str, Negotiator]:
        compression = self.COMPRESSION
        if compression is False:
            return self.EXTENSIONS
        own = DEFAULT_NEGOTIATORS if compression is True else {PERMESSAGE_DEFLATE: compression.accept}
        return {**own, **self.EXTENSIONS} if self.EXTENSIONS else own

    def _serve(self, overridden: frozenset[str]) -> "asyncio.Future[None]":
        protocol = self._open_protocol()
        if not protocol.lost:  # it may be lost during an overridden `initiate_upgrade_to_ws`
            log_event(self.request, "OPEN")
            self._start(protocol, overridden)
        return protocol.closed

    def get_sec_accept_key(self, sec_websocket_key: str) -> str:
        """Returns `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2)."""
        return handshake.accept_key(sec_websocket_key)

    def _check_begun(self) -> None:
        """Raises while `on_handshake` runs, because the connection would open later in spite of the call."""
        if self._decision is not None:
            raise RuntimeError(
                "the connection is not open yet: refuse the handshake by a HandshakeError, or close from on_open on"
            )

    @property
    def _counters(self) -> Counters | None:
        metrics = self._metrics
        return None if metrics is None else metrics.counters

    @property
    def _metrics(self) -> Metrics | None:
        found: Metrics | None = self.METRICS or getattr(self.request, "metrics", None)
        return found

    # Called by the protocol; see `protocol.interfaces.Endpoint`

    @property
    def _label(self) -> str:
        return label(self.request)

    def _connection_lost(self, log: bool) -> None:
        self._connection_state = State.CLOSED
        if log and logger.isEnabledFor(logging.INFO):
            log_event(self.request, "CLOSE", end_of(*self._open_protocol().connection.end))


async def _run(view: WebSocketView) -> Any:
    """Returns the result of a view's own `run`."""
    try:
        return await view.run()
    except SystemExit as error:  # raised by a task, it would end the loop
        raise RuntimeError(f"{type(view).__name__}.run has raised SystemExit") from error
