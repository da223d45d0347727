"""Groups: the members of each name in this process, and the delivery of messages to them.

Each event loop has a `_Hub` with its members. A broker carries messages to the hubs of this process and of others. A
hub subscribes to a group with its first member and unsubscribes with its last.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

from ..exceptions import BrokerError, ConnectionClosed
from ..logging import logger
from ..opcodes import OpCode
from ..protocol.prepared import Data, Prepared, encode, send_to_all
from .broker import Broker, BrokerConnection, HistoryConnection, Message, MessageId, Past
from .history import History
from .memory import MemoryBroker

__all__ = ["Groups", "Member"]

Result = TypeVar("Result")
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


class Groups:
    """Groups of connections, by name. A member leaves automatically at the end of its connection, however caused.

    Create it before any loop runs. All handlers, threads and loops of a process may use it. Every member gets the
    messages of one publisher in their order, each at most once. No member waits for a slow one, to which its view's
    `SLOW_CONSUMER` applies.

    Args:
        broker: None for groups of this process alone; `redis://host:port/db`, `rediss://...` or `unix://path` for
            groups across processes, which needs the extra `redis`; or a custom broker.
        prefix: The prefix of channel names at a Redis server.
        timeout: Seconds that a call may wait for a Redis server.
        history: Messages kept for each group, with which members catch up; 0 for none. All processes of a Redis server
            need the same value.
        history_ttl: Seconds after the last message of a group until its history expires.
        stamp: Adds the id of a message to the payload that members get, so that a client can pass it as `since` when it
            returns: called with the payload and the id, returns the payload to send. Requires a history.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL is invalid.
    """

    def __init__(
        self,
        broker: Broker | str | None = None,
        *,
        prefix: str = "duck:",
        timeout: float = 5.0,
        history: int = 0,
        history_ttl: float = 300.0,
        stamp: Stamp | None = None,
    ) -> None:
        kept = History(history, history_ttl) if history else None
        if kept is not None:
            kept.check()
        self._broker: Broker
        if isinstance(broker, str):
            from .redis import RedisBroker

            self._broker = RedisBroker(broker, prefix=prefix, timeout=timeout, history=kept)
        else:
            self._broker = MemoryBroker(kept) if broker is None else broker
        self._keeps_history = kept is not None
        self._stamp = stamp
        self._hubs: dict[asyncio.AbstractEventLoop, _Hub] = {}
        self._lock = threading.Lock()

    async def join(self, member: Member, group: str, *, since: str | None = None) -> bool:
        """Adds a connection to a group; does nothing if it is a member.

        Returns once messages of the group reach the member. If the broker is away it returns at once, and the member's
        `on_gap` is called when they do.

        Args:
            member: A view, or another end of a connection.
            group: The name of the group.
            since: The id of the last message that the member has received, or "" for the whole history. The member gets
                the later messages in order, then new ones, with neither losses nor duplicates.

        Returns:
            False if the history does not reach back to `since` or cannot be read; only new messages come then.

        Raises:
            ConnectionClosed: The connection is closing or gone.
            RuntimeError: The connection is not open yet.
            ValueError: `since` is no id, or these groups have no history.
        """
        if since is None:
            return await self._at_home(member, self._hub(member._home).join(member, group))
        if not self._keeps_history:
            raise ValueError("these groups keep no history: make them by Groups(..., history=100)")
        start = MessageId.parse(since) if since else None
        return await self._at_home(member, self._hub(member._home).rejoin(member, group, start))

    async def leave(self, member: Member, group: str) -> None:
        """Removes a connection from a group; does nothing if it is no member."""
        hub = self._hub_of(member)
        if hub is not None:
            await self._at_home(member, hub.leave(member, group))

    async def publish(
        self, group: str, data: Data, opcode: int = OpCode.TEXT, *, exclude: Member | None = None
    ) -> str | None:
        """Sends a message to all members, without waiting for any of them.

        Args:
            group: The name of the group, which may have no members.
            data: A str or bytes-like.
            opcode: TEXT or BINARY.
            exclude: A member that does not get the message.

        Returns:
            The id of the message; None without a history.

        Raises:
            BrokerError: The broker has not taken the message, or the outcome is unknown.
            TypeError: The data is neither str nor bytes-like.
            ValueError: The opcode is neither TEXT nor BINARY, or bytes sent as TEXT are not UTF-8.
        """
        payload = encode(data, opcode)
        connection = self._hub(asyncio.get_running_loop()).connection
        hub = None if exclude is None else self._hub_of(exclude)
        if exclude is None or hub is None:
            message = Message(opcode, payload)
            await connection.publish(group, message)
            return str(message.id) if message.id else None
        message = Message(opcode, payload, hub.origin, hub.exclude(exclude, group))
        try:
            await connection.publish(group, message)
        except BaseException:
            hub.include(group, message.excluded)
            raise
        return str(message.id) if message.id else None

    def publish_sync(self, group: str, data: Data, opcode: int = OpCode.TEXT) -> str | None:
        """`publish` from synchronous code: a Django view, a Celery task, a script. It blocks until the broker answers.

        Raises:
            RuntimeError: A loop runs in this thread: await `publish` instead.
            BrokerError, TypeError, ValueError: As for `publish`.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("publish_sync would block the event loop of this thread: await publish")
        message = Message(opcode, encode(data, opcode))
        self._broker.publish_sync(group, message)
        return str(message.id) if message.id else None

    def members(self, group: str) -> list[Member]:
        """Returns the members in this process."""
        hubs = list(self._hubs.values())
        return [member for hub in hubs if group in hub.groups for member in hub.groups[group].copy_of_members()]

    def count(self, group: str) -> int:
        """Returns the number of members in this process."""
        return sum(hub.groups[group].count() for hub in list(self._hubs.values()) if group in hub.groups)

    def names(self) -> list[str]:
        """Returns the groups that have members in this process, sorted."""
        return sorted({name for hub in list(self._hubs.values()) for name in list(hub.groups)})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    async def close(self) -> None:
        """Closes the broker, for the running loop and for synchronous code; memberships end.

        Not needed if `asyncio.run`, uvicorn or the embedded server ends the loop.
        """
        self._broker.close_sync()
        hub = self._hubs.pop(asyncio.get_running_loop(), None)
        if hub is not None:
            hub.groups.clear()
            hub.names.clear()
            await hub.connection.close()

    def _hub(self, loop: asyncio.AbstractEventLoop) -> "_Hub":
        hub = self._hubs.get(loop)
        if hub is None:
            with self._lock:
                hub = self._hubs.get(loop)
                if hub is None:
                    hubs = {other: hub for other, hub in self._hubs.items() if not other.is_closed()}
                    hub = hubs[loop] = _Hub(self._broker, loop, self._keeps_history, self._stamp)
                    self._hubs = hubs
        return hub

    def _hub_of(self, member: Member) -> "_Hub | None":
        """The hub in which a member can be; None if it has joined nothing, such as a view in `on_handshake`."""
        try:
            home = member._home
        except RuntimeError:  # the connection is not open yet
            return None
        return self._hubs.get(home)

    @staticmethod
    async def _at_home(member: Member, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine in the loop of a member.

        Raises:
            ConnectionClosed: That loop has ended.
        """
        home = member._home
        if home is asyncio.get_running_loop():
            return await coroutine
        if not home.is_running():
            coroutine.close()
            raise ConnectionClosed
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, home))


class _Group:
    """The members of a group in one loop.

    Attributes:
        members: In the order in which they joined.
        excluded: Members excluded from messages that are on their way here, by number.
        recovering: Messages for members that await their history.
        floors: The last message of a member's history, for members that received it before those messages came.
        seen: The last message that has come, or that preceded the first member.
        floor: The last message of the history with which all have caught up.
        waiting: Messages that come while all catch up; None otherwise.
        breaks: The number of gaps.
    """

    __slots__ = ("_stamp", "breaks", "excluded", "floor", "floors", "members", "recovering", "seen", "waiting")

    def __init__(self, stamp: Stamp | None) -> None:
        self._stamp = stamp
        self.breaks = 0
        self.members: dict[Member, None] = {}
        self.excluded: dict[int, Member] = {}
        self.recovering: dict[Member, list[Message]] = {}
        self.floors: dict[Member, MessageId] = {}
        self.seen: MessageId | None = None
        self.floor: MessageId | None = None
        self.waiting: list[Message] | None = None

    def copy_of_members(self) -> list[Member]:
        """Returns the members as a copy, so that they may join or leave during an iteration."""
        return [*self.members, *self.recovering]

    def count(self) -> int:
        """Returns the number of members."""
        return len(self.members) + len(self.recovering)

    def has(self, member: Member) -> bool:
        """Whether the connection is a member."""
        return member in self.members or member in self.recovering

    def remove(self, member: Member) -> None:
        """Removes a member."""
        self.members.pop(member, None)
        self.recovering.pop(member, None)
        self.floors.pop(member, None)

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
        self.members[member] = None
        last: MessageId | None = None
        for message in past.messages:
            last = message.id
            member._send_prepared(message.prepared(self._stamp))
        for message in waiting:
            if last is None or message.id is None or not last.covers(message.id):
                member._send_prepared(message.prepared(self._stamp))
        if last is not None and (self.seen is None or not self.seen.covers(last)):
            self.floors[member] = last


class _Hub:
    """The members of one loop; the handler of its connection to the broker.

    Attributes:
        groups: The groups with members, by name.
        names: The groups of each member.
        origin: The identifier of the hub in messages.
    """

    __slots__ = (
        "_keeps_history",
        "_lost_callback",
        "_numbers",
        "_stamp",
        "_tasks",
        "connection",
        "groups",
        "names",
        "origin",
    )

    def __init__(
        self, broker: Broker, loop: asyncio.AbstractEventLoop, keeps_history: bool, stamp: Stamp | None
    ) -> None:
        self._keeps_history = keeps_history
        self._stamp = stamp
        self._tasks: set[asyncio.Task[None]] = set()
        self.groups: dict[str, _Group] = {}
        self.names: dict[Member, tuple[str, ...]] = {}
        self.origin = os.urandom(8)
        self.connection: BrokerConnection = broker.connect(self, loop)
        self._numbers = itertools.count(1)
        self._lost_callback = self._lost  # one object for all members

    async def join(self, member: Member, name: str) -> bool:
        group = self._enter(member, name)
        if not group.has(member):
            group.members[member] = None
        await self._subscribe(name, group)
        return True

    async def rejoin(self, member: Member, name: str, since: MessageId | None) -> bool:
        """`join` of a member that first gets the messages after `since`."""
        group = self._enter(member, name)
        if group.has(member):
            return True
        group.recovering[member] = []
        past = Past([], False)
        try:
            await self._subscribe(name, group)
            past = await self._history.after(name, since)
        except BrokerError as error:
            logger.info("group %r: a member that joins gets no history: %s", name, error)
        finally:
            if member in group.recovering:  # it may have left
                group.recovered(member, past)
        return past.complete

    def _enter(self, member: Member, name: str) -> _Group:
        member._when_lost(self._lost_callback)
        names = self.names.get(member, ())
        if name not in names:
            self.names[member] = (*names, name)
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = _Group(self._stamp)
        return group

    async def _subscribe(self, name: str, group: _Group) -> None:
        if self._keeps_history and group.seen is None:
            # Before the subscription: any message after that position is delivered or caught up on.
            with suppress(BrokerError):
                position = await self._history.position(name)
                group.seen = group.seen or position
        if self.groups.get(name) is group:  # the last member may have left
            await self.connection.subscribe(name)

    @property
    def _history(self) -> HistoryConnection:
        return cast("HistoryConnection", self.connection)

    async def leave(self, member: Member, name: str) -> None:
        names = tuple(other for other in self.names.get(member, ()) if other != name)
        if names:
            self.names[member] = names
        else:
            self.names.pop(member, None)
        self._remove(member, name)

    def _lost(self, member: Member) -> None:
        """Removes a member whose connection has ended."""
        for name in self.names.pop(member, ()):
            self._remove(member, name)

    def _remove(self, member: Member, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        group.remove(member)
        if not group.count():
            del self.groups[name]
            self.connection.unsubscribe(name)

    def exclude(self, member: Member, name: str) -> int:
        """Returns a number that excludes a member from a message; 0 if it would not get the message anyway."""
        group = self.groups.get(name)
        if group is None or not group.has(member):
            return 0
        number = next(self._numbers)
        group.excluded[number] = member
        return number

    def include(self, name: str, number: int) -> None:
        """Drops a number whose message does not come."""
        group = self.groups.get(name)
        if group is not None:
            group.excluded.pop(number, None)

    # The handler of a broker

    def received(self, name: str, message: Message) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        if group.waiting is not None:
            group.waiting.append(message)
        else:
            group.take(message, self.origin)

    def interrupted(self, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        group.breaks += 1
        if not self._keeps_history:
            self._tell_of_gap(name, group)
        elif group.waiting is None:
            group.waiting = []
            task = asyncio.get_running_loop().create_task(self._catch_up(name, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _catch_up(self, name: str, group: _Group) -> None:
        """Delivers the missed messages to all members, then those that have come in the meantime."""
        past = Past([], False)
        breaks = 0
        try:
            while breaks != group.breaks and group.seen is not None:  # another gap may occur during the catch-up
                breaks = group.breaks
                past = await self._history.after(name, group.seen)
        except BrokerError as error:
            logger.warning("group %r: its members cannot catch up: %s", name, error)
        finally:
            waiting, group.waiting = group.waiting or [], None
            for message in past.messages:
                group.take(message, self.origin)
            if past.messages:
                group.floor = past.messages[-1].id
            for message in waiting:
                group.take(message, self.origin)
            if not past.complete:
                self._tell_of_gap(name, group)

    def _tell_of_gap(self, name: str, group: _Group) -> None:
        group.excluded.clear()
        for member in list(group.members):
            try:
                member._missed(name)
            except Exception:
                logger.exception("%r cannot be told of a gap in group %r", member, name)
