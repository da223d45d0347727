"""What carries messages between the processes of a group: the protocols that a broker is written to.

    Groups.publish -> BrokerConnection.publish ... BrokerConnection -> Handler.received -> members

`memory.py` and `redis.py` are two brokers. Another one is one more file: an object with these methods, given to
`Groups`.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..protocol.prepared import Data, Prepared

__all__ = ["Broker", "BrokerConnection", "Handler", "HistoryConnection", "Message", "MessageId", "Past"]

_HEAD = 17  # bytes before the payload


class MessageId(NamedTuple):
    """The id of a message: of two with the same epoch the later one is the greater."""

    epoch: str
    time: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.time}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "MessageId":
        """Undoes `str`.

        Raises:
            ValueError: The text is none of its.
        """
        try:
            epoch, place = text.split(".")
            first, second = place.split("-")
            return cls(epoch, int(first), int(second))
        except ValueError:
            raise ValueError(f"{text!r} is no id of a message") from None

    def covers(self, other: "MessageId") -> bool:
        """Whether a message is this one, or one before it in the same epoch."""
        return self.epoch == other.epoch and other[1:] <= self[1:]


class Message:
    """A message on its way to the members of a group.

    Args:
        opcode: TEXT or BINARY.
        payload: Bytes; those of a text are UTF-8.
        origin: 8 bytes that name the loop whose connection is left out.
        excluded: The number by which that loop knows the connection; 0 for none.

    Attributes:
        id: Its place in the history of the group; None where there is no history.
    """

    __slots__ = ("_prepared", "excluded", "id", "opcode", "origin", "payload")

    def __init__(self, opcode: int, payload: bytes, origin: bytes = bytes(8), excluded: int = 0) -> None:
        self.opcode = opcode
        self.payload = payload
        self.origin = origin
        self.excluded = excluded
        self.id: MessageId | None = None
        self._prepared: Prepared | None = None

    def prepared(self, stamp: Callable[[bytes, str], Data] | None = None) -> Prepared:
        """The message encoded for all connections of this process; see `stamp` of `Groups`."""
        if self._prepared is None:
            payload: Data = self.payload
            if stamp is not None and self.id is not None:
                payload = stamp(self.payload, str(self.id))
            self._prepared = Prepared(payload, self.opcode)
        return self._prepared

    def to_bytes(self) -> bytes:
        """The message for a broker that carries bytes: opcode, origin, number of the excluded one, payload."""
        return b"%c%b%b%b" % (self.opcode, self.origin, self.excluded.to_bytes(8), self.payload)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Message":
        """Undoes `to_bytes`.

        Raises:
            ValueError: The bytes are none of its.
        """
        if len(data) < _HEAD or data[0] not in (1, 2):
            raise ValueError("no message of a group")
        return cls(data[0], data[_HEAD:], data[1:9], int.from_bytes(data[9:_HEAD]))


class Past(NamedTuple):
    """What a history knows of the time after a message.

    Attributes:
        messages: Those behind it, in order.
        complete: Whether none is missing among them.
    """

    messages: list[Message]
    complete: bool


class Handler(Protocol):
    """Takes what a broker brings to one event loop. Both methods are called in the thread of that loop."""

    def received(self, group: str, message: Message, /) -> None:
        """A message has come for a group that is subscribed to."""

    def interrupted(self, group: str, /) -> None:
        """Messages of a group may have been missed; from now on they come again."""


class BrokerConnection(Protocol):
    """The broker as one event loop uses it; all is called there. Messages of one publisher keep their order."""

    async def publish(self, group: str, message: Message) -> None:
        """Hands a message to the broker.

        Raises:
            BrokerError: The broker has not taken it, or cannot be said to have taken it.
        """

    async def subscribe(self, group: str) -> None:
        """Has the messages of a group brought to the handler.

        Returns once they are, or, where the broker is away, at once: then `Handler.interrupted` tells when they are.
        """

    def unsubscribe(self, group: str) -> None:
        """Undoes `subscribe`, without waiting."""

    async def close(self) -> None:
        """Lets go of the broker."""


class HistoryConnection(BrokerConnection, Protocol):
    """A broker that keeps the last messages of groups; those that it brings have ids."""

    async def position(self, group: str) -> MessageId | None:
        """The id of the last message; None where none is kept.

        Raises:
            BrokerError: The broker does not answer.
        """

    async def after(self, group: str, since: MessageId | None) -> Past:
        """The messages behind one; all that are kept for None.

        Raises:
            BrokerError: The broker does not answer.
        """
        raise NotImplementedError


class Broker(Protocol):
    """A way between processes; made before any loop runs, and used by the loops and threads of one process."""

    def connect(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> BrokerConnection:
        """A connection for the loop; it may connect when it is first used."""
        raise NotImplementedError

    def publish_sync(self, group: str, message: Message) -> None:
        """As `BrokerConnection.publish`, for threads that run no loop: it blocks.

        Raises:
            BrokerError: The broker has not taken it, or cannot be said to have taken it.
        """

    def close_sync(self) -> None:
        """Lets go of what `publish_sync` has opened."""
