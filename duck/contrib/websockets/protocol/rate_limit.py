"""A limit to the messages that a peer may send in a second."""

__all__ = ["RateLimit"]


class RateLimit:
    """A token bucket: it holds the messages of one second, and fills as time passes.

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
        """Takes up to `count` messages out of the bucket; returns how many were there."""
        self._room = min(self._room + (now - self._since) * self.rate, max(self.rate, 1.0))
        self._since = now
        taken = min(count, int(self._room))
        self._room -= taken
        return taken
