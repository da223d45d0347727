"""One connection between an asyncio transport and an endpoint: its start, the transport's callbacks, and its end.

    HotPath (the codec) <- Sending (sending.py) <- Receiving (receiving.py) <- ConnectionProtocol

Views, clients and ASGI sessions create a `ConnectionProtocol` after the handshake. Every connection ends in the same
order: a close frame leaves, `Closing` handles the transport until it is lost, then `Hooks` ends the handlers and calls
`on_close`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ..exceptions import ConnectionClosed
from ..frame import Frame
from ..logging import log_failure, logger
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection
from ..sansio.payloads import check_close
from . import stepping
from .closing import Closing, close_event
from .flow_control import Hold
from .hooks import Hooks
from .inbox import Inbox
from .interfaces import Endpoint
from .phases import Phase
from .receiving import Receiving
from .stream_queue import StreamQueue
from .transports import HIGH_WATER, close_transport, plain_socket

__all__ = ["ConnectionProtocol"]

T = TypeVar("T")

_CONNECTING, _OPEN, _CLOSING, _LOST, _CLOSED = Phase  # a look-up in the class takes several times as long
_NO_STATUS = int(CloseCode.NO_STATUS_RCVD)


class ConnectionProtocol(Receiving, asyncio.BufferedProtocol):
    """One connection of one endpoint.

    Args:
        endpoint: The view, or an ASGI session.
        connection: The rules, before anything has been received.
        handle: The handler, called with (payload, opcode) of each message.
        pull: The view's own receive loop, which pulls frames; replaces `handle`.
        send_frame: The view's own method, which sends everything that the view sends.
        queue: The queue of messages for tasks that ask for them, or for `on_stream`; replaces `handle`.

    Attributes:
        terminated: Whether the connection ends without a wait for the peer.
    """

    __slots__ = ("_closed", "_closing", "_hooks", "_log_close", "_pull", "_when_lost", "terminated")

    data_received = None  # uvloop looks it up, and catches an exception if there is none

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        handle: Callable[[bytes, OpCode], Awaitable[None]] | None = None,
        pull: Callable[[], Awaitable[None]] | None = None,
        send_frame: Callable[[Frame], Awaitable[None]] | None = None,
        queue: Inbox | StreamQueue | None = None,
    ) -> None:
        super().__init__(endpoint, connection, handle, pull, send_frame, queue)
        self._pull = pull
        self._closing: Closing | None = None
        self._hooks: Hooks | None = None
        self._when_lost: tuple[Callable[[Any], object], ...] = ()
        self._log_close = True
        self._closed: asyncio.Future[None] | None = None
        self.terminated = False

    def start(
        self,
        early: bytes,
        on_open: Callable[[], Awaitable[None]] | None = None,
        on_close: Callable[[Frame | None], Awaitable[None]] | None = None,
        heartbeat: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Starts the connection: `on_open`, then messages.

        Args:
            early: Bytes that were received together with the handshake.
            on_open: The view's hook; None if it does nothing.
            on_close: The view's hook; None if it does nothing.
            heartbeat: The view's own heartbeat loop.
        """
        if on_close is not None:
            self.hooks.on_close = on_close
        if self.phase is _CONNECTING:
            self.phase = _OPEN
        self.update_direct()
        if heartbeat is None:
            self.heartbeat.start()
        if on_open is None and heartbeat is None and self._pull is None:
            self.consumer.open(None)
        else:
            self._start_hooks(on_open, heartbeat)
        if early:
            # In its own callback, because messages must not be delivered while a task is running. Reading is on hold,
            # so that later bytes cannot overtake these.
            self.flow_control.hold(Hold.EARLY)
            self.loop.call_soon(self._receive_early, early)
        elif self._flow_control is None or not self._flow_control.holds:
            self.resume_reading()
        if not self.connection.is_writable:
            self.move_on()

    def _start_hooks(
        self, on_open: Callable[[], Awaitable[None]] | None, heartbeat: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Starts the hooks of a view; the messages that they send at once leave in one write."""
        pull, self._pull = self._pull, None  # a method of the view, which would keep it alive
        self.cork()
        try:
            if heartbeat is not None:
                self.hooks.start_heartbeat(heartbeat)
            if pull is None:
                try:
                    self.consumer.open(on_open)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # from a hook that is not a coroutine function
                    self.hook_failed(error)
            else:
                self.consumer.open(None)
                self.hooks.start_receiving(pull)
        finally:
            self.uncork()

    def apply_settings_soon(self) -> None:
        """Has the heartbeat apply a setting that is about to change; may be called from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.heartbeat.renew)

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # uvloop's are not instances of asyncio.Transport
        self.fd = plain_socket(transport)
        self.queued = True
        if self.counters is not None:
            self.counters.opened += 1
        if self.endpoint.WRITE_LIMIT != HIGH_WATER:
            self.transport.set_write_buffer_limits(self.endpoint.WRITE_LIMIT)

    def eof_received(self) -> None:
        self.connection.receive_eof()
        self.direct_in = self.direct_out = False
        self.move_on()

    def pause_writing(self) -> None:
        if self._slow_consumer is None:
            self.writes_paused = True
        else:
            self._slow_consumer.lags = True
            self.update_direct()
        self.note_write_buffer()
        # The handlers of a client that does not read are held too, so that neither side accumulates data. A client
        # itself reads on: two ends that both waited for the other to read would wait forever.
        if not self.connection.client:
            self.flow_control.hold(Hold.WRITES)

    def resume_writing(self) -> None:
        self.writes_paused = False
        if self._slow_consumer is not None:
            self._slow_consumer.lags = False
            self.update_direct()
        self.alive = True
        self.release(Hold.WRITES)
        self.answer_ping()
        if not self.corked:
            self.flush()  # data gathered while paused
        # In a later callback. Otherwise handlers that send continuously would refill the buffer at once, and hold
        # reading before the loop has checked for received bytes.
        self.loop.call_soon(self._wake_waiters)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.phase = _LOST
        if self.connection.close_code is None:
            self.connection.loss = exc
        self.connection.receive_eof()
        if self.counters is not None:
            self.counters.note(close_event(self.connection))
        self.direct_out = False
        self.heartbeat.stop()
        if self.heartbeat.awaited_pings:
            self.heartbeat.fail(self.closed_error)
        if self._closing is not None:
            self._closing.stop()
            self._closing = None
        if self._flow_control is not None:
            self._flow_control.stop()
        if self._hooks is not None:
            self._hooks.stop_heartbeat()
        if self._waiters:
            self._wake_waiters()
        if self._sender is not None:
            self._sender.lost()
        if self.frames is not None:
            self.frames.inbox.end()
        if self.queue is not None:
            self.queue.end()
        consumer = self.consumer
        if self._hooks is None and not (consumer.workers or consumer.waiting or consumer.decoding):
            consumer.stop()
            try:
                self.report_end()
            finally:  # even where a filter of the log raises
                self.report_closed()
        else:
            stepping.start_task(self.loop, self.hooks.finish())

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Starts to close; does nothing if closing has started.

        Raises:
            TypeError, ValueError: See `check_close`.
        """
        if code != _NO_STATUS:
            check_close(code, reason)
        connection = self.connection
        if not connection.is_open:
            return
        if self.loop.is_closed():  # its transport cannot be closed any more
            connection.receive_eof()
            self.update_direct()
            return
        if self.frames is not None:
            self.frames.inbox.drop_messages()
        self.stop_handling()
        if self._sender is not None and self._sender.must_finish:
            connection.prepare_close(code, reason)
            self.update_direct()
            self._sender.close_behind(partial(self._close, code, reason))
        else:
            self._close(code, reason)

    def _close(self, code: int, reason: str = "") -> None:
        self.connection.close(code, reason)
        if self.connection.needs_response:
            self.connection.respond()
        self.flush_and_move_on()

    def flush_and_move_on(self) -> None:
        """Writes and continues the closing, unless corked. If corked, the end of the read does both."""
        if not self.corked:
            self.flush()
            self.move_on()

    def stop_handling(self) -> None:
        """Starts no more handlers, because the connection closes for another reason than the peer's close frame."""
        left = self.consumer.stop()
        if left:
            self.note_unhandled(left)
            logger.info("%r: closed; %d waiting messages are not handled", self.endpoint._label, left)

    def note_unhandled(self, number: int) -> None:
        """Counts received messages that are not handled."""
        if self.counters is not None:
            self.counters.note(("dropped", "closing"), number)

    def close_with(self, payload: bytes) -> None:
        """`close` with the payload of a close frame.

        Raises:
            ValueError: The payload has more than 125 bytes, a code that may not be sent, or a reason that is not UTF-8.
        """
        code = int(CloseCode.NO_STATUS_RCVD)
        if len(payload) > 125:
            raise ValueError(f"a control frame has at most 125 bytes, not {len(payload)}: shorten its payload")
        if payload:
            code = int.from_bytes(payload[:2])
            check_close(code)
        self.close(code, payload[2:].decode())

    def move_on(self) -> None:
        """Continues the closing of the connection, if it has begun; may be called at any time."""
        connection, transport = self.connection, self.transport
        if connection.is_writable or self.lost:
            return
        self.phase = _CLOSING
        if self._closing is None:
            exchanged = connection.ended or (connection.is_over and connection.failed is None and not connection.client)
            if exchanged and self.fd >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
                transport.close()  # no bytes wait, so the transport closes at once
                return
        (self._closing or self._begun_closing()).move_on()

    @property
    def close_timeout(self) -> float:
        """CLOSE_TIMEOUT; FLUSH_TIMEOUT if it is a property that fails or gives no number, so that the end comes."""
        try:
            return float(self.endpoint.CLOSE_TIMEOUT)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the server
            log_failure(error, "%r: error in CLOSE_TIMEOUT of %s", self.endpoint._label, type(self.endpoint).__name__)
            return Hooks.FLUSH_TIMEOUT

    def _begun_closing(self) -> Closing:
        if self._closing is None:
            self._closing = Closing(self, self.close_timeout)
            self.heartbeat.stop()
            if self._flow_control is not None:
                self._flow_control.release(Hold.INBOX | Hold.FRAMES | Hold.WRITES | Hold.PARTS)
            if self.queue is not None:
                self.queue.end()
            self.endpoint._connection_closing()
        return self._closing

    def shut_down(self, code: int, timeout: float) -> None:
        """Closes the connection for a server that stops. A peer that makes progress is not interrupted.

        Args:
            timeout: Seconds without progress after which the transport is aborted.
        """
        self.close(code)
        if not self.lost:
            self._begun_closing().limit_timeout(timeout)

    async def drain(self, patience: float) -> None:
        """Waits up to `patience` seconds for the running handlers, except a caller among them. No other one starts."""
        self.stop_handling()
        workers = {*self.consumer.workers} - {asyncio.current_task()}
        if workers:
            await asyncio.wait(workers, timeout=patience)

    def terminate(self) -> None:
        """Closes without waiting for the peer; running handlers are cancelled."""
        self.terminated = True
        if self.loop.is_closed():
            self.close()
            return
        self.stop_handling()
        self._close(CloseCode.GOING_AWAY)
        if not self.lost:
            self.flush()  # within a read, whose end would be too late for the close frame
            close_transport(self.transport)
            self._begun_closing().abort_in(Hooks.FLUSH_TIMEOUT)
        if self.phase is not _CLOSED:
            self.hooks.cancel()

    @property
    def running(self) -> set["asyncio.Task[None]"]:
        """The tasks of hooks and of `create_task` that have not ended."""
        return {*self.consumer.workers} if self._hooks is None else self._hooks.running()

    @property
    def closed(self) -> "asyncio.Future[None]":
        """A future that completes when every hook has ended (phase CLOSED); created on demand."""
        if self._closed is None:
            self._closed = self.loop.create_future()
            if self.phase is _CLOSED:
                self._closed.set_result(None)
        return self._closed

    @closed.setter
    def closed(self, future: "asyncio.Future[None]") -> None:
        self._closed = future

    async def until_closed(self) -> None:
        """Waits until the transport is lost and every hook has ended.

        Called by a hook, it waits only until the transport is lost, because a hook cannot wait for its own end.
        """
        if self.phase is _CLOSED or self.loop.is_closed():
            return
        if not self.closed.done():
            await asyncio.sleep(0)  # a hook is registered as running at its first wait
        if self._is_called_by_hook:
            await self.until_lost()
        elif not self.closed.done():
            await asyncio.shield(self.closed)

    @property
    def _is_called_by_hook(self) -> bool:
        task, hooks = asyncio.current_task(), self._hooks
        return task in self.consumer.workers or (hooks is not None and (task in hooks.tasks or task in hooks.started))

    async def until_lost(self) -> None:
        """Waits until the transport is lost."""
        while not (self.lost or self.loop.is_closed()):
            await self._wait()

    # Hooks

    def omit_at_end(self, on_close: bool, log: bool) -> None:
        """Has the end of the connection omit the call of `on_close`, or its log record."""
        if on_close and self._hooks is not None:
            self._hooks.on_close = None
        if log:
            self._log_close = False

    def cancel_readers(self) -> None:
        """Cancels the tasks of the connection if they may wait for messages, because the endpoint has closed it."""
        if self._hooks is not None and self.is_read_by_tasks:
            self._hooks.cancel()

    @property
    def hooks(self) -> Hooks:
        """The tasks beside the message handlers; created on demand, because most connections never need it."""
        if self._hooks is None:
            self._hooks = Hooks(self)
        return self._hooks

    def create_task(self, coroutine: Coroutine[Any, Any, T], name: str | None) -> "asyncio.Task[T]":
        """Starts a task that ends with the connection.

        Raises:
            ConnectionClosed: The connection is lost.
            RuntimeError: Another thread has called it.
        """
        if self.lost:
            raise self.closed_error()
        if self.is_elsewhere:
            raise RuntimeError("a task is created in the thread of the connection's loop, by one of its callbacks")
        return self.hooks.create_task(coroutine, name)

    def none_waits(self) -> None:
        """Notes that no message waits for a handler."""
        if self._hooks is not None and not self.consumer.waiting:
            self._hooks.none_waits()

    def hook_failed(self, error: BaseException) -> None:
        """Logs the exception of a hook, and closes with a reason that reveals no details.

        Two cases are exempt: a cancelled task, whose canceller is responsible; and a hook that tried to send after the
        end of the connection, which is not a fault of the hook.
        """
        if stepping.is_cancelled(error):
            return
        if not self.connection.is_open and _is_connection_closed(error):
            return
        self.note_error()
        if not hasattr(self, "endpoint"):  # of a message in parts; the connection has ended meanwhile
            log_failure(error, "a message in parts has failed at the end of its connection")
            return
        try:
            log_failure(error, "%r: error in a hook of %s", self.endpoint._label, type(self.endpoint).__name__)
            self.stop_handling()
        finally:  # even where a filter of the log raises
            self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def when_lost(self, callback: Callable[[Any], object]) -> None:
        """Registers a callback for the loss of the connection. It is called once, with the endpoint.

        Raises:
            ConnectionClosed: The connection is closing or closed.
        """
        if not self.connection.is_open:
            raise self.closed_error()
        if callback not in self._when_lost:
            self._when_lost += (callback,)

    def report_end(self) -> None:
        """Reports that every message has been passed to its handler."""
        if self._when_lost:
            callbacks, self._when_lost = self._when_lost, ()
            for callback in callbacks:
                callback(self.endpoint)
        self.endpoint._connection_lost(self._log_close)

    def report_closed(self, hung: bool = False) -> None:
        """Reports that every hook has ended, or, with `hung`, that the wait for the last ones has ended."""
        self.phase = _CLOSED
        if self._closed is not None and not self._closed.done():  # a host may have cancelled it
            self._closed.set_result(None)
        if not hung and (self._sender is None or self._sender.is_idle):
            # A view still reads the close code and similar facts. Without reference cycles all other objects are freed
            # at once, not by the garbage collector.
            self.heartbeat.forget()
            self.consumer.forget()
            if self._sender is not None:
                self._sender.forget()
            if self._hooks is not None:
                self._hooks.forget()
            self._hooks = self._flow_control = self._sender = self.frames = None
            del self.endpoint


def _is_connection_closed(error: BaseException) -> bool:
    """Whether an exception, or each one of a group, reports that the connection has ended."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(ConnectionClosed)[1] is None
    return isinstance(error, ConnectionClosed)
