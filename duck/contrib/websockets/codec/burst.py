"""The sends of all connections of a loop, in plain Python: the specification of `burst.pxi`.

A connection gathers its own replies while it handles a read. A `Burst` gathers the messages to all other connections:
the broadcasts of a busy chat, and what one connection forwards to another. The system call of each write is most of its
cost. A lone message is written at once. More are expected in a read with several messages, and behind a broadcast to
many, unless the last bursts have gathered nothing. Then frames wait in their writers, and each connection has one write
in the loop's next iteration.

A `Burst` also limits the time for which senders hold the loop; see `codec.hotpath.HotPath.pace`.
"""

import weakref
from time import perf_counter
from typing import Any, Protocol

from .numbers import BURST_PAUSE, CORK_TIME

__all__ = ["Burst"]


class Connection(Protocol):
    """A connection whose writer gathers frames."""

    def flush(self) -> None:
        """Writes the gathered frames."""


class Burst:
    """The messages of one iteration of a loop to connections that do not gather them themselves.

    Args:
        loop: The event loop of the connections.
        patience: Milliseconds that frames wait at most, unless a handler blocks the loop.

    Attributes:
        gathering: Whether frames wait for the end of the iteration.
        several: Whether a read with several messages is being handled.
        credit: Bytes that the connections may send before one of them reads the clock.
        looked: The time of the first clock reading, or of the last `rest`; 0 for none.
        held: Whether the loop has run no other callbacks since the last `rest`.
    """

    __slots__ = (
        "_connections",
        "_loop",
        "_patience",
        "_pause",
        "_since",
        "_to_skip",
        "credit",
        "gathering",
        "held",
        "looked",
        "several",
    )

    def __init__(self, loop: Any, patience: float = CORK_TIME) -> None:
        self.gathering = False
        self.several = False
        self.credit = 0
        self.looked = 0.0
        self.held = False
        self._loop = weakref.ref(loop)
        self._connections: list[Connection] = []
        self._since = 0.0
        self._patience = 0.001 * patience
        self._pause = 0  # broadcasts to skip after a burst that has gathered nothing
        self._to_skip = 0

    def begin(self) -> bool:
        """Gathers frames until the loop's next iteration; returns False if the loop does not run."""
        loop = self._loop()
        if not self.gathering and loop is not None and loop.is_running():
            loop.call_soon(self.end)
            self._since = perf_counter()
            self.gathering = True
        return self.gathering

    def begin_after_broadcast(self) -> None:
        """Gathers the frames behind a broadcast, less and less often while no other follows it in its iteration."""
        if self._to_skip:
            self._to_skip -= 1
        else:
            self.begin()

    def add(self, connection: Connection) -> None:
        """Adds a connection, whose writer is about to take the first frame."""
        self._connections.append(connection)

    def end(self) -> None:
        """Stops gathering, and writes the frames."""
        self.gathering = False
        self._pause = 0 if self._connections else min(2 * self._pause + 1, BURST_PAUSE)
        self._to_skip = self._pause
        self.flush()

    def flush_if_old(self) -> None:
        """Writes the frames if the oldest has waited for too long."""
        now = perf_counter()
        if now - self._since > self._patience:
            self._since = now
            self.flush()

    def flush(self) -> None:
        """Writes the frames of each connection. The loop reports errors, which concern one connection each."""
        self._connections.reverse()
        while self._connections:
            try:
                self._connections.pop().flush()
            except Exception as error:
                self._report(error)

    def _report(self, error: Exception) -> None:
        loop = self._loop()
        if loop is not None:
            loop.call_exception_handler({"message": "gathered frames could not be written", "exception": error})
