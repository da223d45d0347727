"""Bounds to what flows: messages a second from a peer, and messages for a peer that does not read."""

from typing import TYPE_CHECKING

from ..exceptions import ConnectionClosed
from ..logging import logger
from ..opcodes import CloseCode

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["SLOW_CONSUMER_POLICIES", "RateLimit", "SlowConsumer"]

SLOW_CONSUMER_POLICIES = ("wait", "drop", "close")


class RateLimit:
    """How many messages may still come: a bucket that holds those of one second, and fills as time goes by.

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
        """How many of so many messages may pass; they are counted."""
        self._room = min(self._room + (now - self._since) * self.rate, max(self.rate, 1.0))
        self._since = now
        taken = min(count, int(self._room))
        self._room -= taken
        return taken


class SlowConsumer:
    """What becomes of messages for a peer that does not read, where nobody is to wait for it: `send` never does.

    Args:
        policy: "drop" or "close".

    Attributes:
        lags: Whether more waits to be read than may. As much may wait to be compressed.
        dropped: Messages that were not sent.
    """

    __slots__ = ("_closes", "_protocol", "_told", "dropped", "lags")

    def __init__(self, protocol: "WebSocketProtocol", policy: str) -> None:
        self._protocol = protocol
        self._told = False
        self._closes = policy == "close"
        self.lags = False
        self.dropped = 0

    def drops(self) -> bool:
        """Whether the next message is not to be sent.

        Raises:
            ConnectionClosed: And so the connection ends.
        """
        protocol = self._protocol
        if not protocol.connection.is_open:
            return False
        lags = self.lags or protocol.sender.waiting > protocol.endpoint.WRITE_LIMIT
        if not lags:
            self._told = False
            return False
        path = protocol.endpoint._label
        if self._closes:
            logger.warning("%r: closed, as the peer reads too slowly", path)
            protocol.close(CloseCode.POLICY_VIOLATION, "too slow to read")
            raise ConnectionClosed(CloseCode.POLICY_VIOLATION, "too slow to read")
        if not self._told:
            self._told = True
            logger.warning("%r: the peer reads too slowly: messages are dropped", path)
        self.dropped += 1
        return True
