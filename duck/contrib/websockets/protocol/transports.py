"""What asyncio's transports do not tell by themselves: their socket, what their peer has not taken, a safe end."""

import asyncio
import contextlib
import sys
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["NO_BACKLOG", "Backlog", "backlog", "end_stream", "plain_socket"]


def plain_socket(transport: asyncio.BaseTransport) -> int:
    """The file descriptor that carries just what is written to the transport; -1 where there is none, as under TLS."""
    if sys.platform == "win32" or transport.get_extra_info("sslcontext") is not None:
        return -1
    socket = transport.get_extra_info("socket")
    return socket.fileno() if socket is not None else -1


class Backlog(NamedTuple):
    """Bytes that the peer of a transport has not taken.

    Attributes:
        buffered: Those in the transport. That of TLS does not count what waits below it.
        queued: Those in its socket, where the system tells, else 0.
    """

    buffered: int
    queued: int

    def has_shrunk(self, before: "Backlog") -> bool:
        """Whether the peer has taken something since. A socket that is filled up again shrinks between two refills."""
        return self.buffered < before.buffered or self.queued < before.queued


NO_BACKLOG = Backlog(0, 0)


def backlog(transport: asyncio.WriteTransport) -> Backlog:
    """The bytes that a transport's peer has not taken."""
    buffered, queued = transport.get_write_buffer_size(), 0
    socket = transport.get_extra_info("socket")
    if sys.platform != "win32" and socket is not None and socket.fileno() >= 0:
        with contextlib.suppress(OSError):  # not every system has this for sockets
            queued = int.from_bytes(fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return Backlog(buffered, queued) if buffered or queued else NO_BACKLOG


def end_stream(transport: asyncio.Transport) -> None:
    """Ends our side of the stream; aborts where the peer has reset the connection."""
    try:
        transport.write_eof()
    except OSError:  # asyncio's own transport lets out what shutdown(2) says then
        transport.abort()
