"""A limit to the number of messages that a peer may send in a second (RATE_LIMIT)."""

__all__ = ["RateLimit"]


class RateLimit:
    """A token bucket. Its capacity is the messages of one second, and it refills at `rate`.

    Args:
        rate: Messages a second.
        now: The time, in seconds.
    """

    __slots__ = ("_capacity", "_rate", "_room", "_since")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._capacity = self._room = max(rate, 1.0)
        self._since = now

    def take(self, count: int, now: float) -> int:
        """Removes up to `count` messages from the bucket; returns the number of removed ones."""
        room = self._room + (now - self._since) * self._rate
        room = room if room < self._capacity else self._capacity  # `min` would cost a tenth of the whole slow path
        self._since = now
        taken = count if count <= room else int(room)
        self._room = room - taken
        return taken
