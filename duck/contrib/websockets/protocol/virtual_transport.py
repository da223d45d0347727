"""`VirtualTransport`: a transport without a socket, for ASGI servers and tests."""

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

from .transports import HIGH_WATER

__all__ = ["VirtualTransport"]


class _End(enum.Enum):
    """The end of a transport: OPEN, ENDED, CLOSING, LOST. A state leads to any later one."""

    OPEN = enum.auto()  # bytes go both ways
    ENDED = enum.auto()  # the protocol writes no more, and still reads
    CLOSING = enum.auto()  # the protocol neither writes nor reads; waiting bytes may leave
    LOST = enum.auto()  # the connection no longer exists


_OPEN, _ENDED, _CLOSING, _LOST = _End  # a look-up in the class takes several times as long


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
        self._end = _OPEN
        self.aborted = False

    # For the owner

    @property
    def ended(self) -> bool:
        """Whether the protocol has called `write_eof` or `close`. No bytes follow `outgoing()` then."""
        return self._end is not _OPEN

    @property
    def lost(self) -> bool:
        """Whether the connection is lost: `connection_lost` has been called or scheduled."""
        return self._end is _LOST

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
        if self.lost:  # in the call that has delivered them
            return
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
        self._end = _LOST
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
            self._end = _ENDED
            self._changed()

    def can_write_eof(self) -> bool:
        return self._half_close

    def close(self) -> None:
        if self.is_closing():
            return
        self._end = _CLOSING
        self._reading = False
        if not self._size:
            self.lose()
        self._changed()

    def abort(self) -> None:
        self.aborted = True
        self.lose()
        self._changed()

    def is_closing(self) -> bool:
        return self._end is _CLOSING or self._end is _LOST

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
