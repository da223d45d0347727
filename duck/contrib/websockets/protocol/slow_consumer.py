"""Messages for a peer that reads more slowly than the application sends."""

from typing import TYPE_CHECKING

from ..exceptions import ConnectionClosed
from ..logging import logger
from ..opcodes import CloseCode

if TYPE_CHECKING:
    from .protocol import ConnectionProtocol

__all__ = ["SLOW_CONSUMER_POLICIES", "SlowConsumer"]

SLOW_CONSUMER_POLICIES = ("wait", "drop", "close")


class SlowConsumer:
    """What becomes of messages for a peer that does not read, where nobody is to wait for it: `send` never does.

    Args:
        policy: "drop" or "close".

    Attributes:
        lags: Whether more waits to be read than may. As much may wait to be compressed.
        dropped: Messages that were not sent.
    """

    __slots__ = ("_closes", "_protocol", "_told", "dropped", "lags")

    def __init__(self, protocol: "ConnectionProtocol", policy: str) -> None:
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
