"""Groups: who has joined which name in this process, and how messages get to them.

Each event loop has a `_Hub` with the members that live there; a broker brings messages to the hubs of this process and
of others. A hub subscribes to a group with its first member and unsubscribes with its last.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from ..exceptions import ConnectionClosed
from ..logging import logger
from ..opcodes import OpCode
from ..protocol.prepared import Data, Prepared, encode, send_to_all
from .broker import Broker, BrokerConnection, Message
from .memory import MemoryBroker

__all__ = ["Groups", "Member"]

Result = TypeVar("Result")


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

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL cannot be right.
    """

    def __init__(self, broker: Broker | str | None = None, *, prefix: str = "duck:", timeout: float = 5.0) -> None:
        self._broker: Broker
        if isinstance(broker, str):
            from .redis import RedisBroker

            self._broker = RedisBroker(broker, prefix=prefix, timeout=timeout)
        else:
            self._broker = MemoryBroker() if broker is None else broker
        self._hubs: dict[asyncio.AbstractEventLoop, _Hub] = {}
        self._lock = threading.Lock()

    async def join(self, member: Member, group: str) -> None:
        """Makes a connection a member; does nothing if it is one.

        Returns once messages of the group reach the member, or at once where the broker is away: the member's `on_gap`
        is called when they do.

        Raises:
            ConnectionClosed: The connection is closing or gone.
            RuntimeError: It is not open yet.
        """
        await self._at_home(member, self._hub(member._home).join(member, group))

    async def leave(self, member: Member, group: str) -> None:
        """Ends a membership; does nothing if there is none."""
        await self._at_home(member, self._hub(member._home).leave(member, group))

    async def publish(
        self, group: str, data: Data, opcode: int = OpCode.TEXT, *, exclude: Member | None = None
    ) -> None:
        """Sends a message to all members, without waiting for any of them.

        Args:
            group: Its name; nobody has to be in it.
            data: A str or bytes-like.
            opcode: TEXT or BINARY.
            exclude: A member that does not get it.

        Raises:
            BrokerError: The broker has not taken the message, or cannot be said to have taken it.
            TypeError: The data is neither str nor bytes-like.
            ValueError: The opcode is another one, or bytes that are sent as TEXT are not UTF-8.
        """
        payload = encode(data, opcode)
        connection = self._hub(asyncio.get_running_loop()).connection
        hub = None if exclude is None else self._hubs.get(exclude._home)
        if exclude is None or hub is None:
            await connection.publish(group, Message(opcode, payload))
            return
        excluded = hub.exclude(exclude, group)
        try:
            await connection.publish(group, Message(opcode, payload, hub.origin, excluded))
        except BaseException:
            hub.include(group, excluded)
            raise

    def publish_sync(self, group: str, data: Data, opcode: int = OpCode.TEXT) -> None:
        """`publish` from synchronous code: a Django view, a Celery task, a script. It blocks until the broker answers.

        Raises:
            RuntimeError: A loop runs in this thread: await `publish`.
            BrokerError, TypeError, ValueError: As for `publish`.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("publish_sync would block the event loop of this thread: await publish")
        self._broker.publish_sync(group, Message(opcode, encode(data, opcode)))

    def members(self, group: str) -> list[Member]:
        """The members in this process."""
        hubs = list(self._hubs.values())
        return [member for hub in hubs if group in hub.groups for member in hub.groups[group].copy_of_members()]

    def count(self, group: str) -> int:
        """How many members there are in this process."""
        return sum(len(hub.groups[group].members) for hub in list(self._hubs.values()) if group in hub.groups)

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
                    hub = hubs[loop] = _Hub(self._broker, loop)
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
    """

    __slots__ = ("excluded", "members")

    def __init__(self) -> None:
        self.members: dict[Member, None] = {}
        self.excluded: dict[int, Member] = {}

    def copy_of_members(self) -> list[Member]:
        """The members, whoever joins or leaves meanwhile."""
        return list(self.members)


class _Hub:
    """The members of one loop; the handler of its connection to the broker.

    Attributes:
        groups: By name; those that have members.
        names: The groups of each member.
        origin: Names the hub in messages.
    """

    __slots__ = ("_lost_callback", "_numbers", "connection", "groups", "names", "origin")

    def __init__(self, broker: Broker, loop: asyncio.AbstractEventLoop) -> None:
        self.groups: dict[str, _Group] = {}
        self.names: dict[Member, tuple[str, ...]] = {}
        self.origin = os.urandom(8)
        self.connection: BrokerConnection = broker.connect(self, loop)
        self._numbers = itertools.count(1)
        self._lost_callback = self._lost  # one object for all members

    async def join(self, member: Member, name: str) -> None:
        member._when_lost(self._lost_callback)
        names = self.names.get(member, ())
        if name not in names:
            self.names[member] = (*names, name)
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = _Group()
        group.members[member] = None
        await self.connection.subscribe(name)

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
        group.members.pop(member, None)
        if not group.members:
            del self.groups[name]
            self.connection.unsubscribe(name)

    def exclude(self, member: Member, name: str) -> int:
        """A number by which a message leaves out a member; 0 if it would not get the message anyway."""
        group = self.groups.get(name)
        if group is None or member not in group.members:
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
        members = group.members
        if message.excluded and message.origin == self.origin:
            left_out = group.excluded.pop(message.excluded, None)
            if left_out in members:
                members = members.copy()
                del members[left_out]
        send_to_all(list(members), message.prepared())

    def interrupted(self, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        group.excluded.clear()
        for member in list(group.members):
            try:
                member._missed(name)
            except Exception:
                logger.exception("%r cannot be told of a gap in group %r", member, name)
