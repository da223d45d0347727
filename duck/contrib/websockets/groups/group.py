"""Groups: who has joined which name in this process, and how messages get to them.

Each event loop has a `_Hub` with the members that live there; a broker brings messages to the hubs of this process and
of others. A hub subscribes to a group with its first member and unsubscribes with its last.
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
    """Who may join a group: a view, a client, or another end of a connection with these methods.

    The names have an underscore because all others in a view are its author's.
    """

    @property
    def _home(self) -> asyncio.AbstractEventLoop:
        """The loop in whose thread the other methods are called."""
        raise NotImplementedError

    def _send_prepared(self, message: Prepared) -> bool:
        """Sends a message without waiting; false if it does not leave."""
        raise NotImplementedError

    def _when_lost(self, callback: Callable[[Any], object]) -> None:
        """Calls back with the member when its connection is lost; once, however often it is asked for.

        Raises:
            ConnectionClosed: The connection is closing or gone.
        """

    def _missed(self, group: str) -> None:
        """Messages of a group may have been missed."""


class Groups:
    """Groups of connections, by name. A member leaves by itself when its connection ends, in whatever way.

    Made before any loop runs, and used by the handlers, threads and loops of a process. Every member gets the messages
    of one publisher in the order in which they were published, each at most once; none waits for a slow member, whose
    view's `SLOW_CONSUMER` decides.

    Args:
        broker: None for groups of this process alone; `redis://host:port/db`, `rediss://...` or `unix://path` for
            groups across processes, which needs the extra `redis`; or a broker of your own.
        prefix: Of the names of channels at a Redis server.
        timeout: Seconds that a call may wait for a Redis server.
        history: Messages of each group that are kept, by which members catch up; 0 for none. With a Redis server all
            processes have to have the same.
        history_ttl: Seconds after the last message of a group for which they are kept.
        stamp: Puts the id of a message into what members get, so that a client can tell `since` when it comes back:
            takes the payload and the id, and gives the payload to send. Where there is a history.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL cannot be right.
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
        """Makes a connection a member; does nothing if it is one.

        Returns once messages of the group reach the member, or at once where the broker is away: the member's `on_gap`
        is called when they do.

        Args:
            member: A view, or another end of a connection.
            group: Its name.
            since: The id of the last message that the member has got, or "" for all that the history has. The member
                gets the messages behind it, in order, and then new ones; none is lost and none comes twice.

        Returns:
            False if the history does not reach back to `since`, or cannot be read: then only new messages come.

        Raises:
            ConnectionClosed: The connection is closing or gone.
            RuntimeError: It is not open yet.
            ValueError: `since` is no id, or these groups have no history.
        """
        if since is None:
            return await self._at_home(member, self._hub(member._home).join(member, group))
        if not self._keeps_history:
            raise ValueError("these groups keep no history: make them by Groups(..., history=100)")
        start = MessageId.parse(since) if since else None
        return await self._at_home(member, self._hub(member._home).rejoin(member, group, start))

    async def leave(self, member: Member, group: str) -> None:
        """Ends a membership; does nothing if there is none."""
        await self._at_home(member, self._hub(member._home).leave(member, group))

    async def publish(
        self, group: str, data: Data, opcode: int = OpCode.TEXT, *, exclude: Member | None = None
    ) -> str | None:
        """Sends a message to all members, without waiting for any of them.

        Args:
            group: Its name; nobody has to be in it.
            data: A str or bytes-like.
            opcode: TEXT or BINARY.
            exclude: A member that does not get it.

        Returns:
            The id of the message, where these groups keep a history.

        Raises:
            BrokerError: The broker has not taken the message, or cannot be said to have taken it.
            TypeError: The data is neither str nor bytes-like.
            ValueError: The opcode is another one, or bytes that are sent as TEXT are not UTF-8.
        """
        payload = encode(data, opcode)
        connection = self._hub(asyncio.get_running_loop()).connection
        hub = None if exclude is None else self._hubs.get(exclude._home)
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
            RuntimeError: A loop runs in this thread: await `publish`.
            BrokerError, TypeError, ValueError: As for `publish`.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("publish_sync would block the event loop of this thread: await publish")
        message = Message(opcode, encode(data, opcode))
        self._broker.publish_sync(group, message)
        return str(message.id) if message.id else None

    def members(self, group: str) -> list[Member]:
        """The members in this process."""
        hubs = list(self._hubs.values())
        return [member for hub in hubs if group in hub.groups for member in hub.groups[group].copy_of_members()]

    def count(self, group: str) -> int:
        """How many members there are in this process."""
        return sum(hub.groups[group].count() for hub in list(self._hubs.values()) if group in hub.groups)

    def names(self) -> list[str]:
        """The groups that have members in this process, sorted."""
        return sorted({name for hub in list(self._hubs.values()) for name in list(hub.groups)})

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    async def close(self) -> None:
        """Lets go of the broker, for the loop that runs and for synchronous code; memberships end.

        Not needed where the loop ends by `asyncio.run`, uvicorn or the embedded server.
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
    """The members that a group has in one loop.

    Attributes:
        members: In the order in which they joined.
        excluded: Members that messages leave out which are on their way here, by their numbers.
        recovering: What has come for members that do not have their history yet.
        floors: For members that got their history before some of its messages came, the last of these.
        seen: The last message that has come, or that there was before the first member joined.
        floor: The last message of the history by which all have caught up.
        waiting: What has come while all catch up; None while they do not.
        breaks: How often messages may have been missed.
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
        """The members, whoever joins or leaves meanwhile."""
        return [*self.members, *self.recovering]

    def count(self) -> int:
        """How many members there are."""
        return len(self.members) + len(self.recovering)

    def has(self, member: Member) -> bool:
        """Whether it is a member."""
        return member in self.members or member in self.recovering

    def remove(self, member: Member) -> None:
        """It is a member no more."""
        self.members.pop(member, None)
        self.recovering.pop(member, None)
        self.floors.pop(member, None)

    def take(self, message: Message, origin: bytes) -> None:
        """Delivers a message, unless it has been delivered from the history."""
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
        """Delivers to a member what it has missed, and what has come meanwhile."""
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
        groups: By name; those that have members.
        names: The groups of each member.
        origin: Names the hub in messages.
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
        """`join` of a member that gets the messages behind one."""
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
            # Before the subscription: what is published behind that position comes, or is to be caught up on.
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
        """The connection of a member has ended."""
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
        """A number by which a message leaves out a member; 0 if it would not get the message anyway."""
        group = self.groups.get(name)
        if group is None or not group.has(member):
            return 0
        number = next(self._numbers)
        group.excluded[number] = member
        return number

    def include(self, name: str, number: int) -> None:
        """The message with that number does not come."""
        group = self.groups.get(name)
        if group is not None:
            group.excluded.pop(number, None)

    # As the handler of a broker

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
        """Delivers to all members what they have missed, and what has come meanwhile."""
        past = Past([], False)
        breaks = 0
        try:
            while breaks != group.breaks and group.seen is not None:  # it may break again meanwhile
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
