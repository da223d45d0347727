"""`WebSocketEndpoint`, the base of `WebSocketView` and `WebSocketClient`: hooks, methods for sending, settings."""

import asyncio
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from .codec import SENT, Counters, watching
from .compression import Compression
from .definition import WATCHED, Definition, check_method, warn_of_clashes, warn_of_misspellings
from .extensions import Extension
from .frame import Frame, sendable
from .logging import logger
from .metrics import Metrics
from .opcodes import CloseCode, OpCode
from .protocol.broadcast import Prepared
from .protocol.frame_queue import FrameQueue
from .protocol.incoming_message import IncomingMessage
from .protocol.protocol import ConnectionProtocol
from .protocol.stream_queue import OnStream, StreamQueue
from .protocol.threadsafe import call_threadsafe
from .sansio.connection import Connection
from .sansio.payloads import Data, check_close
from .settings import BY_NAME, CHANGEABLE
from .state import State

__all__ = ["WebSocketEndpoint"]

T = TypeVar("T")


class WebSocketEndpoint:
    """One end of a connection. Subclasses override `on_receive`, and `on_open` and `on_close` if needed.

    Handlers start in the order of their messages. A suspended handler does not delay the next one; up to
    MAX_CONCURRENT_MESSAGES are suspended at a time.

    Attributes:
        subprotocol: The agreed subprotocol, or None.
        extensions: The agreed extensions.
    """

    # `settings.SETTINGS` has the meaning and the valid values of each setting.
    PING_INTERVAL: float | None = 20
    PONG_TIMEOUT: float | None = 10
    MAX_BACKOFF: float = 45
    RECEIVE_TIMEOUT: float | None = 120
    CLOSE_TIMEOUT: float = 10
    MAX_FRAME_SIZE: int | None = 1024 * 1024
    MAX_STREAM_SIZE: int | None = 1024 * 1024 * 1024
    MAX_CONCURRENT_MESSAGES: int = 128
    MAX_WAITING_MESSAGES: int = 16
    MAX_WAITING_BYTES: int = 65536
    RATE_LIMIT: float | None = None
    WRITE_LIMIT: int = 65536
    SLOW_CONSUMER: Literal["wait", "drop", "close"] = "wait"
    SUBPROTOCOLS: Sequence[str] = ()
    COMPRESSION: bool | Compression = True
    METRICS: Metrics | None = None

    # Values that most connections never change: defaults of the class spare each connection the assignment.
    _connection_state: State = State.CLOSED
    subprotocol: str | None = None
    extensions: Sequence[Extension] = ()
    _early = b""
    _host_detects_loss = False
    _own_steps: frozenset[str] = frozenset()  # the steps that were assigned to the object itself

    _definition: Definition

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited: Definition | None = getattr(cls, "_definition", None)
        cls._definition = Definition(cls, cls if inherited is None else inherited.base)
        if inherited is not None:
            warn_of_misspellings(cls)
            warn_of_clashes(cls)

    def __init__(self) -> None:
        # Not a default of the class: Python would search the class at each read, for 180 instructions a message.
        self._protocol: ConnectionProtocol | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection belongs to its process, and cannot be copied or pickled: pass an id of your own")

    if not TYPE_CHECKING:  # with a `__setattr__`, a type checker would allow any attribute
        __setattr__, __delattr__ = watching(WATCHED)

    def _watch(self, name: str, value: object) -> None:
        """Checks an assigned setting or step, and notes a step; refuses an assignment that would have no effect."""
        setting = BY_NAME.get(name)
        protocol = getattr(self, "_protocol", None)
        if name not in CHANGEABLE and protocol is not None:
            attribute = f"{type(self).__name__}.{name}"
            raise AttributeError(f"{attribute} is fixed once the connection is open; set it in the class or __init__")
        if setting is None:
            check_method(type(self).__name__, name, value)
            self._own_steps |= {name}
        else:
            setting.check(type(self).__name__, value)
            if protocol is not None:
                protocol.apply_settings_soon()

    @property
    def _overridden(self) -> frozenset[str]:
        """The names of the overridden steps."""
        overridden = self._definition.overridden
        return overridden | self._own_steps if self._own_steps else overridden

    # Facts about the connection

    @property
    def state(self) -> State:
        """The phase of the connection. Steps of a subclass may set it, as in Duck Framework."""
        return self._connection_state

    @state.setter
    def state(self, value: State) -> None:
        if not isinstance(value, State):
            raise AttributeError(f"state is the phase of the connection, a State, not {value!r}: choose another name")
        self._connection_state = value

    @property
    def latency(self) -> float | None:
        """Round-trip time in seconds of the last answered ping of the heartbeat or of `ping`; None before the first."""
        return self._protocol.heartbeat.latency if self._protocol else None

    @property
    def dropped(self) -> int:
        """Number of messages discarded because the peer reads too slowly; see `SLOW_CONSUMER`."""
        return self._protocol.dropped if self._protocol else 0

    @property
    def close_code(self) -> int | None:
        """The peer's close code, else ours, else 1006; None while the connection is open."""
        return self._protocol.connection.close_code if self._protocol else None

    @property
    def close_reason(self) -> str:
        """The reason that belongs to `close_code`."""
        return self._protocol.connection.close_reason if self._protocol else ""

    # Hooks. For type checkers: overrides must accept the first overload; calls may use the second.

    async def on_open(self) -> None:
        """Called after the handshake. No message is handled before this hook has ended."""

    @overload
    async def on_receive(self, message: bytes, opcode: OpCode, /) -> None: ...

    @overload
    async def on_receive(self, *args: Any, **kwargs: Any) -> None: ...

    async def on_receive(self, message: bytes, opcode: OpCode, **kwargs: Any) -> None:
        """Called for each message.

        An exception is logged and closes the connection with 1011. Without an override, a message closes the connection
        with 1003.

        Args:
            message: The whole message. Text is valid UTF-8: `message.decode()`.
            opcode: TEXT or BINARY.
        """
        name = type(self).__name__
        protocol = self._protocol
        if protocol is None:
            raise NotImplementedError(f"{name} does not implement on_receive()")
        if protocol.connection.is_open:
            logger.warning("%r: closed, because %s has no on_receive for a received message", self._label, name)
            protocol.close(CloseCode.UNSUPPORTED_DATA, "messages are not supported")

    async def on_stream(self, message: IncomingMessage, /) -> None:
        """Called for each message as soon as it begins, in place of `on_receive`, if a class overrides it.

            async def on_stream(self, message):
                with open("upload", "wb") as file:
                    async for part in message:
                        file.write(part)

        The message may be larger than the memory: MAX_STREAM_SIZE limits it, not MAX_FRAME_SIZE. While more than
        MAX_WAITING_BYTES of parts wait, nothing is received, not even pings and close frames, and the peer has to wait.
        The next message begins once this one has been read to its end, or once the hook has returned. The unread rest
        is received and discarded; to refuse it, close the connection.

        Args:
            message: Iterate over its parts, or `await message.read()` for the whole; its `opcode` is TEXT or BINARY.
        """

    @overload
    async def on_close(self, frame: Frame | None, /) -> None: ...

    @overload
    async def on_close(self, *args: Any, **kwargs: Any) -> None: ...

    async def on_close(self, frame: Frame | None = None) -> None:
        """Called once at the end of every connection, after all handlers have ended.

        Args:
            frame: The peer's close frame, or None. `close_code` and `close_reason` describe the end in any case.
        """

    async def on_gap(self, group: str, /) -> None:
        """Called if messages of a group may have been missed, because its broker was unreachable for a while.

        It is called for each member once messages are delivered again; see `duck.contrib.websockets.groups`.

        Args:
            group: The name of the group.
        """

    # Opening

    def _new_connection(self, overridden: frozenset[str], client: bool = False) -> Connection:
        """Returns the rules of a connection with the negotiated extensions."""
        connection = Connection(client, self.MAX_FRAME_SIZE, self.extensions)
        if "on_stream" in overridden:
            connection.receive_parts(self.MAX_STREAM_SIZE)
        return connection

    def _new_protocol(self, connection: Connection, overridden: frozenset[str]) -> ConnectionProtocol:
        """Returns the protocol of a connection, which passes messages to the overridden steps."""
        return ConnectionProtocol(
            self,
            connection,
            self._receive_frame if "on_new_frame" in overridden else self.on_receive,
            None if overridden.isdisjoint(("read_frame", "_receive_loop")) else self._receive_loop,
            self.send_frame if "send_frame" in overridden else None,
            self._new_stream_queue(self.on_stream) if "on_stream" in overridden else None,
        )

    def _new_stream_queue(self, on_stream: OnStream | None = None) -> StreamQueue:
        return StreamQueue(asyncio.get_running_loop(), self.MAX_WAITING_BYTES, self.MAX_FRAME_SIZE, on_stream)

    @property
    def _counters(self) -> Counters | None:
        """The counters of the connection; None for no counting."""
        return None if self.METRICS is None else self.METRICS.counters

    def _start(self, protocol: ConnectionProtocol, overridden: frozenset[str]) -> None:
        """Starts the hooks. The transport is attached."""
        self._connection_state = State.OPEN
        early = self._early
        if early:
            self._early = b""
        protocol.start(
            early,
            self.on_open if "on_open" in overridden else None,
            self.on_close if "on_close" in overridden else None,
            self._heartbeat_loop if "_heartbeat_loop" in overridden else None,
        )

    # Steps of serving. Messages skip the steps that a subclass does not override.

    async def _receive_loop(self) -> None:
        """Calls `on_open`, then reads frames and starts handlers until the connection closes."""
        frames = self._frames()
        await self.on_open()
        while True:
            frame = await self.read_frame()
            if frame.opcode == OpCode.CLOSE:
                return
            if frame.opcode < OpCode.CLOSE:
                frames.hand_on(frame)

    async def read_frame(self) -> Frame:
        """Returns the next frame: a whole message or a control frame. Pings and close frames have been answered.

        For classes that override this method or `_receive_loop`.

        Raises:
            ConnectionClosed: The connection has ended, and no frame is left.
            RuntimeError: The class overrides neither method, so messages go to `on_receive`.
        """
        return await self._frames().get()

    async def on_new_frame(self, frame: Frame) -> None:
        """Calls `on_receive` for a message.

        Args:
            frame: The whole message.
        """
        await self.on_receive(frame.payload, frame.opcode)

    async def _heartbeat_loop(self) -> None:
        """Sends a ping each PING_INTERVAL, and closes the connection if the peer does not answer."""
        protocol = self._open_protocol()
        protocol.heartbeat.start()
        await protocol.until_closed()

    async def _receive_frame(self, payload: bytes, opcode: OpCode) -> None:
        await self.on_new_frame(Frame(opcode, payload=payload))

    def _frames(self) -> FrameQueue:
        protocol = self._open_protocol()
        frames = protocol.frames
        if frames is None and self._connection_state is State.CLOSED:  # every hook has ended
            raise protocol.closed_error()
        if frames is None:
            raise RuntimeError(
                "messages go to on_receive: override read_frame or _receive_loop to read frames yourself"
            )
        return frames

    def _open_protocol(self) -> ConnectionProtocol:
        if self._protocol is None:
            raise RuntimeError("the connection is not open yet: call this from on_open on")
        return self._protocol

    # Tasks

    def create_task(self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> "asyncio.Task[T]":
        """Starts a task that belongs to the connection, for example one that sends without being asked.

        An exception in it is handled as one in a hook: it is logged and closes the connection with 1011. After the loss
        of the connection, the task is cancelled once all handlers have ended; `on_close` is called after its end. On a
        connection of `connect`, which has no handlers, it may read the last messages: it is cancelled by `close`, such
        as at the end of the block, or CLOSE_TIMEOUT seconds after the loss.

        Raises:
            ConnectionClosed: The connection is lost.
            RuntimeError: The connection is not open yet; or the call comes from another thread than its loop's.
            TypeError: The argument is not a coroutine.
        """
        if not isinstance(coroutine, Coroutine):  # `asyncio.iscoroutine` accepts generators on Python 3.11
            raise TypeError(f"create_task takes a coroutine, such as self.tick(), not {coroutine!r}")
        try:
            return self._open_protocol().create_task(coroutine, name)
        except BaseException:
            coroutine.close()  # otherwise Python warns that it was never awaited
            raise

    # Sending

    def send(
        self,
        data: Data | Iterable[Data] | AsyncIterable[Data],
        opcode: int = OpCode.TEXT,
    ) -> Coroutine[Any, Any, None]:
        """Queues a message. Messages leave in the order of the calls.

        The result may be awaited, passed to `asyncio.create_task`, or ignored. Awaiting it suspends the caller while
        the peer reads slowly, or to let other connections proceed.

        Args:
            data: A str or bytes-like object; or an iterable or asynchronous iterable of them. Each item leaves as a
                fragment of one message as soon as it exists, and the message ends with the iterable. An open file is
                read by pieces of 64 KiB, and a pipe as its data comes. Once a fragment has left, an exception in the
                iterable or a cancellation closes the connection with 1011. While the peer does not read, no further
                item is requested, under any `SLOW_CONSUMER`.
            opcode: TEXT or BINARY; or PING, PONG or CLOSE with their payload.

        Raises:
            ConnectionClosed: The connection is closing or closed.
            RuntimeError: The connection is not open yet.
            TypeError: The data has another type.
            ValueError: TEXT data is not UTF-8, or a control frame exceeds 125 bytes.
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
        """Sends an object as a text message of JSON; see `send`.

        Raises:
            TypeError: JSON cannot express the object.
        """
        import json  # slow to import for a view of bytes

        return self.send(json.dumps(data), OpCode.TEXT)

    def send_ping(self, data: Data = b"") -> Coroutine[Any, Any, None]:
        """Sends a ping with a payload of at most 125 bytes (RFC 6455, section 5.5.2); see `send`."""
        return self.send(data, OpCode.PING)

    def send_pong(self, data: Data = b"") -> Coroutine[Any, Any, None]:
        """Sends a pong with a payload of at most 125 bytes (RFC 6455, section 5.5.3); see `send`."""
        return self.send(data, OpCode.PONG)

    async def ping(self) -> float:
        """Sends a ping and waits for its pong (RFC 6455, section 5.5.2); `latency` has the result, too.

        The wait ends with the connection, at the latest when the peer has been silent for too long. A shorter limit is
        `async with asyncio.timeout(5)`. A handler that delays later messages needs one: while more of them wait than
        MAX_WAITING_MESSAGES or MAX_WAITING_BYTES allow, nothing is read, so the pong does not arrive.

        Returns:
            The round-trip time in seconds. It includes the wait behind data that the peer has not read yet.

        Raises:
            ConnectionClosed: The connection is closing or closed, or has ended before the pong.
            RuntimeError: The connection is not open yet; or the view runs on an ASGI server, which passes no pings.
        """
        protocol = self._open_protocol()
        if protocol.is_elsewhere:
            return await call_threadsafe(protocol, WebSocketEndpoint.ping, self)
        return await protocol.heartbeat.measure(self.send_ping)

    def send_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Coroutine[Any, Any, None]:
        """Starts the closing handshake. Further calls have no effect.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            reason: Truncated to 123 bytes of UTF-8.

        Raises:
            RuntimeError: `on_handshake` of a view has not ended.
            TypeError: The code is not an int, or the reason is not a str.
            ValueError: The code is not one of those (RFC 6455, section 7.4), or the reason cannot be encoded as UTF-8.
        """
        check_close(code, reason)
        protocol = self._protocol
        if protocol is None:
            self._check_begun()
            return SENT
        if protocol.is_elsewhere:
            return call_threadsafe(protocol, WebSocketEndpoint.send_close, self, code, reason, closes=True)
        protocol.close(code, reason)
        return SENT

    def send_frame(self, frame: Frame) -> Coroutine[Any, Any, None]:
        """Sends one frame. Every `send` calls an override of this method.

        The extensions of the connection encode the payload afterwards, and set the reserved bits.

        Raises:
            ConnectionClosed: The connection is closing or gone.
            RuntimeError: The connection is not open yet; a message begins inside a fragmented one, or continues without
                a beginning.
            TypeError: The argument is not a Frame.
            ValueError: A reserved bit is set, a control frame exceeds 125 bytes or is not final, a close code is
                invalid, or text is not UTF-8.
        """
        opcode, payload, fin = sendable(frame)
        protocol = self._open_protocol()
        if protocol.is_elsewhere:  # an override has been called, and must not be called again
            return call_threadsafe(protocol, WebSocketEndpoint.send_frame, self, Frame(opcode, fin, payload))
        if opcode == OpCode.CLOSE:
            if not fin:
                raise ValueError("a close frame is final: leave fin True")
            protocol.close_with(payload)
            return SENT
        return protocol.send_frame(opcode, payload, fin)

    # Closing

    async def safe_close(self, disable_logging: bool = False, call_on_close_handler: bool = True) -> None:
        """Closes the connection and waits until it is lost. May be called repeatedly.

        Args:
            disable_logging: Omit the log record of the end.
            call_on_close_handler: Whether to call `on_close`.

        Raises:
            RuntimeError: `on_handshake` of a view has not ended.
        """
        protocol = self._protocol
        if protocol is None:
            self._check_begun()
        elif protocol.is_elsewhere:
            arguments = self, disable_logging, call_on_close_handler
            await call_threadsafe(protocol, WebSocketEndpoint.safe_close, *arguments, closes=True)
        else:
            protocol.close()
            protocol.omit_at_end(on_close=not call_on_close_handler, log=disable_logging)
            protocol.cancel_readers()
            await protocol.until_lost()

    def terminate(self) -> None:
        """Closes the connection with 1001, without waiting for the peer, and cancels the handlers.

        May be called from any thread.
        """
        protocol = self._protocol
        if protocol is None:
            return
        if protocol.is_elsewhere and not protocol.loop.is_closed():
            protocol.loop.call_soon_threadsafe(protocol.terminate)
        else:
            protocol.terminate()

    def _shut_down(self, code: int, timeout: float) -> None:
        if self._protocol is not None:
            self._protocol.shut_down(code, timeout)

    def _check_begun(self) -> None:
        """Called to close a connection that is not open; `WebSocketView` raises while `on_handshake` runs."""

    # Calls of `broadcast` and of groups

    def _send_prepared(self, message: Prepared) -> bool:
        """Sends a prepared message without waiting; returns False if it is not sent. Called by `broadcast`."""
        return self._protocol is not None and self._protocol.send_prepared(message)

    @property
    def _home(self) -> asyncio.AbstractEventLoop:
        """The loop of the connection."""
        return self._open_protocol().loop

    async def _drained(self) -> None:
        """Waits until the peer has received most of the sent bytes."""
        await self._open_protocol().drained()

    def _when_lost(self, callback: Callable[[Any], object]) -> None:
        """Has `callback` called with this object once the connection is lost."""
        self._open_protocol().when_lost(callback)

    def _missed(self, group: str) -> None:
        """Calls `on_gap`, if it is overridden."""
        if getattr(self.on_gap, "__func__", None) is not WebSocketEndpoint.on_gap:
            protocol = self._open_protocol()
            if not protocol.lost:
                protocol.hooks.call(partial(self.on_gap, group))

    # Calls of the protocol

    @property
    def _label(self) -> str:
        raise NotImplementedError

    def _connection_closing(self) -> None:
        pass

    def _connection_lost(self, log: bool) -> None:
        raise NotImplementedError
