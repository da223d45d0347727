"""A limit to the number of messages that a peer may send in a second (RATE_LIMIT)."""

__all__ = ["RateLimit"]


class RateLimit:
    """A token bucket. Its capacity is the messages of one second, and it refills at `rate`.

    Args:
        rate: Messages a second.
        now: The time, in seconds.
    """

    __slots__ = ("_room", "_since", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._room = max(rate, 1.0)
        self._since = now

    def take(self, count: int, now: float) -> int:
        """Removes up to `count` messages from the bucket; returns the number of removed ones."""
        self._room = min(self._room + (now - self._since) * self.rate, max(self.rate, 1.0))
        self._since = now
        taken = min(count, int(self._room))
        self._room -= taken
        return taken
