"""`LocalGroup`: the members of a group in one event loop, and the delivery of messages to them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ..logging import log_failure
from ..protocol.broadcast import Prepared, send_to_all
from ..sansio.payloads import Data
from .broker import Message, MessageId

__all__ = ["LocalGroup", "Member", "Stamp"]

Stamp = Callable[[bytes, str], Data]


class Member(Protocol):
    """A member of a group: a view, a client, or another end of a connection with these methods.

    The names have an underscore because all names without one in a view belong to its author.

    A further method is optional: `async def _drained(self) -> None` waits until the peer has taken most of what was
    sent. Without it, the whole history is sent at once.
    """

    @property
    def _home(self) -> asyncio.AbstractEventLoop:
        """The loop in whose thread the other methods are called."""
        raise NotImplementedError

    def _send_prepared(self, message: Prepared) -> bool:
        """Sends a message without waiting; returns False if it is not sent."""
        raise NotImplementedError

    def _when_lost(self, callback: Callable[[Any], object]) -> None:
        """Registers a callback for the loss of the connection. It is called once, with the member.

        Raises:
            ConnectionClosed: The connection is closing or closed.
        """

    def _missed(self, group: str) -> None:
        """Reports that messages of a group may have been missed."""


class LocalGroup:
    """The members of a group in one loop.

    Args:
        name: The name of the group.
        stamp: See `Groups`.
        origin: The identifier of the loop in messages.
        new_number: Returns a number that no other member of the loop has had.

    Attributes:
        alone: A tuple of the group's name, which `Hub.names` shares among all members of only this group.
        members: The members in the order of their joins, as the keys of a dict.
        recovering: The messages that have arrived for members that wait for their history.
        floors: The last message of a member's history, for members that got it before the same message arrived.
        seen: The id of the last message that was received, or that preceded the first member.
        floor: The last message of the history with which all members have caught up.
        waiting: The messages that arrive while all members catch up; None otherwise.
        breaks: The number of gaps so far; a server may have lost its history in each.
        positioning: The task that reads the id of the last message before the first member.
        positioned: Whether that task has ended. `seen` is None if there was no message, or the broker was unavailable.
    """

    __slots__ = (
        "_entries",
        "_new_number",
        "_numbered",
        "_numbers",
        "_origin",
        "_stamp",
        "alone",
        "breaks",
        "floor",
        "floors",
        "members",
        "positioned",
        "positioning",
        "recovering",
        "seen",
        "waiting",
    )

    def __init__(self, name: str, stamp: Stamp | None, origin: bytes, new_number: Callable[[], int]) -> None:
        self.alone = (name,)
        self._stamp = stamp
        self._origin = origin
        self._new_number = new_number
        self.breaks = 0
        self.members: dict[Member, None] = {}
        self.recovering: dict[Member, list[Message]] = {}
        self._numbers: dict[Member, int] = {}  # of members that a message has excluded, or that are present
        self._numbered: dict[int, Member] = {}  # the inverse
        self._entries: dict[Member, str] = {}  # the ids of the entries of present members
        self.floors: dict[Member, MessageId] = {}
        self.seen: MessageId | None = None
        self.floor: MessageId | None = None
        self.waiting: list[Message] | None = None
        self.positioning: asyncio.Future[None] | None = None
        self.positioned = False

    def copy_of_members(self) -> list[Member]:
        """Returns a copy of the members, so that members may join or leave during an iteration."""
        return [*self.members, *self.recovering]

    def count(self) -> int:
        """Returns the number of members."""
        return len(self.members) + len(self.recovering)

    def has(self, member: Member) -> bool:
        """Whether the connection is a member."""
        return member in self.members or member in self.recovering

    def number(self, member: Member) -> int:
        """Returns the number of a member, by which messages exclude it; a new one at first."""
        number = self._numbers.get(member)
        if number is None:
            number = self._numbers[member] = self._new_number()
            self._numbered[number] = member
        return number

    def make_present(self, member: Member) -> str:
        """Returns the id of the entry of a member; a new one if it was not present."""
        entry = self._entries.get(member)
        if entry is None:
            entry = self._entries[member] = f"{self._origin.hex()}.{self.number(member):x}"
        return entry

    def remove(self, member: Member) -> str | None:
        """Removes a member; returns the id of its entry if it was present."""
        self.members.pop(member, None)
        self.recovering.pop(member, None)
        self.floors.pop(member, None)
        number = self._numbers.pop(member, None)
        if number is not None:
            del self._numbered[number]
        return self._entries.pop(member, None)

    def clear(self) -> None:
        """Removes all members."""
        self.members.clear()
        self.recovering.clear()

    def forget_floors(self, kept: Sequence[Message]) -> None:
        """Forgets the deliveries of messages that an older copy of the server lacks: it may assign their ids again.

        Args:
            kept: All messages of the present history.
        """
        ids = {message.id for message in kept}
        first = kept[0].id if kept else None
        if first is None:
            return
        self.floors = {
            member: floor
            for member, floor in self.floors.items()
            if floor in ids or floor.epoch != first.epoch or first.covers(floor)
        }

    def ahead(self, floors: dict[Member, MessageId], missed: Sequence[Message]) -> list[Member]:
        """Returns the members that have got messages which the server has lost.

        Args:
            floors: The floors before the history was read.
            missed: All messages of the history after `seen`.
        """
        kept = {message.id for message in missed}
        return [
            member
            for member, floor in floors.items()
            if self.floors.get(member) is floor and floor not in kept and not (self.seen and self.seen.covers(floor))
        ]

    def deliver(self, message: Message) -> None:
        """Delivers a message, unless it was delivered from the history."""
        if message.id is not None:
            if self.floor is not None and self.floor.covers(message.id):
                return
            self.seen = message.id
        prepared = self._prepared(message)
        if prepared is None:
            return
        for messages in self.recovering.values():
            messages.append(message)
        send_to_all(self._receivers(message), prepared)

    def _prepared(self, message: Message) -> Prepared | None:
        """Returns the message as members get it; None if `stamp` fails."""
        try:
            return message.prepared(self._stamp)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the loop
            log_failure(error, "group %r: a message is not delivered, because stamp has failed", self.alone[0])
            return None

    def _receivers(self, message: Message) -> list[Member]:
        excluded = self._excluded(message)
        if not self.floors and excluded is None:
            return list(self.members)
        receivers = self.members.copy()
        if excluded is not None:
            receivers.pop(excluded, None)
        for member, floor in list(self.floors.items()):
            if message.id is not None and floor.covers(message.id):
                receivers.pop(member, None)
            elif message.id is None or not floor.follows_epoch_of(message.id):
                del self.floors[member]
        return list(receivers)

    def _excluded(self, message: Message) -> Member | None:
        """Returns the member that does not get a message; None if it is of another loop, or has left."""
        return self._numbered.get(message.excluded) if message.origin == self._origin else None

    def send_missed(self, member: Member, message: Message) -> None:
        """Delivers a message of the history to a member."""
        if member is self._excluded(message):
            return
        prepared = self._prepared(message)
        if prepared is not None:
            member._send_prepared(prepared)

    def send_older(self, member: Member, first: MessageId) -> None:
        """Delivers the messages that have arrived for a recovering member from a history that preceded its own.

        Args:
            member: A recovering member.
            first: The first message of its history.
        """
        waiting = self.recovering[member]
        while waiting and waiting[0].id is not None and first.follows_epoch_of(waiting[0].id):
            self.send_missed(member, waiting.pop(0))

    def recovered(self, member: Member, missed: Iterable[Message], last: MessageId | None) -> None:
        """Delivers the rest of the missed messages to a member, then those that have arrived meanwhile.

        Args:
            member: A recovering member.
            missed: The messages that it has not got yet.
            last: The last message of its history.
        """
        waiting = self.recovering.pop(member)
        self.members[member] = None
        for message in missed:
            self.send_missed(member, message)
        for message in waiting:
            if last is None or message.id is None or not last.covers(message.id):
                self.send_missed(member, message)
        if last is not None and (self.seen is None or not self.seen.covers(last)):
            self.floors[member] = last
