"""Groups: connections by name, and the messages to all of them.

Each event loop has a `Hub` with its members. A broker carries messages to the hubs of this process and of others. A hub
subscribes to a group with its first member and unsubscribes with its last.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from ..exceptions import ConnectionClosed
from ..opcodes import OpCode
from ..protocol.broadcast import encode
from ..protocol.threadsafe import call_threadsafe
from ..sansio.payloads import Data
from .broker import Broker, Message, MessageId
from .history import History, checked_seconds
from .hub import Hub
from .local_group import Member, Stamp
from .memory import MemoryBroker
from .presence import Announce, Presence, PresenceOptions, encode_data

__all__ = ["Groups"]

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class Groups:
    """Groups of connections, by name. A member leaves automatically when its connection ends, for any reason.

    Create it before any loop runs. All handlers, threads and loops of a process may use it. Every member gets the
    messages of one publisher in their order, each at most once. A slow member does not delay the others; the
    `SLOW_CONSUMER` of its view applies to it. `stamp` and `announce` see the context variables of the code that creates
    the object, because they serve all members.

    Args:
        broker: None for groups of this process alone; `redis://host:port/db`, `rediss://...`, `unix://path`,
            `redis+cluster://host:port` or `redis+sentinel://host:port,host:port/master` for groups across processes,
            which needs the extra `redis`; or a custom broker.
        prefix: The prefix of channel names at a Redis server.
        timeout: Seconds that a call may wait for the broker.
        history: Messages that are kept for each group, with which members catch up; 0 for none. All processes that use
            a Redis server need the same value.
        history_ttl: Seconds after the last message of a group until its history expires.
        stamp: Adds the id of a message to the payload that members get, so that a client can pass it as `since` when it
            returns: called with the payload and the id, returns the payload to send. Requires a history.
        presence_ttl: Seconds until the members of a dead process are no longer present.
        announce: Announces changes of presence to the members of a group. Called with each `PresenceChange`, once for
            each event loop with members; returns the message to send to these members, or None.

    Raises:
        ImportError: redis-py is not installed.
        TypeError: An argument has the wrong type.
        ValueError: The URL is invalid, or another argument is out of bounds.
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
        presence_ttl: float = 30.0,
        announce: Announce | None = None,
    ) -> None:
        _check_broker(broker)
        if not isinstance(prefix, str):
            raise TypeError(f"prefix is a str, such as 'duck:', not {prefix!r}")
        _check_function("stamp", "the payload and the id of a message", stamp)
        _check_function("announce", "a PresenceChange", announce)
        timeout = checked_seconds("timeout", timeout)
        kept = History.checked(history, history_ttl)
        if stamp is not None and kept is None:
            raise ValueError("stamp adds the ids of a history: make the groups by Groups(..., history=100)")
        presence = PresenceOptions(checked_seconds("presence_ttl", presence_ttl), announce is not None)
        self._broker: Broker
        if isinstance(broker, str):
            try:
                from .redis import RedisBroker
            except ImportError as error:
                raise ImportError("groups on Redis need redis-py: pip install 'duck-websockets[redis]'") from error
            self._broker = RedisBroker(broker, prefix=prefix, timeout=timeout, history=kept, presence=presence)
        else:
            self._broker = MemoryBroker(kept) if broker is None else broker
        self._timeout = timeout
        self._keeps_history = kept is not None
        self._stamp = stamp and _in_current_context(stamp)
        self._announce = announce and _in_current_context(announce)
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> NoReturn:
        raise TypeError("groups belong to their process, and cannot be copied or pickled: make them in each process")

    async def join(self, member: Member, group: str, *, since: str | None = None, data: Any = None) -> bool:
        """Adds a connection to a group. For a member, it only replaces the data.

        Returns once messages of the group reach the member, after `timeout` seconds at most. If the broker is
        unavailable, the member is added nevertheless, and its `on_gap` is called once messages are delivered. A history
        is sent as fast as the peer reads it; the rest after `timeout` is sent at once, and `SLOW_CONSUMER` applies.

        Args:
            member: A view, or another end of a connection.
            group: The name of the group.
            since: The id of the last message that the member has received, or "" for the whole history. The member gets
                the later messages in order, then new ones, with neither losses nor duplicates.
            data: Makes the member present with this data: anything that JSON can express, 1,024 bytes at most. None
                leaves its presence as it is.

        Returns:
            False if the history does not reach back to `since`, or cannot be read; then the member gets only new
            messages.

        Raises:
            BrokerError: The broker refuses the group, such as by an ACL of Redis. A new member is not added.
            ConnectionClosed: The connection is closing or closed.
            RuntimeError: The connection is not open yet.
            TypeError: The data cannot be JSON, the group is not a str, the member is not a connection, or its class
                defines `__eq__`.
            ValueError: `since` is not an id, these groups have no history, the data is too large, the name has a
                surrogate, or the custom broker keeps no presence.
        """
        _check_name(group)
        try:
            home = _home_of(member)
        except RuntimeError:
            raise RuntimeError("the connection is not open yet: join from on_open on") from None
        hub = self._hub(home)
        text = None
        if data is not None:
            hub.check_presence()
            text = encode_data(data)
        if since is None:
            return await self._at_home(member, hub.join, member, group, text)
        if not self._keeps_history:
            raise ValueError("these groups keep no history: make them by Groups(..., history=100)")
        start = MessageId.parse(since) if since else None
        return await self._at_home(member, hub.rejoin, member, group, text, start)

    async def leave(self, member: Member, group: str) -> None:
        """Removes a connection from a group; does nothing if it is not a member."""
        _check_name(group)
        hub = self._hub_of(member)
        if hub is not None:
            await self._at_home(member, hub.leave, member, group)

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
            TypeError: The data is neither str nor bytes-like, the group is not a str, or `exclude` is not a connection.
            ValueError: The opcode is neither TEXT nor BINARY, bytes sent as TEXT are not UTF-8, or the name has a
                surrogate.
        """
        _check_name(group)
        message = Message(opcode, encode(data, opcode))
        connection = self._hub(asyncio.get_running_loop()).connection
        if exclude is not None and (hub := self._hub_of(exclude)) is not None:
            message.origin = hub.origin
            with suppress(ConnectionClosed):
                message.excluded = await self._at_home(exclude, hub.number, exclude, group)
        await connection.publish(group, message)
        return str(message.id) if message.id else None

    def publish_sync(self, group: str, data: Data, opcode: int = OpCode.TEXT) -> str | None:
        """`publish` for synchronous code, such as a Django view or a Celery task. It blocks until the broker answers.

        Raises:
            RuntimeError: A loop runs in this thread: await `publish` instead.
            BrokerError, TypeError, ValueError: As for `publish`.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("publish_sync would block the event loop of this thread: await publish")
        _check_name(group)
        message = Message(opcode, encode(data, opcode))
        self._broker.publish_sync(group, message)
        return str(message.id) if message.id else None

    def members(self, group: str) -> list[Any]:
        """Returns the members in this process: the views and clients that have joined."""
        hubs = list(self._hubs.values())
        return [member for hub in hubs if group in hub.groups for member in hub.groups[group].copy_of_members()]

    def count(self, group: str) -> int:
        """Returns the number of members in this process."""
        return sum(hub.groups[group].count() for hub in list(self._hubs.values()) if group in hub.groups)

    async def presence(self, group: str) -> list[Presence]:
        """Returns the present members in all processes: those that have joined with `data`.

        In a process with members of the group, `announce` gets all changes after the returned state.

        Raises:
            BrokerError: The broker does not answer.
        """
        _check_name(group)
        return await self._hub(asyncio.get_running_loop()).present(group)

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
        with self._lock:  # another loop may be replacing the table
            hub = self._hubs.pop(asyncio.get_running_loop(), None)
        if hub is not None:
            await hub.close()

    def _hub(self, loop: asyncio.AbstractEventLoop) -> Hub:
        hub = self._hubs.get(loop)
        if hub is None:
            with self._lock:
                hub = self._hubs.get(loop)
                if hub is None:
                    hubs = {other: hub for other, hub in self._hubs.items() if not other.is_closed()}
                    hub = hubs[loop] = Hub(
                        self._broker,
                        loop,
                        self._timeout,
                        keeps_history=self._keeps_history,
                        stamp=self._stamp,
                        announce=self._announce,
                    )
                    self._hubs = hubs
        return hub

    def _hub_of(self, member: Member) -> Hub | None:
        """Returns the hub of a member's loop; None for a connection without memberships, as during `on_handshake`."""
        try:
            home = _home_of(member)
        except RuntimeError:  # the connection is not open yet
            return None
        return self._hubs.get(home)

    @staticmethod
    async def _at_home(member: Member, method: Callable[..., Coroutine[Any, Any, Result]], *args: Any) -> Result:
        """Calls a method in the loop of a member.

        Raises:
            ConnectionClosed: That loop has ended.
        """
        home = member._home
        if home is asyncio.get_running_loop():
            return await method(*args)
        return await call_threadsafe(_Home(home), method, *args)


class _Home(NamedTuple):
    """The loop of a member, for `call_threadsafe`."""

    loop: asyncio.AbstractEventLoop
    lost: bool = True  # a loop that does not run any more ends the call

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed()


def _check_broker(broker: object) -> None:
    if broker is None or isinstance(broker, str):
        return
    if isinstance(broker, type) or not callable(getattr(broker, "connect", None)):
        raise TypeError(
            "broker is None, a URL such as 'redis://127.0.0.1', or an object with the methods of Broker,"
            f" not {broker!r}"
        )


def _check_function(name: str, arguments: str, function: object) -> None:
    if function is not None and not callable(function):
        raise TypeError(f"{name} is a function that takes {arguments}, or None, not {function!r}")


def _in_current_context(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Returns the function bound to the current context variables, each call in a copy of them."""
    context = copy_context()

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return context.copy().run(function, *args, **kwargs)

    return call


def _check_name(group: object) -> None:
    """Checks the name of a group.

    Raises:
        TypeError: The name is not a str; a Redis server would not distinguish 5 from "5".
        ValueError: The name has a surrogate, so it cannot be sent to a broker.
    """
    if not isinstance(group, str):
        raise TypeError(f"the name of a group is a str, not {group!r}")
    if not group.isascii():
        try:
            group.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the name of a group is text that UTF-8 can express, not {group!r}") from None


def _home_of(member: Member) -> asyncio.AbstractEventLoop:
    """Returns the loop of a member.

    Raises:
        RuntimeError: The connection is not open yet.
        TypeError: The member is not a connection, but such as a class; or its class defines `__eq__`.
    """
    home: object = None if isinstance(member, type) else getattr(member, "_home", None)
    if not isinstance(home, asyncio.AbstractEventLoop):
        raise TypeError(f"a member is a view or another end of a connection, not {member!r}")
    if type(member).__eq__ is not object.__eq__:  # two equal members would be one, and the second would get nothing
        name = type(member).__name__
        raise TypeError(f"{name} defines __eq__, but groups tell members apart by identity: compare attributes instead")
    return home
