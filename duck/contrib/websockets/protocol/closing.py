"""The end of a connection after its close frame: when the transport is closed, and when it is aborted.

    EXCHANGING -- the peer broke a rule ------------------------> DRAINING
    any -- the peer's close frame, or the end of its stream ----> CLOSED

In every step the transport is aborted when the peer makes no progress for CLOSE_TIMEOUT seconds. A peer that still
reads waiting bytes makes progress, and each progress renews the deadline. Once both close frames have been exchanged
and no bytes wait, the deadline is LINGER seconds, because only the TLS shutdown still depends on the peer.

After the exchange of close frames a client waits up to LINGER seconds for the server to end the stream first
(RFC 6455, section 7.1.1). Then it closes the transport itself. An abort would end TLS without a close_notify, which
the server reports as a truncated stream.

A peer that broke a rule may be in the middle of sending. Its bytes are read and discarded until it has answered or has
ended the stream. Our side of the stream ends once the peer is quiet, or has sent LIMIT bytes. Closing the socket at
once would reset the connection, and could destroy the close frame in transit. A shutdown for writing at once has the
same effect behind a proxy: HAProxy and nginx end a tunnel at the server's end of stream, and reset a client that is
still sending.
"""

import asyncio
import enum
from typing import Any, Protocol

from ..codec import FIN, ReceiveBuffer
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection
from .loop import clock
from .transports import NO_BACKLOG, backlog, close_transport, end_stream

__all__ = ["Closing", "Drain", "close_event"]

_SAMPLES = 8  # checks for progress in one CLOSE_TIMEOUT
_LABELS = {int(code): str(int(code)) for code in CloseCode}
_LARGEST_CLOSE = 131  # bytes of the largest masked close frame


class _Step(enum.Enum):
    """The progress of the closing."""

    EXCHANGING = enum.auto()  # waits for the peer's close frame, or for the end of its stream
    DRAINING = enum.auto()  # discards the bytes of a peer that broke a rule
    CLOSED = enum.auto()  # the transport closes once its waiting bytes have left


_EXCHANGING, _CLOSED = _Step.EXCHANGING, _Step.CLOSED  # a look-up in the class takes several times as long


class Owner(Protocol):
    """The connection that is closing."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def transport(self) -> Any: ...
    @property
    def buffer(self) -> ReceiveBuffer: ...
    @property
    def lost(self) -> bool: ...
    @property
    def fd(self) -> int: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class Closing:
    """The closing of one connection's transport; created when a close frame has left or the stream has ended.

    Args:
        owner: The connection.
        timeout: Seconds without progress that the peer is granted.

    Attributes:
        LINGER: Seconds granted to a peer that has read all bytes.
    """

    LINGER = 1.0

    __slots__ = ("_abort", "_backlog", "_clock", "_drain", "_owner", "_progress", "_step", "_tick", "_timeout")

    def __init__(self, owner: Owner, timeout: float) -> None:
        transport, loop = owner.transport, owner.loop
        self._owner = owner
        self._timeout = timeout
        # The state of the socket is read only at the first check, because most connections end earlier.
        self._backlog = backlog(transport) if transport.get_write_buffer_size() else NO_BACKLOG
        self._progress = now = loop.time()  # time of the peer's last progress
        self._clock = clock(loop)
        self._tick = self._clock.set(loop, now + timeout / _SAMPLES, self)  # of the next check
        self._step = _EXCHANGING
        self._drain: Drain | None = None
        self._abort: asyncio.TimerHandle | None = None

    def move_on(self) -> None:
        """Closes the transport, or begins to drain it, once nothing is left to exchange."""
        owner = self._owner
        connection = owner.connection
        if not connection.is_over or owner.transport.is_closing():
            return
        if connection.ended or (connection.failed is None and not connection.client):
            self.close()
        elif connection.failed is not None and self._step is _EXCHANGING:
            self._step = _Step.DRAINING
            self._drain = Drain(owner, self)
            owner.transport.set_protocol(self._drain)

    def close(self) -> None:
        """Closes the transport after its waiting bytes have left."""
        self._step = _CLOSED
        owner = self._owner
        transport = owner.transport
        has_to_wait = owner.fd < 0 or transport.get_write_buffer_size() > 0
        close_transport(transport)
        if has_to_wait and not owner.lost:
            self._wait(min(self._timeout, self.LINGER) / _SAMPLES)

    def shut_down(self) -> None:
        """Ends our side of the stream, if it has not ended; the peer is expected to end its own."""
        transport = self._owner.transport
        if transport.is_closing():
            return
        if transport.can_write_eof():
            end_stream(transport)
        else:
            transport.close()

    def limit_timeout(self, timeout: float) -> None:
        """Lowers the time without progress that the peer is granted to at most `timeout` seconds."""
        self._timeout = min(self._timeout, timeout)
        self._wait(self._timeout / _SAMPLES)

    def abort_in(self, seconds: float) -> None:
        """Aborts the transport after `seconds`, regardless of progress."""
        self._clock.drop(self._tick, self)
        if self._abort is not None:
            self._abort.cancel()
        self._abort = self._owner.loop.call_later(seconds, self._owner.transport.abort)

    def stop(self) -> None:
        """Stops the timers, because the transport is lost."""
        self._clock.drop(self._tick, self)
        if self._abort is not None:
            self._abort.cancel()
        if self._drain is not None:
            self._drain.stop()

    def _wait(self, seconds: float) -> None:
        """Schedules the next check."""
        loop = self._owner.loop
        self._clock.drop(self._tick, self)
        self._tick = self._clock.set(loop, loop.time() + seconds, self)

    def wake(self) -> None:
        """Aborts the transport if the peer has made no progress within the timeout; called by the clock."""
        owner = self._owner
        now = owner.loop.time()
        before, self._backlog = self._backlog, backlog(owner.transport)
        if self._backlog.has_moved(before):
            self._progress = now
        patience = self._timeout
        is_done = self._is_exchanged and not self._backlog.size
        if is_done:
            patience = min(patience, self.LINGER)
        if now - self._progress < patience:
            self._wait(patience / _SAMPLES)
        elif is_done and self._step is _EXCHANGING:
            self.close()
        else:
            owner.transport.abort()

    @property
    def _is_exchanged(self) -> bool:
        """Whether the peer has answered or ended the stream, and the transport is closing."""
        connection = self._owner.connection
        answered = self._step is _CLOSED or connection.ended or connection.received_close is not None
        return answered and (connection.client or self._owner.transport.is_closing())


class Drain(asyncio.BufferedProtocol):
    """Replaces the protocol of a transport, and discards the bytes of the peer.

    A close frame is recognized only if it is a read of its own, as it is from a peer that was not sending.

    Attributes:
        QUIET: Seconds without a byte after which the peer counts as quiet; detected within twice that time.
        LIMIT: Bytes that are read from a peer that does not become quiet.
    """

    QUIET = 0.25
    LIMIT = 67108864

    def __init__(self, owner: Owner, closing: Closing) -> None:
        self._owner = owner
        self._closing = closing
        self._size = 0
        self._seen = 0  # the value of `_size` at the last check
        self._buffer = owner.buffer
        self._timer = owner.loop.call_later(self.QUIET, self._check)

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = self._buffer.unused()
        return self._buffer.window

    def buffer_updated(self, nbytes: int) -> None:
        self._size += nbytes
        if nbytes <= _LARGEST_CLOSE and _is_close_frame(self._buffer.window[:nbytes]):
            self.stop()
            self._closing.close()
        elif self._size > self.LIMIT:
            self.stop()
            self._closing.shut_down()

    def eof_received(self) -> None:
        self._owner.eof_received()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def stop(self) -> None:
        """Stops checking whether the peer is quiet."""
        self._timer.cancel()

    def _check(self) -> None:
        if self._size == self._seen:
            self._closing.shut_down()
        else:
            self._seen = self._size
            self._timer = self._owner.loop.call_later(self.QUIET, self._check)


def _is_close_frame(data: memoryview) -> bool:
    """Whether the bytes are exactly one close frame, of either role."""
    if len(data) < 2 or data[0] != FIN | OpCode.CLOSE:
        return False
    masked = data[1] >> 7
    return len(data) == 2 + 4 * masked + (data[1] & 0b01111111)


def close_event(connection: Connection) -> tuple[str, str, str]:
    """The event of a connection's end for `Counters.note`, with its code and the side that closed first.

    Peers could send thousands of different codes. To bound the number of labels, codes of a peer that RFC 6455 and its
    registry do not define are counted as "other".
    """
    if connection.own_code is not None:
        return "close", str(int(connection.own_code)), "local"
    if connection.received_close is None:
        return "close", _LABELS[CloseCode.ABNORMAL_CLOSURE], "none"
    return "close", _LABELS.get(connection.close_code or 0, "other"), "peer"
