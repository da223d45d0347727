"""The hot path, of each read and of each plain message, in plain Python: the specification of `hotpath.pxi`.

`HotPath` is the base of `protocol.sending.Sending`, and so of every connection. It is the same for both roles. Only
the reader and the writer depend on the role: a client has a `MaskingWriter`, and its reader accepts only unmasked
frames.
"""

import threading
from collections.abc import Coroutine, Hashable, Iterable, Sequence
from time import perf_counter
from typing import Any

from .burst import Burst
from .counters import Counters
from .header import payload_size
from .numbers import (
    BURST_LIMIT,
    BURST_MEMBERS,
    CORK_LIMIT,
    CORK_TIME,
    FAIR_SHARE,
    FIN,
    FLOOD_READ,
    MESSAGE_COST,
    NOT_TEXT,
    RSV1,
    SEND_CREDIT,
)
from .payload import utf8_state
from .reader import MessageReader
from .sent import SENT
from .writer import FrameWriter

__all__ = ["HotPath", "ReceiveBuffer", "fan_out"]


class ReceiveBuffer:
    """The buffer into which the connections of one loop receive.

    Args:
        size: Bytes.

    Attributes:
        data: The bytes; without content between two reads.
        window: A view of `data` for the loop. asyncio's TLS slices it to append bytes.
        in_use: Whether a read is being handled. If a handler runs the loop, other connections need another buffer.
    """

    __slots__ = ("data", "in_use", "window")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.window = memoryview(self.data)
        self.in_use = False

    def unused(self) -> "ReceiveBuffer":
        """Returns this buffer, or a new one while it is in use."""
        return ReceiveBuffer(len(self.data)) if self.in_use else self


class HotPath:
    """The base of `ConnectionProtocol`: the path of each read and of each plain message, without special cases.

    Args:
        reader: Takes received bytes.
        writer: Takes messages to be sent.
        buffer: The buffer to receive into.
        burst: The burst of the loop.
        counters: The counters of the connection; None for no counting.
        deflate: The permessage-deflate of the connection; None for no compression.

    Attributes:
        reader: Parses received bytes.
        writer: Gathers frames to be sent.
        consumer: The consumer of received messages: a `Dispatcher`, an `Inbox`, or another one.
        buffer: The buffer to receive into.
        burst: The burst of the loop.
        counters: Counts compressed messages and the time of handlers; None for no counting.
        transport: The transport to write to.
        alive: Set by every read.
        corked: Whether sent frames are gathered until the read has been handled.
        lost: Whether the transport is lost.
        direct_in: Whether messages go straight from the reader to the consumer.
        direct_out: Whether messages go straight from `send` to the writer.
        writes_paused: Whether the transport's buffer is above its high-water mark.
        max_size: Bytes of the largest message that may go straight to the writer.
        deflate: The permessage-deflate of the connection; None for no compression.
        agreement: Its `agreement`, from the first `Prepared` message on; None before.
        threshold: Bytes from which messages are compressed.
        thread: The identifier of the loop's thread.
        fd: The descriptor of the socket, to which only the compiled codec writes directly; -1 if it must not.
        queued: Whether the transport's buffer may contain bytes.
        busy: Whether a message is being written or compressed. A send that interrupts it, from a signal handler
            or a finalizer, is queued.
        broken: Whether written bytes are incomplete, so that nothing may follow them.
    """

    reader: MessageReader
    writer: FrameWriter
    consumer: Any
    buffer: ReceiveBuffer
    burst: Burst
    counters: Counters | None = None
    transport: Any
    alive: bool = False
    corked: bool = False
    _corked_since: float
    lost: bool = False
    direct_in: bool = False
    direct_out: bool = False
    writes_paused: bool = False
    max_size: int
    deflate: Any
    agreement: Hashable = None
    threshold: int
    thread: int
    fd: int
    queued: bool = False
    busy: bool = False
    _direct: bool = False  # whether the read at hand goes straight into a message
    _floods: bool = False  # whether a read has taken FAIR_SHARE, and later ones are of FLOOD_READ, not less
    _flushing: bool = False
    broken: bool = False

    def __init__(
        self,
        reader: MessageReader,
        writer: FrameWriter,
        buffer: ReceiveBuffer,
        burst: Burst,
        counters: Counters | None,
        deflate: Any,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.buffer = buffer
        self.burst = burst
        self.counters = reader.counters = writer.counters = counters
        self.deflate = deflate
        self.threshold = 0 if deflate is None else deflate.threshold
        self.thread = threading.get_ident()
        self.fd = -1

    @property
    def is_elsewhere(self) -> bool:
        """Whether the caller runs in another thread, or has interrupted a send, as a signal handler does."""
        return self.thread != threading.get_ident() or self.busy

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        """Returns the buffer for the loop's next read."""
        self.buffer = buffer = self.buffer.unused()
        target = self.reader.get_buffer(buffer.data)
        self._direct = target is not buffer.data
        if self._direct:
            return target
        return buffer.window[:FLOOD_READ] if self._floods else buffer.window

    def buffer_updated(self, nbytes: int) -> None:
        """Handles the loop's read of `nbytes`."""
        reader, buffer = self.reader, self.buffer
        self.alive = buffer.in_use = True
        begun = perf_counter()
        self.cork()
        try:
            messages = reader.buffer_updated(buffer.data, nbytes)
            self.burst.several = len(messages) > 1
            if reader.control or reader.error or (messages and (self.writer.closed or not self.direct_in)):
                self.received(messages)
            elif messages:
                self.consumer.deliver(messages)
        finally:
            buffer.in_use = self.burst.several = False
            self.uncork()
        is_long = nbytes >= FLOOD_READ and not self._direct
        self._floods = is_long and (self._floods or perf_counter() - begun >= 0.001 * FAIR_SHARE)
        if self._floods:
            self.yield_reading()
        if self.writer.closed:
            self.move_on()

    def cork(self) -> None:
        """Starts to gather frames."""
        self.corked = True
        self._corked_since = perf_counter()

    def uncork(self) -> None:
        """Stops gathering, and writes the frames."""
        self.corked = False
        self.flush()

    def flush_if_old(self) -> None:
        """Writes the gathered frames, and those of a burst, if the oldest has waited for too long."""
        if self.writer.size and (now := perf_counter()) - self._corked_since > 0.001 * CORK_TIME:
            self.flush()
            self._corked_since = now
        if self.burst.gathering:
            self.burst.flush_if_old()

    def send(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        """Sends a message; see `WebSocketView.send`."""
        if self.direct_out and threading.get_ident() == self.thread and isinstance(opcode, int) and 1 <= opcode <= 2:
            self._expect_more()
            payload = data.encode() if type(data) is str else data
            writer = self.writer
            if type(payload) is bytes and len(payload) <= self.max_size and not (writer.closed or writer.fragmenting):
                if opcode == 1 and payload is data and utf8_state(payload):
                    raise ValueError(NOT_TEXT)
                most = self._most_waiting(len(payload))
                if self.deflate is not None and len(payload) >= self.threshold and (opcode == 1 or self.deflate.binary):
                    self._write_compressed(opcode, payload)
                else:
                    writer.write(FIN | opcode, payload)
                if writer.size > most:
                    self.flush()
                self.burst.credit -= len(payload) + MESSAGE_COST
                if self.writes_paused:
                    return self.until_writable()
                return self.pace() if self.burst.credit < 0 else SENT
        return self.send_otherwise(data, opcode)

    def write_prepared(self, message: Any) -> None:
        """Sends a `Prepared` message on the fast path, whose conditions are those of `fan_out`."""
        if self.deflate is None or message.size < self.threshold or (message.opcode == 2 and not self.deflate.binary):
            self._write_serialized(message.frame)
        else:
            self._write_prepared_compressed(message)
        self.burst.credit -= message.size + MESSAGE_COST

    def _write_prepared_compressed(self, message: Any) -> None:
        following = False
        self.busy = True
        self.direct_out = False
        try:
            if self.agreement is None:
                self.agreement = self.deflate.agreement
            found = message.compressed.get(self.agreement)
            if found is None:
                found = message.compress_with(self.deflate)
            frame, context = found
            following = True
            self.deflate.follow(context)
            self._write_serialized(frame)
            if self.counters is not None:
                self.counters.note_deflated(payload_size(frame), message.size)
        except BaseException:
            if following:
                self.cut()
            raise
        finally:
            self.busy = False
            self.direct_out = not self.broken

    def _write_serialized(self, frame: bytes) -> None:
        most = self._most_waiting(len(frame))
        self.writer.write_serialized(frame)
        if self.writer.size > most:
            self.flush()

    def _expect_more(self) -> None:
        """Begins a burst if the read at hand has several messages.

        This runs code of the loop, so a signal handler may send meanwhile: the state of the writer is checked later.
        """
        if self.burst.several and not self.corked:
            self.burst.begin()

    def _most_waiting(self, size: int) -> int:
        """Bytes that may wait in the writer, once it has taken a message of `size` bytes; 0 to write at once."""
        # A full transport gets fewer and larger chunks, because asyncio's transport adds up all at each write.
        if self.corked or self.writes_paused:
            return CORK_LIMIT
        burst = self.burst
        if not burst.gathering or size >= BURST_LIMIT or self._flushing or self.broken or self.lost:
            return 0
        if not self.writer.size:
            burst.add(self)
        return BURST_LIMIT

    def pace(self) -> Coroutine[Any, Any, None]:
        """Returns the result of `send` when there is nothing to wait for: `rest()` if the loop is held for too long.

        Otherwise a sender whose peers read everything would hold the loop, and starve other connections.
        """
        burst = self.burst
        now = perf_counter()
        burst.credit = SEND_CREDIT
        if burst.looked and now - burst.looked >= 0.001 * FAIR_SHARE:
            burst.looked = now
            return self.rest()
        burst.looked = burst.looked or now
        return SENT

    def renew_share(self) -> None:
        """Gives a handler that starts its own share of the loop's time, so that one that sends little never waits.

        If it waited, later handlers would start before it has sent everything, and their replies would leave first.
        """
        self.burst.credit = SEND_CREDIT
        self.burst.looked = 0.0

    def _write_compressed(self, opcode: int, payload: bytes) -> None:
        compressed = False
        size = len(payload)
        # A signal handler may run during the compression, and call `send`.
        self.busy = True
        self.direct_out = False
        try:
            payload = self.deflate.compress(payload)
            compressed = True
            self.writer.write(FIN | RSV1 | opcode, payload)
            if self.counters is not None:
                self.counters.note_deflated(len(payload), size)
        except BaseException:
            if compressed:
                self.cut()  # later messages would refer to one that the peer has not received
            raise
        finally:
            self.busy = False
            self.direct_out = not self.broken

    def flush(self) -> None:
        """Writes the gathered frames to the transport."""
        writer = self.writer
        if not writer.size or self._flushing:
            return
        self._flushing = True
        try:
            while writer.size:  # a signal handler may have added frames meanwhile
                chunks = writer.take()
                if self.lost:
                    continue
                if self.broken:
                    self.transport.abort()  # again: a call of `cut` may have failed at the limit of recursion
                else:
                    self.write_chunks(chunks)
        except BaseException:
            self.cut()
            raise
        finally:
            self._flushing = False

    def cut(self) -> None:
        """Ends the connection without a close frame, because written bytes are incomplete."""
        self.broken = True
        self.direct_out = False
        self.transport.abort()

    # Methods of the subclass

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        raise NotImplementedError

    def yield_reading(self) -> None:
        raise NotImplementedError

    def move_on(self) -> None:
        raise NotImplementedError

    def send_otherwise(self, data: Any, opcode: int) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    def rest(self) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    def until_writable(self) -> Coroutine[Any, Any, None]:
        raise NotImplementedError

    def write_chunks(self, chunks: Sequence[bytes | memoryview]) -> None:
        raise NotImplementedError


def fan_out(members: Iterable[Any], message: Any) -> tuple[int, list[Any]]:
    """Sends a `Prepared` message to each member on the fast path, where that is possible.

    Args:
        members: Views, or other objects whose `_protocol` is a HotPath.
        message: A `Prepared`.

    Returns:
        The number of members to which it was sent, and the members that need the slow path: clients, whose frames are
        masked, and connections that belong to other threads, have a full transport, are closing, or failed in writing.
    """
    thread = threading.get_ident()
    taken = 0
    burst = None
    rest = []
    for member in members:
        protocol = getattr(member, "_protocol", None)
        if isinstance(protocol, HotPath) and protocol.direct_out and protocol.thread == thread:
            try:
                protocol._expect_more()
                if (
                    type(protocol.writer) is FrameWriter
                    and not (protocol.writes_paused or protocol.writer.closed or protocol.writer.fragmenting)
                    and message.size <= protocol.max_size
                ):
                    protocol.write_prepared(message)
                    taken += 1
                    burst = protocol.burst
                    continue
            except Exception:
                pass
        rest.append(member)
    if burst is not None:
        if burst.gathering:
            burst.flush_if_old()
        elif taken >= BURST_MEMBERS:
            burst.begin_after_broadcast()
    return taken, rest
