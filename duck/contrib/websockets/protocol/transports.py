"""Functions for transports of asyncio: their descriptor, their backlog, and the end of their stream."""

import asyncio
import contextlib
import sys
from asyncio.sslproto import SSLProtocolState
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
    "abort_transport",
    "backlog",
    "close_transport",
    "discards",
    "end_stream",
    "plain_socket",
    "waiting_bytes",
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
    """Whether a transport discards written bytes. asyncio's transports then log a warning for each write.

    asyncio's TLS transport reports `is_closing` too late: a pass of the loop after the transport below it has failed,
    or, while reading is paused, long after the peer has closed.
    """
    if transport.is_closing():
        return True
    tls: Any = getattr(transport, "_ssl_protocol", None)
    return tls is not None and (
        tls._transport is None or tls._transport.is_closing() or tls._state is not SSLProtocolState.WRAPPED
    )


def waiting_bytes(transport: asyncio.WriteTransport) -> int:
    """Returns the bytes that wait in a transport; below the buffer of asyncio's TLS transport is another one."""
    waiting: int = transport.get_write_buffer_size()
    tls: Any = getattr(transport, "_ssl_protocol", None)
    if tls is not None and tls._transport is not None:
        waiting += tls._transport.get_write_buffer_size()
    return waiting


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
