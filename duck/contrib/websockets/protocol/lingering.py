"""A lingering close: the peer can still read our last bytes, such as the response to a refused handshake.

When a socket with unread bytes is closed, the kernel resets the connection, and the reset may destroy our last bytes in
transit. So `Lingering` ends our side of the stream, discards further bytes of the peer, and closes the transport when
the peer ends its side. TLS has no half-close: its transport is closed once the peer is quiet.
"""

import asyncio
from collections.abc import Callable

from .loop import clock, receive_buffer
from .transports import NO_BACKLOG, abort_transport, backlog, close_transport, end_stream

__all__ = ["LINGER_TIMEOUT", "Lingering"]

LINGER_TIMEOUT = 2.0  # seconds, for hosts without a setting for it


class Lingering(asyncio.BufferedProtocol):
    """Becomes the protocol of a transport, and closes it.

    Args:
        transport: The transport, after the write of its last bytes.
        timeout: Seconds until the transport is aborted if the peer does not end its side.
        patience: Seconds in place of `timeout` once the peer has received some of the bytes that wait for it, while
            others wait; renewed whenever it receives some.
        lost: Called with the argument of `connection_lost`.

    Attributes:
        QUIET: Seconds without a byte after which a peer under TLS counts as quiet.
    """

    QUIET = 0.25

    __slots__ = (
        "_buffer",
        "_deadline",
        "_half_close",
        "_loop",
        "_lost",
        "_patience",
        "_quiet",
        "_tick",
        "_timeout",
        "_transport",
        "_unsent",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        timeout: float = LINGER_TIMEOUT,
        *,
        patience: float | None = None,
        lost: Callable[[Exception | None], object] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = receive_buffer(self._loop)
        self._transport = transport
        self._timeout = timeout
        self._patience = timeout if patience is None else patience
        self._lost: tuple[Callable[[Exception | None], object], ...] = () if lost is None else (lost,)
        self._quiet = True
        self._unsent = backlog(transport) if transport.get_write_buffer_size() else NO_BACKLOG
        self._half_close = transport.can_write_eof()
        self._deadline = self._loop.time() + timeout
        transport.set_protocol(self)
        if self._half_close:
            end_stream(transport)
        if not (transport.is_closing() or transport.is_reading()):
            transport.resume_reading()
        self._sleep(timeout if self._half_close else min(timeout, self.QUIET))

    def when_lost(self, callback: Callable[[Exception | None], object]) -> None:
        """Has one more function called with the argument of `connection_lost`."""
        self._lost += (callback,)

    def abort(self) -> None:
        """Ends the wait for the peer."""
        abort_transport(self._transport)

    def _sleep(self, seconds: float) -> None:
        self._tick = clock(self._loop).set(self._loop, self._loop.time() + seconds, self)

    def wake(self) -> None:
        """Checks whether the peer has made progress; called by the clock."""
        now = self._loop.time()
        before, self._unsent = self._unsent, backlog(self._transport)
        if self._unsent.has_moved(before):
            # Without waiting bytes as well: between two writes of the transport below TLS, none are reported.
            self._deadline = now + (self._patience if self._unsent.size else self._timeout)
        if now >= self._deadline:
            self.abort()
            return
        if not self._half_close and self._quiet and not self._unsent.size:
            close_transport(self._transport)
        self._quiet = True
        left = self._deadline - now
        self._sleep(left if self._half_close else min(left, self.QUIET))

    # From the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = self._buffer.unused()
        return self._buffer.window

    def buffer_updated(self, nbytes: int) -> None:
        self._quiet = False

    def connection_lost(self, exc: Exception | None) -> None:
        clock(self._loop).drop(self._tick, self)
        callbacks, self._lost = self._lost, ()  # breaks a reference cycle
        for callback in callbacks:
            callback(exc)
