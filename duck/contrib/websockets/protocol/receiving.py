"""The receiving half of a connection: the slow path of received messages, and the control of reading.

    transport -> HotPath.buffer_updated -> MessageReader -> Dispatcher -> on_receive
                                                `-> received ---^

Plain messages go straight from the reader to the consumer. `received`, the slow path, handles control frames, users'
extensions, breaches of the rules and rate limits. Reading is on hold (`FlowControl`) while too many messages wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from .. import codec
from ..exceptions import ProtocolError
from ..frame import Frame
from ..logging import log_failure
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection
from . import stepping
from .decoding import Decoding, refuse_late
from .flow_control import FlowControl, Hold
from .frame_queue import FrameQueue
from .heartbeat import Heartbeat
from .inbox import Inbox
from .interfaces import Endpoint
from .loop import shared
from .phases import Phase
from .rate_limit import RateLimit
from .sending import Sending
from .stream_queue import StreamQueue
from .transports import HIGH_WATER, NO_BACKLOG, backlog

__all__ = ["Receiving"]

# A comparison with the member of the enum costs 20 times as much.
_CLOSE, _PING, _PONG = int(OpCode.CLOSE), int(OpCode.PING), int(OpCode.PONG)


class Receiving(Sending):
    """The receiving half of one connection. It extends the sending half, because received frames are answered.

    The arguments are those of `ConnectionProtocol`.

    Attributes:
        HEARTBEAT: The class of the heartbeat.
        frames: The queue of frames for a view that pulls.
        queue: The queue from which tasks or `on_stream` take messages, which ends with the connection; None without.
    """

    HEARTBEAT = Heartbeat

    __slots__ = ("_backlog", "_decoding", "_flow_control", "_rate_limit", "frames", "heartbeat", "queue")

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        handle: Callable[[bytes, OpCode], Awaitable[None]] | None,
        pull: Callable[[], Awaitable[None]] | None,
        send_frame: Callable[[Frame], Awaitable[None]] | None,
        queue: Inbox | StreamQueue | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        ours = shared(loop)
        super().__init__(endpoint, connection, send_frame, loop, ours)
        self._decoding: Decoding | None = None
        self._flow_control: FlowControl | None = None
        self._backlog = NO_BACKLOG
        self._rate_limit = RateLimit(endpoint.RATE_LIMIT, loop.time()) if endpoint.RATE_LIMIT else None
        self.heartbeat = self.HEARTBEAT(self, loop, ours.clock)
        self.frames: FrameQueue | None = None
        self.queue = queue
        if pull is not None:
            self.frames = FrameQueue(self, endpoint.MAX_WAITING_MESSAGES, endpoint.MAX_WAITING_BYTES)
        if queue is not None:
            self.consumer = queue.attach(self)
        else:
            assert handle is not None
            self.consumer = self.new_dispatcher(handle)

    def new_dispatcher(self, handle: Callable[[bytes, OpCode], Awaitable[None]]) -> codec.Dispatcher:
        """Returns a dispatcher of messages to `handle`."""
        endpoint, connection = self.endpoint, self.connection
        limit, most = endpoint.MAX_CONCURRENT_MESSAGES, (endpoint.MAX_WAITING_MESSAGES, endpoint.MAX_WAITING_BYTES)
        dispatcher = codec.Dispatcher(self, self.loop, self.context, handle, limit, most, stepping)
        if connection.extensions and self.frames is None:  # frames are decoded before a view pulls them
            dispatcher.encoded = connection.encoded
            dispatcher.decode = connection.decode
            dispatcher.decoded_at_once = self.decoding.at_once
        return dispatcher

    @property
    def is_read_by_tasks(self) -> bool:
        """Whether tasks ask for the messages, in place of handlers."""
        return self.queue is not None and not self.queue.has_handler

    def _receive_early(self, early: bytes) -> None:
        self.cork()
        try:
            self.received(self.reader.receive(early))
        finally:
            self.uncork()
        self.flow_control.release(Hold.EARLY)
        self.move_on()

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        """Delivers messages of the reader after the rules of the connection have been applied: the slow path."""
        connection = self.connection
        control = self.reader.control
        allowed = messages if self._rate_limit is None else self._allowed(messages, self._rate_limit)
        are_too_many = allowed is not messages
        if control and connection.client and self._is_full:
            allowed = self._put_off_pongs(allowed)
        messages = connection.received(allowed, control)
        if are_too_many:
            connection.breach(ProtocolError("too many messages", CloseCode.POLICY_VIOLATION))
        if control:
            for opcode, payload in messages:
                if opcode == _PONG:
                    self.heartbeat.pong(payload)
        if self.frames is not None:
            self.frames.inbox.deliver(messages)
        else:
            if control:
                messages = [message for message in messages if message[0] & 0b1111 < _CLOSE]
            self.consumer.deliver(messages)
        self._respond_if_due()

    def _allowed(self, messages: list[tuple[int, bytes]], rate_limit: RateLimit) -> list[tuple[int, bytes]]:
        """Returns `messages` itself if the rate limit allows all, else a list of the first ones.

        A message in parts counts once, at its first part. A close frame, which is always the last, does not count.
        """
        begun = [at for at, message in enumerate(messages) if message[0] & 0b1111 not in (0, _CLOSE)]
        allowed = rate_limit.take(len(begun), self.loop.time())
        return messages if allowed == len(begun) else messages[: begun[allowed]]

    def _put_off_pongs(self, messages: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Returns the messages without pings. The last one is answered once the peer reads (RFC 6455, section 5.5.3).

        A client reads while its own bytes wait, so its answers would have no bound.
        """
        for opcode, payload in messages:
            if opcode == _PING:
                self.flow_control.ping = payload
        return [message for message in messages if message[0] != _PING]

    def answer_ping(self) -> None:
        """Answers the last ping of a peer that reads again."""
        control = self._flow_control
        if control is not None and control.ping is not None:
            ping, control.ping = control.ping, None
            if self.connection.is_writable:
                self.connection.send(OpCode.PONG, ping)

    def refuse(self, error: BaseException) -> None:
        """Ends the connection, because the next message could not be decoded."""
        if self.phase is Phase.CLOSED:
            refuse_late(self.connection, error)
            return
        self.connection.refuse(error)
        self.respond()

    def _respond_if_due(self) -> None:
        """Answers a close frame or a breach, unless a thread is decoding an earlier message."""
        if self.connection.needs_response and not self.consumer.decoding:
            self.respond()

    def respond(self) -> None:
        """Answers the last received close frame or breach, after the replies to earlier messages."""
        connection = self.connection
        if connection.fault is not None:
            fault, connection.fault = connection.fault, None
            self.note_error()
            log_failure(fault, "%r: a message could not be decoded", self.endpoint._label)
        if connection.is_breached:
            self.stop_handling()  # RFC 6455, section 7.1.7
        if self._sender is not None and self._sender.must_finish and connection.is_writable:
            connection.prepare_response()
            self.update_direct()
            self._sender.close_behind(self._respond)
        else:
            self._respond()

    def _respond(self) -> None:
        self.connection.respond()
        self.flush_and_move_on()

    def note_error(self) -> None:
        """Counts an exception of the application."""
        if self.counters is not None:
            self.counters.note(("error",))

    @property
    def decoding(self) -> Decoding:
        """The decoder of messages that the codec does not decode; created on demand."""
        if self._decoding is None:
            self._decoding = Decoding(self.loop, self.connection)
        return self._decoding

    def decode_later(self, message: tuple[int, bytes]) -> None:
        """Decodes a large message in a thread; the dispatcher resumes with the result."""
        self.decoding.start(message).add_done_callback(self._decoded)

    def _decoded(self, job: "asyncio.Future[tuple[int, bytes]]") -> None:
        error = cast("Exception | None", job.exception())
        if self.phase is Phase.CLOSED:
            return
        self.cork()
        try:
            if error is not None:
                self.refuse(error)
            self.consumer.resume(job.result() if error is None else None)
            self._respond_if_due()
        finally:
            self.uncork()
        self.move_on()

    def update_direct(self) -> None:
        """Updates `direct_in` and `direct_out`: whether plain messages may take the fast path."""
        connection = self.connection
        is_plain = connection.is_plain
        self.direct_in = is_plain and connection.is_open and self.frames is None and self._rate_limit is None
        self.direct_out = (
            is_plain
            and (self._sender is None or self._sender.is_direct)
            and (self._slow_consumer is None or not self._slow_consumer.lags)
            and not (self.busy or self.broken)
        )

    # Messages that wait

    @property
    def flow_control(self) -> FlowControl:
        """The control of reading; created on demand."""
        if self._flow_control is None:
            self._flow_control = FlowControl(self)
        return self._flow_control

    @property
    def is_open(self) -> bool:
        """Whether no close frame has left and the stream has not ended."""
        return self.connection.is_open

    def resume_reading(self) -> None:
        """Resumes reading outside the current context, which all received messages would inherit."""
        if not self.lost and not self.transport.is_reading():
            self.context.copy().run(self.transport.resume_reading)

    def yield_reading(self) -> None:
        """Reads on in the next pass of the loop, so that a peer that floods does not starve other connections.

        uvloop reads up to 32 times in a row while each read fills the buffer.
        """
        if self.is_open and not self._is_on_hold:
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._is_on_hold:
            self.resume_reading()

    @property
    def _is_on_hold(self) -> bool:
        return self._flow_control is not None and self._flow_control.holds != 0

    def drain_waiting(self) -> None:
        """Starts handlers for the waiting messages; called by the loop."""
        if self.phase is Phase.CLOSED:  # all tasks have been cancelled at once
            return
        self.cork()
        try:
            self.consumer.drain()
        finally:
            self.uncork()
        self.move_on()

    def hold(self, reason: Hold) -> None:
        """Holds reading, as `FlowControl.hold`."""
        self.flow_control.hold(reason)

    def release(self, reason: Hold) -> None:
        """Releases reading, as `FlowControl.release`."""
        if self._flow_control is not None:
            self._flow_control.release(reason)

    def hold_reading(self) -> None:
        """Holds reading, because too many messages wait for handlers."""
        self.hold(Hold.INBOX)

    def release_reading(self) -> None:
        """Releases reading, because few messages wait for handlers."""
        self.release(Hold.INBOX)
        if self.frames is not None:
            self.frames.inbox.wake()

    def take_sign_of_life(self) -> bool:
        """Whether the peer has shown a sign of life since the last call: received bytes, or progress in reading.

        Progress counts only while reading is on hold because of WRITES, or while HIGH_WATER bytes wait for the peer,
        because a ping or its pong is then delayed. While reading is on hold for another reason, a full receive buffer
        is a sign as well, because nothing more can arrive.
        """
        alive, self.alive = self.alive, False
        holds = self._flow_control.holds if self._flow_control is not None else Hold(0)
        if holds:
            alive = self.flow_control.has_received() or alive
        if alive or (holds and not holds & Hold.WRITES):
            return alive or self.is_receive_buffer_full
        before, self._backlog = self._backlog, backlog(self.transport)
        return (holds != 0 or before.size >= HIGH_WATER) and self._backlog.has_moved(before)

    @property
    def is_receive_buffer_full(self) -> bool:
        """Whether the socket's receive buffer is full while reading is on hold, so that a pong may be stuck."""
        return self._flow_control is not None and self._flow_control.is_receive_buffer_full

    # Implemented by `ConnectionProtocol`

    def stop_handling(self) -> None:
        raise NotImplementedError

    def flush_and_move_on(self) -> None:
        raise NotImplementedError

    def none_waits(self) -> None:
        raise NotImplementedError

    def hook_failed(self, error: BaseException) -> None:
        raise NotImplementedError
