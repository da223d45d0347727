"""The class that users write: hooks to override, methods to send, limits to set."""

import asyncio
import enum
import json
import logging
from collections.abc import AsyncIterable, Coroutine, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from duck.http.request import HttpRequest
from duck.views import View

from .codec import SENT, type_version, watching
from .compression import PERMESSAGE_DEFLATE, Compression
from .definition import WATCHED, Definition
from .exceptions import ConnectionClosed, HandshakeError
from .extensions import Extension
from .frame import Frame
from .hosts import upgrade
from .logging import access_logger, log_access, log_event, log_refusal, logger
from .opcodes import CloseCode, OpCode
from .protocol.frame_queue import FrameQueue
from .protocol.pending import hop
from .protocol.protocol import ConnectionProtocol
from .protocol.sender import Data
from .sansio import handshake
from .sansio.connection import Connection, check_close_code
from .sansio.negotiation import Negotiator
from .settings import BY_NAME, CHANGEABLE

if TYPE_CHECKING:
    from duck.server import Server

    from .hosts.asgi import Application

__all__ = ["State", "WebSocketView"]


_DEFAULT_COMPRESSION = Compression()


class State(enum.IntEnum):
    """Where a view stands."""

    INITIATING = -1  # the handshake is being looked at
    CLOSED = 0  # not begun, refused, or over
    OPEN = 1  # from `on_open` to the end
    INITIATED = 2  # the 101 response has been sent


class WebSocketView(View):
    """One WebSocket connection; override `on_receive`, and `on_open` and `on_close` where they are of use.

    Handlers start in the order in which messages came. One that waits does not stop those behind it, which start while
    it waits, up to MAX_CONCURRENT_MESSAGES at a time.

    Args:
        upgrade_request: What the peer asked to begin with.
        kwargs: The parameters of the URL.

    Attributes:
        request: The upgrade request.
        scope: The ASGI scope: `scope["user"]`, `scope["state"]` and the like; None on the embedded server.
        kwargs: The parameters of the URL.
        state: See `State`.
        subprotocol: The one agreed on, or None.
        extensions: Those agreed on.
        initiated_upgrade: Whether the 101 response has been sent.
    """

    MAGIC_STRING = handshake.MAGIC_STRING
    """What `Sec-WebSocket-Accept` proves to know (RFC 6455, section 1.3)."""

    # Settings: `settings.SETTINGS` says what each means, and which values it may have.
    PING_INTERVAL: float | None = 20
    PONG_TIMEOUT: float | None = 10
    MAX_BACKOFF: float = 45
    RECEIVE_TIMEOUT: float | None = 120
    CLOSE_TIMEOUT: float = 10
    MAX_FRAME_SIZE: int | None = 1024 * 1024
    MAX_CONCURRENT_MESSAGES: int = 128
    MAX_WAITING_MESSAGES: int = 16
    MAX_WAITING_BYTES: int = 65536
    RATE_LIMIT: float | None = None
    WRITE_LIMIT: int = 65536
    SLOW_CONSUMER: Literal["wait", "drop", "close"] = "wait"
    SUBPROTOCOLS: Sequence[str] = ()
    ALLOWED_ORIGINS: Sequence[str] | None = None
    COMPRESSION: bool | Compression = True
    EXTENSIONS: Mapping[str, Negotiator] = {}

    min_websocket_version = handshake.VERSION

    # What most views begin and end with; less to set for each.
    client_websocket_version: int | None = None
    initiated_upgrade = False
    subprotocol: str | None = None
    extensions: Sequence[Extension] = ()
    _early = b""
    _own_steps: frozenset[str] = frozenset()  # those that were put on the view itself

    _definition: Definition

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._definition = Definition(cls, WebSocketView)

    def __init__(self, upgrade_request: HttpRequest, **kwargs: Any) -> None:
        self.request = upgrade_request
        self.scope: MutableMapping[str, Any] | None = getattr(upgrade_request, "scope", None)
        self.kwargs = kwargs
        self.state = State.CLOSED
        # Not a default of the class: Python would look there at each read of it, for 180 instructions a message.
        self._protocol: ConnectionProtocol | None = None

    if not TYPE_CHECKING:  # for which it would mean that any attribute may be set
        __setattr__, __delattr__ = watching(WATCHED)

    def _watch(self, name: str, value: object) -> None:
        """Checks a setting of this view alone, or notes that a step is its own; refuses what would have no effect."""
        setting = BY_NAME.get(name)
        if name not in CHANGEABLE and getattr(self, "_protocol", None) is not None:
            attribute = f"{type(self).__name__}.{name}"
            raise AttributeError(f"{attribute} is fixed once the connection is open; set it in the class or __init__")
        if setting is None:
            self._own_steps |= {name}
        else:
            setting.check(type(self).__name__, value)

    @property
    def _overridden(self) -> frozenset[str]:
        """Which steps of serving are the view's own."""
        overridden = self._definition.overridden
        return overridden | self._own_steps if self._own_steps else overridden

    def _is_sound(self, request: HttpRequest) -> bool:
        """Looks at the class again where it has changed since the last look; False after a refusal of bad settings."""
        cls = type(self)
        try:
            if not cls._definition.is_that_of(cls):
                cls._definition = Definition(cls, WebSocketView)
            for name in cls._definition.computed:
                BY_NAME[name].check(cls.__name__, getattr(self, name))
        except (TypeError, ValueError) as error:
            logger.error("%r: %s", request.path, error)
            self._refuse(request, HandshakeError(500, "internal error"))
            return False
        return True

    # What is known of the connection

    @property
    def server(self) -> "Server":
        """The server that runs this view."""
        server: Server = self.request.application.server
        return server

    @property
    def sock(self) -> Any:
        """The socket of the connection."""
        return self.request.client_socket

    @property
    def latency(self) -> float | None:
        """Seconds that the last ping took to come back; None before the first did."""
        return self._protocol.heartbeat.latency if self._protocol else None

    @property
    def dropped(self) -> int:
        """Messages that were not sent, as the peer reads too slowly; see `SLOW_CONSUMER`."""
        return self._protocol.dropped if self._protocol else 0

    @property
    def close_code(self) -> int | None:
        """How the connection ended: the peer's close code, else ours, 1006 if neither came; None while it is open."""
        return self._protocol.connection.close_code if self._protocol else None

    @property
    def close_reason(self) -> str:
        """The words that came with `close_code`."""
        return self._protocol.connection.close_reason if self._protocol else ""

    def strictly_async(self) -> bool:
        """True: `run` is a coroutine."""
        return True

    # Hooks. For a type checker, the first overload says what an override must take; the second accepts any call.

    async def on_open(self) -> None:
        """The connection is open. No message is handled before this ends."""

    @overload
    async def on_receive(self, message: bytes, opcode: OpCode, /) -> None: ...

    @overload
    async def on_receive(self, *args: Any, **kwargs: Any) -> None: ...

    async def on_receive(self, message: bytes, opcode: OpCode, **kwargs: Any) -> None:
        """A message has come whole.

        An exception is logged and closes the connection with 1011. Where this is not overridden, a message closes it
        with 1003.

        Args:
            message: A text is valid UTF-8: `message.decode()`.
            opcode: TEXT or BINARY.
        """
        name = type(self).__name__
        protocol = self._protocol
        if protocol is None:
            raise NotImplementedError(f"{name} does not implement on_receive()")
        if protocol.connection.is_open:
            logger.warning("%r: closed, as a message came and %s has no on_receive", self._label, name)
            protocol.close(CloseCode.UNSUPPORTED_DATA, "no messages, please")

    @overload
    async def on_close(self, frame: Frame | None, /) -> None: ...

    @overload
    async def on_close(self, *args: Any, **kwargs: Any) -> None: ...

    async def on_close(self, frame: Frame | None = None) -> None:
        """The connection has ended, in whatever way. Called once, after the last message has gone to `on_receive`.

        Args:
            frame: The peer's close frame, or None. See `close_code` and `close_reason` for how it ended.
        """

    # Serving

    @classmethod
    def as_asgi(cls, **kwargs: Any) -> "Application":
        """The view as an ASGI application, for the routes of Starlette, FastAPI, Django Channels and others.

        uvicorn with `--ws duck.contrib.websockets.uvicorn:WebSocketProtocol` gives a view the whole connection. Any
        other server gives it messages: then pings are the server's, and a message leaves as a whole.

        Args:
            kwargs: For the view, beside the parameters of the route.
        """
        from .hosts.asgi import Application

        return Application(cls, kwargs)

    async def run(self, *_: Any, **__: Any) -> None:
        """Serves the connection from its upgrade request to its end; called by the host."""
        await self.run_forever()
        await upgrade.leave(self.request)

    async def run_forever(self) -> None:
        """Upgrades the connection and serves it until it is closed and every hook has ended.

        Cancelled, it closes the connection with 1001 and cancels the handlers, and ends after `on_close`.
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
        """What `run` does, without a task that lives as long as the connection; for hosts that can wait for a future.

        Returns:
            A future that is done when the connection is closed and every hook has ended; None after a refusal. It is
            a task, to be cancelled as one, if `run`, `run_forever` or `initiate_upgrade_to_ws` is overridden.
        """
        if self._definition.version != type_version(type(self)) and not self._is_sound(self.request):
            return None
        overridden = self._overridden
        if not overridden.isdisjoint(("run", "run_forever", "initiate_upgrade_to_ws")):
            upgrade.pause(self.request)
            return asyncio.get_running_loop().create_task(self.run())
        acceptance = self._agree(self.request)
        if acceptance is None or not self._upgrade(self.request, acceptance, overridden):
            return None
        return self._serve(overridden)

    async def drain(self, patience: float) -> None:
        """Waits for the handlers at work; messages that come from now on are not handled. For hosts that shut down.

        Args:
            patience: Seconds after which they are not waited for any more.
        """
        if self._protocol is not None:
            await self._protocol.drain(patience)

    def terminate(self) -> None:
        """Closes the connection with 1001, without waiting for the peer, and cancels the handlers."""
        if self._protocol is not None:
            self._protocol.terminate()

    async def initiate_upgrade_to_ws(self) -> bool:
        """Answers the upgrade request.

        Returns:
            True once the 101 response has been sent, False after a refusal or if the peer has gone.
        """
        try:
            request = await upgrade.adopt(self.request)
            if not self._is_sound(request):
                return False
            acceptance = self._agree(request)
            if acceptance is None:
                return False
            return self._upgrade(request, await upgrade.announce(request, acceptance), self._overridden)
        except ConnectionClosed:
            self.state = State.CLOSED
            return False

    def _agree(self, request: HttpRequest) -> handshake.Acceptance | None:
        """Checks the upgrade request, and refuses it where it is not to be accepted."""
        self.state = State.INITIATING
        try:
            return handshake.accept(
                request,
                subprotocols=self.SUBPROTOCOLS,
                allowed_origins=self.ALLOWED_ORIGINS,
                extensions=self._negotiators(),
            )
        except HandshakeError as error:
            self._refuse(request, error)
        except KeyboardInterrupt:
            raise
        except BaseException:  # a negotiator's, such as SystemExit, which would end the server
            logger.exception("%r: error in the handshake of %s", request.path, type(self).__name__)
            self._refuse(request, HandshakeError(500, "internal error"))
        return None

    def _upgrade(self, request: HttpRequest, acceptance: handshake.Acceptance, overridden: frozenset[str]) -> bool:
        """Sends the 101 response, and takes the transport; false if the peer has gone."""
        self.client_websocket_version = handshake.VERSION
        if acceptance.subprotocol is not self.subprotocol:
            self.subprotocol = acceptance.subprotocol
        self.extensions = acceptance.extensions
        connection = Connection(max_size=self.MAX_FRAME_SIZE, extensions=self.extensions)
        self._protocol = protocol = ConnectionProtocol(
            self,
            connection,
            handle=self._receive_frame if "on_new_frame" in overridden else self.on_receive,
            pull=None if overridden.isdisjoint(("read_frame", "_receive_loop")) else self._receive_loop,
            send_frame=self.send_frame if "send_frame" in overridden else None,
        )
        try:
            early = upgrade.attach(request, protocol, acceptance.response)
        except ConnectionClosed:
            self._protocol = None
            self.state = State.CLOSED
            return False
        if early:
            self._early = early
        if access_logger.level <= logging.INFO:  # spares a connection two calls
            log_access(request, 101)
        self.initiated_upgrade = True
        self.state = State.INITIATED
        return True

    def _refuse(self, request: HttpRequest, error: HandshakeError) -> None:
        request.META["DEBUG_MESSAGE"] = f"WebSocket Error: {error}"
        log_refusal(request, error)
        log_access(request, error.status)
        upgrade.refuse(request, handshake.refusal(error, head_only=request.method == "HEAD"))
        self.state = State.CLOSED

    def _negotiators(self) -> Mapping[str, Negotiator]:
        compression = self.COMPRESSION
        if compression is False:
            return self.EXTENSIONS
        settings = _DEFAULT_COMPRESSION if compression is True else compression
        return {PERMESSAGE_DEFLATE: settings.accept, **self.EXTENSIONS}

    def _serve(self, overridden: frozenset[str]) -> "asyncio.Future[None]":
        protocol = self._open_protocol()
        log_event(self.request, "OPEN")
        self.state = State.OPEN
        early = self._early
        if early:
            self._early = b""
        protocol.start(
            early,
            on_open=self.on_open if "on_open" in overridden else None,
            on_close=self.on_close if "on_close" in overridden else None,
            heartbeat=self._heartbeat_loop if "_heartbeat_loop" in overridden else None,
        )
        return protocol.closed

    def get_sec_accept_key(self, sec_websocket_key: str) -> str:
        """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2)."""
        return handshake.accept_key(sec_websocket_key)

    # Steps of serving that may be overridden; where they are not, messages take a shorter way

    async def _receive_loop(self) -> None:
        """Calls `on_open`, then pulls frames and hands messages on, until the connection closes."""
        frames = self._frames()
        await self.on_open()
        while True:
            frame = await self.read_frame()
            if frame.opcode == OpCode.CLOSE:
                return
            if frame.opcode < OpCode.CLOSE:
                frames.hand_on(frame)

    async def read_frame(self) -> Frame:
        """The next message, its fragments joined, or control frame. Pings and close frames have been answered already.

        Only for a view that overrides this method or `_receive_loop`.

        Raises:
            ConnectionClosed: There is none any more.
            RuntimeError: Messages go to `on_receive` by themselves.
        """
        return await self._frames().get()

    async def on_new_frame(self, frame: Frame) -> None:
        """Hands a message to `on_receive`.

        Args:
            frame: The message, its fragments joined.
        """
        await self.on_receive(frame.payload, frame.opcode)

    async def _heartbeat_loop(self) -> None:
        """Pings the peer each PING_INTERVAL, and closes a connection whose peer does not answer."""
        protocol = self._open_protocol()
        protocol.heartbeat.start()
        await protocol.until_closed()

    # Sending

    def send(
        self,
        data: Data | Iterable[Data] | AsyncIterable[Data],
        opcode: int = OpCode.TEXT,
    ) -> Coroutine[Any, Any, None]:
        """Sends a message; to be awaited.

        It is queued by the call and leaves in the order of calls; what is returned may be awaited, become a task, or be
        ignored. Awaiting it takes a while only if the peer reads slowly, or to let others have their turn.

        Args:
            data: A str or bytes-like; or an iterable or async iterable of them, each of which leaves as a fragment of
                one message as soon as it is made. While the peer does not read, no more is made, whatever
                `SLOW_CONSUMER` says.
            opcode: TEXT or BINARY; PING, PONG or CLOSE with their payload.

        Raises:
            ConnectionClosed: The connection is closing or gone.
            RuntimeError: It is not open yet.
            TypeError: There is no way to send such data.
            ValueError: Bytes that are sent as TEXT are not UTF-8, or a control frame is over 125 bytes.
        """
        protocol = self._protocol
        if protocol is None:
            raise RuntimeError("the connection is not open yet: send from on_open on")
        return protocol.send(data, opcode)

    def send_text(self, data: str | Iterable[str] | AsyncIterable[str]) -> Coroutine[Any, Any, None]:
        """Sends a text message; see `send`."""
        return self.send(data, OpCode.TEXT)

    def send_binary(self, data: Data | Iterable[Data] | AsyncIterable[Data]) -> Coroutine[Any, Any, None]:
        """Sends a binary message; see `send`."""
        return self.send(data, OpCode.BINARY)

    def send_json(self, data: Any) -> Coroutine[Any, Any, None]:
        """Sends an object as a text message of JSON; see `send`."""
        return self.send(json.dumps(data), OpCode.TEXT)

    def send_ping(self, data: Data = b"") -> Coroutine[Any, Any, None]:
        """Sends a ping of at most 125 bytes; see `send`."""
        return self.send(data, OpCode.PING)

    def send_pong(self, data: Data = b"") -> Coroutine[Any, Any, None]:
        """Sends a pong of at most 125 bytes; see `send`."""
        return self.send(data, OpCode.PONG)

    def send_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Coroutine[Any, Any, None]:
        """Begins to close the connection; does nothing if that has begun.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            reason: Cut where it is over 123 bytes of UTF-8.

        Raises:
            ValueError: The code may not be sent.
        """
        check_close_code(code)
        protocol = self._protocol
        if protocol is not None:
            if protocol.is_elsewhere:
                return hop(protocol, self.send_close, code, reason, closes=True)
            protocol.close(code, reason)
        return SENT

    def send_frame(self, frame: Frame) -> Coroutine[Any, Any, None]:
        """Sends one frame as it is. Where this is overridden, every `send` comes through it.

        Raises:
            ConnectionClosed: The connection is closing or gone.
            ValueError: A control frame is over 125 bytes or not final, a close code may not be sent, or a text is not
                UTF-8.
        """
        protocol = self._open_protocol()
        if protocol.is_elsewhere:
            return hop(protocol, self.send_frame, frame)
        if frame.opcode == OpCode.CLOSE:
            protocol.close_with(frame.payload)
            return SENT
        return protocol.send_frame(frame)

    async def safe_close(self, disable_logging: bool = False, call_on_close_handler: bool = True) -> None:
        """Closes the connection and waits until it is gone; may be called at any time, and again.

        Args:
            disable_logging: Do not log the end.
            call_on_close_handler: Whether `on_close` is to be called.
        """
        protocol = self._protocol
        if protocol is None:
            self.state = State.CLOSED
        elif protocol.is_elsewhere:
            await hop(protocol, self.safe_close, disable_logging, call_on_close_handler, closes=True)
        else:
            protocol.close()
            await protocol.until_lost(call_on_close=call_on_close_handler, log=not disable_logging)

    def _shut_down(self, code: int, timeout: float) -> None:
        if self._protocol is not None:
            self._protocol.shut_down(code, timeout)

    # What the protocol needs of its endpoint

    @property
    def _label(self) -> str:
        return self.request.path

    def _connection_closing(self) -> None:
        pass

    def _connection_lost(self, log: bool) -> None:
        self.state = State.CLOSED
        if log:
            connection = self._open_protocol().connection
            log_event(self.request, "CLOSE", connection.close_code, connection.failed or connection.close_reason)

    async def _receive_frame(self, payload: bytes, opcode: OpCode) -> None:
        await self.on_new_frame(Frame(opcode, payload=payload))

    def _frames(self) -> FrameQueue:
        frames = self._open_protocol().frames
        if frames is None:
            raise RuntimeError(
                "messages go to on_receive: override read_frame or _receive_loop to read frames yourself"
            )
        return frames

    def _open_protocol(self) -> ConnectionProtocol:
        if self._protocol is None:
            raise RuntimeError("the connection is not open yet")
        return self._protocol


WebSocketView._definition = Definition(WebSocketView, WebSocketView)
