"""The policies for a peer that reads more slowly than the application sends (SLOW_CONSUMER)."""

import enum

__all__ = ["SLOW_CONSUMER_POLICIES", "Answer", "SlowConsumer"]

SLOW_CONSUMER_POLICIES = ("wait", "drop", "close")


class Answer(enum.Enum):
    """The decision on the next message."""

    SEND = enum.auto()
    DROP = enum.auto()
    CLOSE = enum.auto()  # closes the connection with 1008


class SlowConsumer:
    """Decides on messages for a peer that does not read, under the policies for which `send` never waits.

    Args:
        policy: "drop" or "close".
        limit: Bytes that may wait to be compressed; the transport's limit is the same.

    Attributes:
        lags: Whether the transport is above its high-water mark; set by the connection.
        dropped: The number of dropped messages.
        has_begun: Whether the last answer was the first DROP since the peer last kept up.
    """

    __slots__ = ("_closes", "_drops", "_limit", "dropped", "has_begun", "lags")

    def __init__(self, policy: str, limit: int) -> None:
        self._closes = policy == "close"
        self._limit = limit
        self._drops = False  # whether the last answer was DROP
        self.lags = self.has_begun = False
        self.dropped = 0

    def answer(self, waiting: int) -> Answer:
        """Decides on the next message.

        Args:
            waiting: Bytes that wait to be compressed.
        """
        lags = self.lags or waiting > self._limit
        if lags and self._closes:
            return Answer.CLOSE
        self.has_begun = lags and not self._drops
        self._drops = lags
        if not lags:
            return Answer.SEND
        self.dropped += 1
        return Answer.DROP
