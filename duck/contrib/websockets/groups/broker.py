"""The interfaces of a broker, which carries the messages of groups between event loops and processes.

    Groups.publish -> BrokerConnection.publish ... BrokerConnection -> Handler.received -> members

`memory` and `redis` have the brokers of this package. A custom broker is an object with these methods, passed to
`Groups`. The methods of `HistoryConnection` and `PresenceConnection` are needed only for groups with a history and for
members with data.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from ..logging import cut
from ..protocol.broadcast import Prepared
from ..sansio.payloads import Data

__all__ = [
    "Broker",
    "BrokerConnection",
    "Handler",
    "HistoryConnection",
    "Message",
    "MessageId",
    "Past",
    "PresenceConnection",
]

_HEAD = 17  # bytes before the payload


class MessageId(NamedTuple):
    """The id of a message. Ids of the same epoch compare in the order of their messages."""

    epoch: str
    time: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.time}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "MessageId":
        """The inverse of `str`.

        Raises:
            ValueError: The text is not an id.
        """
        try:
            epoch, place = text.split(".")
            first, second = place.split("-")
            return cls(epoch, int(first), int(second))
        except (AttributeError, ValueError):  # a client's JSON may have another type
            raise ValueError(f"{cut(repr(text))} is not an id of a message") from None

    def covers(self, other: "MessageId") -> bool:
        """Whether the other message is this one, or an earlier one of the same epoch."""
        return self.epoch == other.epoch and other[1:] <= self[1:]

    def follows_epoch_of(self, other: "MessageId") -> bool:
        """Whether the other message belongs to a history that was lost before this message was kept.

        By the clock of the server: epochs have no order.
        """
        return self.epoch != other.epoch and other.time <= self.time


class Message:
    """A message for the members of a group.

    Args:
        opcode: TEXT or BINARY.
        payload: Bytes; UTF-8 for TEXT.
        origin: 8 bytes that identify the loop of the excluded connection.
        excluded: The number of the excluded connection in that loop; 0 for none.

    Attributes:
        id: The position in the group's history; None without a history.
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
        """Returns the message encoded for all connections of this process; see `stamp` of `Groups`."""
        if self._prepared is None:
            payload: Data = self.payload
            if stamp is not None and self.id is not None:
                payload = stamp(self.payload, str(self.id))
            self._prepared = Prepared(payload, self.opcode)
        return self._prepared

    def to_bytes(self) -> bytes:
        """Returns the message as bytes for a broker: opcode, origin, number of the excluded connection, payload."""
        return b"%c%b%b%b" % (self.opcode, self.origin, self.excluded.to_bytes(8), self.payload)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Message":
        """The inverse of `to_bytes`.

        Raises:
            ValueError: The bytes have another format.
        """
        if len(data) < _HEAD or data[0] not in (1, 2):
            raise ValueError("not a message of a group")
        return cls(data[0], data[_HEAD:], data[1:9], int.from_bytes(data[9:_HEAD]))


class Past(NamedTuple):
    """The part of a history after a given message.

    Attributes:
        messages: The later messages, in order.
        complete: Whether no later message is missing.
    """

    messages: list[Message]
    complete: bool


class Handler(Protocol):
    """The receiver of a broker's messages in one event loop, in whose thread all methods are called.

    Attributes:
        origin: 8 bytes that identify the loop.
    """

    origin: bytes

    def received(self, group: str, message: Message, /) -> None:
        """Handles a message of a subscribed group."""

    def interrupted(self, group: str, /) -> None:
        """Handles a gap: messages of the group may have been missed, and delivery has resumed."""

    def changed(self, group: str, joined: dict[str, str], left: dict[str, str], /) -> None:
        """Handles a change of presence in a subscribed group.

        Args:
            group: The name of the group.
            joined: The data, as JSON, of new and changed entries by their ids.
            left: The data of entries that have ended.
        """


class BrokerConnection(Protocol):
    """A broker's connection for one event loop, in which all calls are made. It keeps the order of each publisher."""

    async def publish(self, group: str, message: Message) -> None:
        """Passes a message to the broker.

        Raises:
            BrokerError: The broker has not taken the message, or the outcome is unknown.
        """

    async def subscribe(self, group: str) -> None:
        """Subscribes the handler to a group.

        Returns once its messages are delivered. If the broker is unavailable it returns at once, and
        `Handler.interrupted` reports the start of the delivery, as it does if the call is cancelled before its end.

        Raises:
            BrokerError: The broker refuses the subscription, and would refuse it again.
        """

    def unsubscribe(self, group: str) -> None:
        """Ends `subscribe`, without waiting."""

    async def close(self) -> None:
        """Closes the connection."""


class HistoryConnection(BrokerConnection, Protocol):
    """The connection of a broker that keeps the last messages of each group, and assigns ids to all messages."""

    async def position(self, group: str) -> MessageId | None:
        """Returns the id of the last message; None if none is kept.

        Raises:
            BrokerError: The broker does not answer.
        """

    async def after(self, group: str, since: MessageId | None) -> Past:
        """Returns the messages after `since`; all kept messages for None.

        Raises:
            BrokerError: The broker does not answer.
        """
        raise NotImplementedError


class PresenceConnection(BrokerConnection, Protocol):
    """The connection of a broker that keeps entries of present members, until they are removed or their process dies.

    The id of an entry begins with the `Handler.origin` of its loop in hexadecimal, and a dot.
    """

    def enter(self, group: str, entry: str, data: str, /) -> Awaitable[None]:
        """Adds an entry, or replaces its data.

        Returns at once. The result completes when others see the entry, or when the broker is unavailable; then the
        entry is added later without another call.
        """
        raise NotImplementedError

    def exit(self, group: str, entry: str, /) -> None:
        """Removes an entry, without waiting."""

    async def present(self, group: str, /) -> dict[str, str]:
        """Returns the data of all entries by their id, those of this loop included.

        Raises:
            BrokerError: The broker does not answer.
        """
        raise NotImplementedError


class Broker(Protocol):
    """A broker, created before any loop runs, and used by all loops and threads of a process."""

    def connect(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> BrokerConnection:
        """Returns a connection for the loop; it may connect on first use."""
        raise NotImplementedError

    def publish_sync(self, group: str, message: Message) -> None:
        """As `BrokerConnection.publish`, for threads without a loop; blocks.

        Raises:
            BrokerError: The broker has not taken the message, or the outcome is unknown.
        """

    def close_sync(self) -> None:
        """Closes the connections that `publish_sync` has opened."""
