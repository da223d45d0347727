"""The members of a group in one event loop, and the delivery of messages to them."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from ..protocol.prepared import Data, Prepared, send_to_all
from .broker import Message, MessageId, Past

__all__ = ["LocalGroup", "Member", "Stamp"]

Stamp = Callable[[bytes, str], Data]


class Member(Protocol):
    """A member of a group: a view, a client, or another end of a connection with these methods.

    The names have an underscore because all names without one in a view belong to its author.
    """

    @property
    def _home(self) -> asyncio.AbstractEventLoop:
        """The loop in whose thread the other methods are called."""
        raise NotImplementedError

    def _send_prepared(self, message: Prepared) -> bool:
        """Sends a message without waiting; returns False if it does not leave."""
        raise NotImplementedError

    def _when_lost(self, callback: Callable[[Any], object]) -> None:
        """Calls back with the member when its connection is lost; once per callback, however often it is registered.

        Raises:
            ConnectionClosed: The connection is closing or gone.
        """

    def _missed(self, group: str) -> None:
        """Reports that messages of a group may have been missed."""


class LocalGroup:
    """The members of a group in one loop.

    Attributes:
        alone: A tuple of this group's name, which `Hub.names` shares among the members of this group alone.
        members: In the order in which they joined, each with the id of its entry if it is present.
        excluded: Members excluded from messages that are on their way here, by number.
        recovering: Messages for members that await their history.
        early: The ids of the entries of those among them that are present.
        floors: The last message of a member's history, for members that received it before those messages came.
        seen: The id of the last message that was received, or that preceded the first member.
        floor: The last message of the history with which all have caught up.
        waiting: Messages that come while all catch up; None otherwise.
        breaks: The number of gaps so far.
        positioning: The task that reads the id of the last message before the first member.
        positioned: Whether that task has ended; `seen` is None if there was no message, or the broker was away.
    """

    __slots__ = (
        "_stamp",
        "alone",
        "breaks",
        "early",
        "excluded",
        "floor",
        "floors",
        "members",
        "positioned",
        "positioning",
        "recovering",
        "seen",
        "waiting",
    )

    def __init__(self, name: str, stamp: Stamp | None) -> None:
        self.alone = (name,)
        self._stamp = stamp
        self.breaks = 0
        self.members: dict[Member, str | None] = {}
        self.excluded: dict[int, Member] = {}
        self.recovering: dict[Member, list[Message]] = {}
        self.early: dict[Member, str] = {}
        self.floors: dict[Member, MessageId] = {}
        self.seen: MessageId | None = None
        self.floor: MessageId | None = None
        self.waiting: list[Message] | None = None
        self.positioning: asyncio.Task[None] | None = None
        self.positioned = False

    def copy_of_members(self) -> list[Member]:
        """Returns the members as a copy, so that they may join or leave during an iteration."""
        return [*self.members, *self.recovering]

    def count(self) -> int:
        """Returns the number of members."""
        return len(self.members) + len(self.recovering)

    def has(self, member: Member) -> bool:
        """Whether the connection is a member."""
        return member in self.members or member in self.recovering

    def entry(self, member: Member) -> str | None:
        """Returns the id of the entry of a member; None if it is not present."""
        return self.members.get(member) or self.early.get(member)

    def set_entry(self, member: Member, entry: str) -> None:
        """Makes a member present."""
        if member in self.members:
            self.members[member] = entry
        else:
            self.early[member] = entry

    def remove(self, member: Member) -> str | None:
        """Removes a member; returns the id of its entry if it was present."""
        self.recovering.pop(member, None)
        self.floors.pop(member, None)
        return self.members.pop(member, None) or self.early.pop(member, None)

    def take(self, message: Message, origin: bytes) -> None:
        """Delivers a message, unless it was delivered from the history."""
        if message.id is not None:
            if self.floor is not None and self.floor.covers(message.id):
                return
            self.seen = message.id
        left_out = None
        if message.excluded and message.origin == origin:
            left_out = self.excluded.pop(message.excluded, None)
        for member, messages in self.recovering.items():
            if member is not left_out:
                messages.append(message)
        send_to_all(self._receivers(message, left_out), message.prepared(self._stamp))

    def _receivers(self, message: Message, left_out: Member | None) -> list[Member]:
        if not self.floors and left_out is None:
            return list(self.members)
        skipped = set() if left_out is None else {left_out}
        for member, floor in list(self.floors.items()):
            if message.id is not None and floor.covers(message.id):
                skipped.add(member)
            else:
                del self.floors[member]
        return [member for member in self.members if member not in skipped]

    def recovered(self, member: Member, past: Past) -> None:
        """Delivers the missed messages to a member, then those that have come in the meantime."""
        waiting = self.recovering.pop(member)
        self.members[member] = self.early.pop(member, None)
        last: MessageId | None = None
        for message in past.messages:
            last = message.id
            member._send_prepared(message.prepared(self._stamp))
        for message in waiting:
            if last is None or message.id is None or not last.covers(message.id):
                member._send_prepared(message.prepared(self._stamp))
        if last is not None and (self.seen is None or not self.seen.covers(last)):
            self.floors[member] = last
