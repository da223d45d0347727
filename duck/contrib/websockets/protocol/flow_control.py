"""Control of reading from the transport, and checks of the peer while reading is on hold.

Reading is on hold while too many bytes wait for handlers or, at a server, for the peer. The end of the stream and pongs
are not noticed then. Therefore a poll of the socket each second detects a peer that has disconnected. For the
heartbeat, the size of the unread data shows whether bytes have arrived.
"""

import asyncio
import contextlib
import enum
import select
import socket as sockets
import sys
from typing import Any, Protocol

from ..codec import Counters
from .loop import clock

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["FlowControl", "Hold"]

# Events of poll(2): the peer has ended its stream; the connection no longer exists.
_ENDED = getattr(select, "POLLRDHUP", 0)
_GONE = getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class Hold(enum.IntFlag):
    """The reasons to hold reading; metrics count pauses by these names."""

    INBOX = 1  # messages wait for handlers
    FRAMES = 2  # frames wait for the view to read them
    WRITES = 4  # the peer does not read
    EARLY = 8  # bytes received with the handshake are not handled yet
    PARTS = 16  # parts of a message wait for its reader


class Owner(Protocol):
    """The connection whose reading is controlled."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    lost: bool

    @property
    def counters(self) -> Counters | None: ...
    @property
    def is_open(self) -> bool: ...
    def resume_reading(self) -> None: ...


class FlowControl:
    """The reading of one connection.

    Attributes:
        CHECK_INTERVAL: Seconds between two checks whether the peer is still connected.
        holds: The reasons why reading is on hold.
        ping: The payload of the last ping of a peer that does not read; None if it has been answered.
    """

    CHECK_INTERVAL = 1.0

    __slots__ = ("_ended", "_owner", "_tick", "_unread", "holds", "ping")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._ended = False  # whether the peer has ended its stream, whose rest is then read without hold
        self._tick = 0
        self._unread = 0
        self.holds = Hold(0)
        self.ping: bytes | None = None

    def hold(self, reason: Hold) -> None:
        """Stops reading. After our close frame reading continues, because received messages are then dropped."""
        owner = self._owner
        # EARLY lasts for one pass of the loop: another reason that begins meanwhile is the first to be checked.
        is_first = not self.holds & ~Hold.EARLY
        if is_first and not owner.lost and owner.is_open and not self._ended:
            owner.transport.pause_reading()
            if reason is not Hold.EARLY:
                if owner.counters is not None:
                    owner.counters.note(("paused", str(reason.name).lower()))
                self._unread = 0
                self._check_later()
        self.holds |= reason

    def release(self, reason: Hold) -> None:
        """Resumes reading, unless another reason holds it."""
        before, self.holds = self.holds, self.holds & ~reason
        if before and not self.holds:
            clock(self._owner.loop).drop(self._tick, self)
            self._owner.resume_reading()

    def has_received(self) -> bool:
        """Whether bytes have arrived in this hold since the last call; true where the system does not report them."""
        unread = self._unread_bytes()
        if unread is None:
            return not self.holds & Hold.WRITES
        before, self._unread = self._unread, unread
        return unread > before

    @property
    def is_receive_buffer_full(self) -> bool:
        """Whether the socket's receive buffer may be full, so that a pong of the peer cannot arrive."""
        unread = self._unread_bytes() if self.holds else 0
        if not unread:
            return False
        # SO_RCVBUF includes the kernel's overhead, so a buffer may be full with a quarter of that many bytes.
        room: int = self._socket().getsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF)
        return unread >= room // 4

    def stop(self) -> None:
        """Stops the checks, because the transport is lost."""
        if self.holds:
            clock(self._owner.loop).drop(self._tick, self)

    def wake(self) -> None:
        """Checks whether the peer is still connected; called by the clock."""
        socket = self._socket()
        if socket is None or not _GONE:
            return
        poll = select.poll()
        poll.register(socket.fileno(), _ENDED)
        (_, events), *_ = poll.poll(0) or [(0, 0)]
        if events & (_ENDED | _GONE):
            # The unread bytes must be read although the peer has disconnected. The kernel's buffer bounds them.
            self._ended = True
            self._owner.resume_reading()
        else:
            self._check_later()

    def _check_later(self) -> None:
        loop = self._owner.loop
        self._tick = clock(loop).set(loop, loop.time() + self.CHECK_INTERVAL, self)

    def _socket(self) -> Any:
        socket = self._owner.transport.get_extra_info("socket")
        return None if socket is None or socket.fileno() < 0 else socket

    def _unread_bytes(self) -> int | None:
        """The number of received bytes that have not been read; None where the system does not report it."""
        socket = self._socket()
        if sys.platform != "win32" and socket is not None:
            with contextlib.suppress(OSError):
                return int.from_bytes(fcntl.ioctl(socket.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
        return None
