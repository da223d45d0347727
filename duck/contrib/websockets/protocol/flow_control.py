"""Whether bytes are taken from the transport, and a look at the peer while they are not.

Reading is on hold while too much waits to be handled, or to be read by the peer. Then neither the end of the stream nor
a pong would be noticed. So the socket is asked, each second, whether the peer is still there, and, when the heartbeat
wants to know, how many bytes have come that were not taken.
"""

import asyncio
import contextlib
import enum
import select
import socket as sockets
import sys
from typing import Any, Protocol

from .loop import clock

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Hold", "Intake"]

_LOOK_INTERVAL = 1.0  # seconds between two looks whether the peer is still there

# Events of poll(2). The peer has ended its stream, behind what it has sent; and there is no connection any more.
_ENDED = getattr(select, "POLLRDHUP", 0)
_GONE = getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class Hold(enum.IntFlag):
    """Why reading is on hold."""

    INBOX = 1  # messages wait for handlers
    FRAMES = 2  # frames wait for the view to read them
    WRITES = 4  # the peer does not read what it is sent
    EARLY = 8  # what came with the handshake has not been handled


class Owner(Protocol):
    """The connection whose reading is controlled."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    lost: bool

    @property
    def is_open(self) -> bool: ...
    def resume_reading(self) -> None: ...


class Intake:
    """The reading of one connection.

    Attributes:
        holds: Why it is on hold.
    """

    __slots__ = ("_ended", "_owner", "_tick", "_unread", "holds")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._ended = False  # whether the peer has ended its stream: what is left of it is read, without hold
        self._tick = 0
        self._unread = 0
        self.holds = Hold(0)

    def hold(self, reason: Hold) -> None:
        """Takes no more bytes; once a close frame has left they are taken, for messages are dropped then."""
        owner = self._owner
        if not self.holds and not owner.lost and owner.is_open and not self._ended:
            owner.transport.pause_reading()
            if reason is not Hold.EARLY:
                self._unread = 0
                self._look_later()
        self.holds |= reason

    def release(self, reason: Hold) -> None:
        """Takes bytes again, unless there is another reason not to."""
        before, self.holds = self.holds, self.holds & ~reason
        if before and not self.holds:
            clock(self._owner.loop).drop(self._tick, self)
            self._owner.resume_reading()

    def has_come(self) -> bool:
        """Whether bytes have come, in this hold, since the last call; true where the system does not tell."""
        unread = self._unread_bytes()
        if unread is None:
            return not self.holds & Hold.WRITES
        before, self._unread = self._unread, unread
        return unread > before

    @property
    def is_deaf(self) -> bool:
        """Whether the peer may have sent a pong that cannot have come: there is no room left for it."""
        socket = self._socket()
        unread = self._unread_bytes() if self.holds else 0
        if socket is None or not unread:
            return False
        # The kernel counts its own expense too, which is up to as much again.
        room: int = socket.getsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF)
        return unread >= room // 4

    def stop(self) -> None:
        """The transport is lost."""
        if self.holds:
            clock(self._owner.loop).drop(self._tick, self)

    def wake(self) -> None:
        """Looks whether the peer is still there; the clock calls it."""
        owner, socket = self._owner, self._socket()
        if owner.lost or not self.holds or socket is None or not _GONE:
            return
        poll = select.poll()
        poll.register(socket.fileno(), _ENDED)
        (_, events), *_ = poll.poll(0) or [(0, 0)]
        if events & (_ENDED | _GONE):
            # Its unread bytes are bounded by the kernel's buffer, and are to be read even if the peer has gone.
            self._ended = True
            owner.resume_reading()
        else:
            self._look_later()

    def _look_later(self) -> None:
        loop = self._owner.loop
        self._tick = clock(loop).set(loop, loop.time() + _LOOK_INTERVAL, self)

    def _socket(self) -> Any:
        socket = self._owner.transport.get_extra_info("socket")
        return None if socket is None or socket.fileno() < 0 else socket

    def _unread_bytes(self) -> int | None:
        """Bytes that have come and were not taken; None where the system does not tell."""
        socket = self._socket()
        if sys.platform != "win32" and socket is not None:
            with contextlib.suppress(OSError):
                return int.from_bytes(fcntl.ioctl(socket.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
        return None
