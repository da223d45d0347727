"""`Metrics`: the counters of a process, one `Counters` for each thread, because a thread runs one loop."""

import threading
from typing import TYPE_CHECKING

from ..codec import Counters
from ..exceptions import HandshakeError
from ..sansio.handshake import reason_phrase

if TYPE_CHECKING:
    from .stats import Stats

__all__ = ["Metrics"]

_REASONS = {"ALLOWED_ORIGINS": "origin", "HANDSHAKE_TIMEOUT": "timeout"}


class Metrics:
    """Counts the activity of connections: of all views whose `METRICS` it is, or of all connections of a server.

    An object may serve any number of views, loops and threads.
    """

    __slots__ = ("_by_thread",)

    def __init__(self) -> None:
        self._by_thread: dict[int, Counters] = {}

    @property
    def counters(self) -> Counters:
        """The counters of the current thread, for the connections of its loop."""
        thread = threading.get_ident()
        found = self._by_thread.get(thread)
        if found is None:
            found = self._by_thread[thread] = Counters()
        return found

    def refused(self, error: HandshakeError) -> None:
        """Counts a refused handshake, by its cause or else by the status of the response."""
        reason = _REASONS.get(error.setting)
        if reason is None:
            reason = reason_phrase(error.status).lower().replace(" ", "_") or "other"
        self.counters.note(("refused", reason))

    def stats(self) -> "Stats":
        """Returns the numbers of all threads together, since the creation of this object; may be called anywhere."""
        from .stats import Stats, stats_of

        return sum(map(stats_of, list(self._by_thread.values())), Stats())
