"""Transports: helper functions for those of asyncio (descriptor, backlog, end of stream), and one without a socket."""

import asyncio
import contextlib
import enum
import sys
from asyncio.sslproto import SSLProtocolState
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, NamedTuple

if sys.platform != "win32":
    import fcntl
    import termios
if sys.platform == "linux":
    from socket import IPPROTO_TCP, TCP_INFO

    _BYTES_ACKED = slice(120, 128)  # tcpi_bytes_acked in struct tcp_info; missing before Linux 4.1

__all__ = [
    "HIGH_WATER",
    "NO_BACKLOG",
    "Backlog",
    "VirtualTransport",
    "abort_transport",
    "backlog",
    "close_transport",
    "discards",
    "end_stream",
    "plain_socket",
]

HIGH_WATER = 65536
"""Default high-water mark of asyncio's transports, in bytes: above it they pause their protocol."""


def plain_socket(transport: asyncio.BaseTransport) -> int:
    """The descriptor of the socket that carries the transport's bytes unchanged; -1 if there is none, as with TLS."""
    if sys.platform == "win32" or transport.get_extra_info("sslcontext") is not None:
        return -1
    socket = transport.get_extra_info("socket")
    return socket.fileno() if socket is not None else -1


class Backlog(NamedTuple):
    """The bytes that the peer of a transport has not received.

    Attributes:
        buffered: Bytes in the transport. A TLS transport does not count the bytes in the transport below it.
        queued: Bytes in the socket's send queue, where the system reports them, else 0.
        acknowledged: Bytes that the peer has acknowledged since the beginning, where the system reports them, else 0.
    """

    buffered: int
    queued: int
    acknowledged: int = 0

    @property
    def size(self) -> int:
        """The bytes that wait."""
        return self.buffered + self.queued

    def has_moved(self, before: "Backlog") -> bool:
        """Whether the peer has received bytes since `before`.

        The transport below TLS refills the send queue as fast as the peer empties it, so that only the count of
        acknowledged bytes shows progress.
        """
        return before.size > 0 and (
            self.buffered < before.buffered or self.queued < before.queued or self.acknowledged > before.acknowledged
        )


NO_BACKLOG = Backlog(0, 0)


def backlog(transport: asyncio.WriteTransport) -> Backlog:
    """Returns the bytes that the peer of a transport has not received."""
    buffered, queued, acknowledged = transport.get_write_buffer_size(), 0, 0
    socket = transport.get_extra_info("socket")
    if sys.platform != "win32" and socket is not None and socket.fileno() >= 0:
        with contextlib.suppress(OSError):  # not every system supports this for sockets
            queued = int.from_bytes(fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        if sys.platform == "linux" and (buffered or queued):
            with contextlib.suppress(OSError):  # a Unix socket has no such information
                information = socket.getsockopt(IPPROTO_TCP, TCP_INFO, _BYTES_ACKED.stop)
                acknowledged = int.from_bytes(information[_BYTES_ACKED], sys.byteorder)
    return Backlog(buffered, queued, acknowledged) if buffered or queued else NO_BACKLOG


def discards(transport: asyncio.WriteTransport) -> bool:
    """Whether a transport discards what is written to it. asyncio's transports then log a warning for each write.

    asyncio's TLS transport reports `is_closing` too late: a pass of the loop after the transport below it has failed,
    or, while reading is paused, long after the peer has closed.
    """
    if transport.is_closing():
        return True
    tls: Any = getattr(transport, "_ssl_protocol", None)
    return tls is not None and (
        tls._transport is None or tls._transport.is_closing() or tls._state is not SSLProtocolState.WRAPPED
    )


def close_transport(transport: asyncio.Transport) -> None:
    """Closes a transport, unless it is closing.

    A second `close` of asyncio's TLS transport would detach it from its connection: `abort` does nothing then, so that
    a peer which does not answer the TLS shutdown would keep the socket.
    """
    if not transport.is_closing():
        transport.close()


def abort_transport(transport: asyncio.Transport) -> None:
    """Aborts a transport, unless it is lost: asyncio's may have released its loop then.

    A plain transport that is closing and has no bytes left is lost, or will be in the next pass of the loop. A TLS
    transport may still wait for the peer.
    """
    is_tls = transport.get_extra_info("sslcontext") is not None
    if is_tls or not transport.is_closing() or transport.get_write_buffer_size():
        transport.abort()


def end_stream(transport: asyncio.Transport) -> None:
    """Ends our side of the stream; aborts if the peer has reset the connection."""
    try:
        transport.write_eof()
    except OSError:  # asyncio's transport passes on the error of shutdown(2)
        transport.abort()


class _End(enum.Enum):
    """The end of a transport: OPEN, ENDED, CLOSING, LOST. A state leads to any later one."""

    OPEN = enum.auto()  # bytes go both ways
    ENDED = enum.auto()  # the protocol writes no more, and still reads
    CLOSING = enum.auto()  # the protocol neither writes nor reads; waiting bytes may leave
    LOST = enum.auto()  # the connection no longer exists


_OPEN = _End.OPEN  # read for each write
_CLOSING = _End.CLOSING


class VirtualTransport(asyncio.Transport):
    """A transport without a socket; its owner moves the bytes.

        protocol -- write() --> outgoing() -> owner, then sent()
        protocol <------------- feed(), feed_eof(), lose() <- owner

    To its protocol it behaves like a transport of asyncio: `pause_writing` and `resume_writing` are called at the water
    marks, nothing is received while reading is paused, and the loop calls `connection_lost` once. Bytes count as
    waiting until the owner calls `sent`. Reading is paused until `connect` or `resume_reading`.

    Args:
        changed: Called after each `write`, `write_eof`, `close`, `abort`, `pause_reading` and `resume_reading`, so that
            the owner can act. It must not call the protocol.
        extra: The answers of `get_extra_info`.
        half_close: Whether `write_eof` is possible. If not, a protocol ends the connection as over TLS.

    Attributes:
        aborted: Whether the protocol has called `abort`.
    """

    def __init__(
        self,
        changed: Callable[[], object] | None = None,
        *,
        extra: Mapping[str, Any] | None = None,
        half_close: bool = False,
    ) -> None:
        super().__init__({} if extra is None else dict(extra))
        self._loop = asyncio.get_running_loop()
        self._changed = changed or _nothing
        self._half_close = half_close
        self._protocol: Any = None
        self._context = copy_context()
        self._incoming: deque[bytes | memoryview] = deque()  # fed while reading was paused
        self._eof_fed = self._eof_received = False
        self._reading = self._receiving = False
        self._outgoing: deque[bytes | memoryview] = deque()
        self._size = 0  # bytes in it
        self._high_water, self._low_water = HIGH_WATER, HIGH_WATER // 4
        self._writing_paused = False
        self._end = _End.OPEN
        self.aborted = False

    # For the owner

    @property
    def ended(self) -> bool:
        """Whether the protocol has called `write_eof` or `close`. No bytes follow `outgoing()` then."""
        return self._end is not _OPEN

    @property
    def lost(self) -> bool:
        """Whether the connection is lost: `connection_lost` has been called or scheduled."""
        return self._end is _End.LOST

    def connect(self, protocol: asyncio.BaseProtocol) -> None:
        """Sets the protocol, calls its `connection_made`, and begins to read."""
        self.set_protocol(protocol)
        protocol.connection_made(self)
        self.resume_reading()

    def outgoing(self, limit: int | None = None) -> bytes | memoryview:
        """Returns the next bytes to send: those of one `write`, or the first `limit` of them; empty if none wait."""
        chunk = self._outgoing[0] if self._outgoing else b""
        return chunk if limit is None or len(chunk) <= limit else memoryview(chunk)[:limit]

    def sent(self, size: int) -> None:
        """Removes the first `size` bytes of `outgoing()`. May call the protocol's `resume_writing`."""
        chunk = self._outgoing.popleft()
        if size < len(chunk):
            self._outgoing.appendleft(memoryview(chunk)[size:])
        self._size -= size
        if self._writing_paused and self._size <= self._low_water:
            self._writing_paused = False
            self._protocol.resume_writing()
        if self._end is _CLOSING and not self._size:
            self.lose()

    def feed(self, data: bytes | memoryview) -> None:
        """Delivers bytes to the protocol, now or once it resumes reading.

        Must be called from a callback of the loop while no task is running: a view handles messages in this call.
        """
        self._incoming.append(data)
        self._receive()

    def feed_eof(self) -> None:
        """Ends the fed stream. The protocol receives the end after the bytes, and may keep its own side open."""
        self._eof_fed = True
        self._receive()

    def lose(self, error: Exception | None = None) -> None:
        """Ends the connection, and drops all waiting bytes."""
        if self.lost:
            return
        self._end = _End.LOST
        self._reading = False
        self._incoming.clear()
        self._outgoing.clear()
        self._size = 0
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error, context=self._context)

    def _receive(self) -> None:
        if not self._receiving:  # else the protocol has paused and resumed reading within `_receive_all`
            self._receiving = True
            try:
                self._context.copy().run(self._receive_all)
            except Exception as error:
                message = "the protocol of a virtual transport failed"
                details = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
                self._loop.call_exception_handler(details)
                self.lose(error)
            finally:
                self._receiving = False

    def _receive_all(self) -> None:
        while self._reading and self._incoming:
            data = self._incoming.popleft()
            protocol = self._protocol
            if not isinstance(protocol, asyncio.BufferedProtocol):
                protocol.data_received(bytes(data))
                continue
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(data), len(buffer))
            buffer[:size] = data[:size]
            if size < len(data):
                self._incoming.appendleft(memoryview(data)[size:])
            protocol.buffer_updated(size)
        if self._reading and self._eof_fed and not self._eof_received:
            self._eof_received = True
            if not self._protocol.eof_received():
                self.close()

    # For the protocol

    def write(self, data: Any) -> None:
        if not data or self._end is not _OPEN:
            return
        self._outgoing.append(data if isinstance(data, bytes) else bytes(data))
        self._size += len(self._outgoing[-1])
        self._changed()
        if self._size > self._high_water and not self._writing_paused and self._protocol is not None:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._half_close:
            raise NotImplementedError("this transport has no half-close; use close()")
        if not self.ended:
            self._end = _End.ENDED
            self._changed()

    def can_write_eof(self) -> bool:
        return self._half_close

    def close(self) -> None:
        if self.is_closing():
            return
        self._end = _End.CLOSING
        self._reading = False
        if not self._size:
            self.lose()
        self._changed()

    def abort(self) -> None:
        self.aborted = True
        self.lose()
        self._changed()

    def is_closing(self) -> bool:
        return self._end in (_End.CLOSING, _End.LOST)

    def pause_reading(self) -> None:
        self._reading = False
        self._changed()

    def resume_reading(self) -> None:
        if self._reading or self.is_closing():
            return
        self._reading = True
        self._context = copy_context()
        if self._incoming or self._eof_fed:
            self._loop.call_soon(self._receive, context=self._context)
        self._changed()

    def is_reading(self) -> bool:
        return self._reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low_water, self._high_water

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"the low water mark ({low}) is from 0 to the high one ({high})")
        self._high_water, self._low_water = high, low


def _nothing() -> None:
    pass
