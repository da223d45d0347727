"""`Hub`: the members of one event loop, by group, and the handler of the loop's connection to a broker."""

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

from ..codec import SENT
from ..exceptions import BrokerError
from ..logging import log_failure, logger
from ..protocol.broadcast import Prepared, send_to_all
from ..protocol.stepping import start_task
from .broker import Broker, BrokerConnection, HistoryConnection, Message, MessageId, Past, PresenceConnection
from .local_group import LocalGroup, Member, Stamp
from .memory import MemoryBroker
from .presence import Announce, Presence, changes, decode_entries

__all__ = ["Hub"]

_PORTION = 65536  # bytes of a history that are sent to a member before it waits for its peer


class Hub:
    """The members of one loop; the handler of its connection to the broker.

    Args:
        broker: The broker to connect to.
        loop: The loop.
        timeout: Seconds that `join` waits for the broker, and for room for a history.
        keeps_history: Whether the broker keeps a history.
        stamp: See `Groups`.
        announce: See `Groups`.

    Attributes:
        groups: The groups with members, by name.
        names: The groups of each member: a tuple for a single group, else the keys of a dict.
        origin: The identifier of the hub in messages.
    """

    __slots__ = (
        "_announce",
        "_broker_timeout",
        "_keeps_history",
        "_lost_callback",
        "_new_number",
        "_stamp",
        "_tasks",
        "_timeout",
        "connection",
        "groups",
        "names",
        "origin",
    )

    def __init__(
        self,
        broker: Broker,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        *,
        keeps_history: bool,
        stamp: Stamp | None,
        announce: Announce | None,
    ) -> None:
        self._timeout = timeout
        self._broker_timeout = None if isinstance(broker, MemoryBroker) else timeout
        self._keeps_history = keeps_history
        self._stamp = stamp
        self._announce = announce
        self._tasks: set[asyncio.Future[None]] = set()
        self.groups: dict[str, LocalGroup] = {}
        self.names: dict[Member, tuple[str] | dict[str, None]] = {}
        self.origin = os.urandom(8)
        self.connection: BrokerConnection = broker.connect(self, loop)
        self._new_number = itertools.count(1).__next__
        self._lost_callback = self._lost  # one object for all members

    async def join(self, member: Member, name: str, data: str | None) -> bool:
        """See `Groups.join`."""
        group = self._enter(member, name)
        is_new = not group.has(member)
        if is_new:
            group.members[member] = None
        number = 0 if data is None else group.number(member)
        entered: Awaitable[None] = SENT
        with suppress(TimeoutError):
            async with asyncio.timeout(self._broker_timeout):
                try:
                    await self._subscribe(name, group)
                except BrokerError:
                    if is_new:
                        await self.leave(member, name)
                    raise
                finally:
                    entered = self._set_data(member, name, number, data)
                await entered
        return True

    async def rejoin(self, member: Member, name: str, data: str | None, since: MessageId | None) -> bool:
        """`join` of a member that first gets the messages after `since`."""
        group = self._enter(member, name)
        if group.has(member):
            return await self.join(member, name, data)
        waiting: list[Message] = []  # identifies the membership: the member may leave, and join again
        group.recovering[member] = waiting
        number = 0 if data is None else group.number(member)
        is_subscribed = False
        past = Past([], False)
        missed = iter(past.messages)
        entered: Awaitable[None] = SENT
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    await self._subscribe(name, group)
                    is_subscribed = True
                    past = await self._history.after(name, since)
                    missed = iter(past.messages)
                    if past.messages and past.messages[0].id is not None and group.recovering.get(member) is waiting:
                        group.send_older(member, past.messages[0].id)
                    await self._send_missed(member, group, waiting, missed)
                except BrokerError:
                    if not is_subscribed:
                        await self.leave(member, name)
                    raise
                finally:
                    if group.recovering.get(member) is waiting:
                        last = past.messages[-1].id if past.messages else None
                        group.recovered(member, missed, last)
                    entered = self._set_data(member, name, number, data)
                await entered
        except (BrokerError, TimeoutError) as error:
            if not is_subscribed and isinstance(error, BrokerError):
                raise
            if not past.complete:
                logger.info("group %r: a joining member gets no history: %s", name, str(error) or "no answer")
        return past.complete

    @staticmethod
    async def _send_missed(
        member: Member, group: LocalGroup, waiting: list[Message], missed: Iterator[Message]
    ) -> None:
        """Delivers missed messages as fast as the member's peer reads them, because all at once may be too many."""
        drained: Callable[[], Awaitable[None]] | None = getattr(member, "_drained", None)
        size = 0
        for message in missed:
            if group.recovering.get(member) is not waiting:
                return
            group.send_missed(member, message)
            size += len(message.payload)
            if size >= _PORTION and drained is not None:
                size = 0
                await drained()

    def _enter(self, member: Member, name: str) -> LocalGroup:
        member._when_lost(self._lost_callback)
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = LocalGroup(name, self._stamp, self.origin, self._new_number)
        names = self.names.get(member)
        if names is None:
            self.names[member] = group.alone
        elif name not in names:
            if isinstance(names, tuple):
                names = self.names[member] = dict.fromkeys(names)
            names[name] = None
        return group

    async def _subscribe(self, name: str, group: LocalGroup) -> None:
        if self._keeps_history and not group.positioned:
            # The position is read before the subscription, so that each later message is delivered or caught up on. It
            # is read once, because the first members may have missed messages before a later position.
            positioning = group.positioning or self._spawn(self._find_position(name, group))
            group.positioning = None if group.positioned else positioning
            try:
                await asyncio.shield(positioning)
            except asyncio.CancelledError:
                if self.groups.get(name) is group:  # the member stays, and gets new messages
                    self._spawn(self._subscribe_later(name, group))
                raise
        if self.groups.get(name) is group:  # the last member may have left
            await self.connection.subscribe(name)

    async def _subscribe_later(self, name: str, group: LocalGroup) -> None:
        """Subscribes to a group whose member does not wait for it any more.

        The cancelled call has the start of the delivery reported as a gap, because messages were missed until then.
        """
        if group.positioning is not None:
            await asyncio.wait([group.positioning])
        if self.groups.get(name) is not group:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await self.connection.subscribe(name)
        except BrokerError as error:
            logger.error("group %r: its members get no messages: %s", name, error)

    async def _find_position(self, name: str, group: LocalGroup) -> None:
        try:
            with suppress(BrokerError):
                position = await self._history.position(name)
                group.seen = group.seen or position
        finally:
            group.positioned = True
            group.positioning = None

    def _set_data(self, member: Member, name: str, number: int, data: str | None) -> Awaitable[None]:
        """Makes a member present, unless it has left; the result completes when others see it."""
        group = self.groups.get(name)
        if data is None or group is None or not group.has(member):
            return SENT
        if group.number(member) != number:  # it has left, and joined again
            return SENT
        return self._presence.enter(name, group.make_present(member), data)

    def check_presence(self) -> None:
        """Raises ValueError if the broker keeps no presence."""
        if not hasattr(self.connection, "present"):
            raise ValueError("this broker keeps no presence: it lacks the methods of PresenceConnection")

    async def present(self, name: str) -> list[Presence]:
        """See `Groups.presence`."""
        self.check_presence()
        return decode_entries(await self._presence.present(name))

    @property
    def _presence(self) -> PresenceConnection:
        return cast("PresenceConnection", self.connection)

    @property
    def _history(self) -> HistoryConnection:
        return cast("HistoryConnection", self.connection)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        # Eagerly: if the broker answers at once, a join ends in the step of its call, and misses no message after it.
        task = start_task(asyncio.get_running_loop(), coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Ends all memberships, and the connection to the broker."""
        for group in self.groups.values():
            group.clear()
        self.groups.clear()
        self.names.clear()
        await self.connection.close()
        if self._tasks:  # the end of the connection ends them
            await asyncio.wait(self._tasks, timeout=self._timeout)

    async def leave(self, member: Member, name: str) -> None:
        """See `Groups.leave`."""
        names = self.names.get(member, ())
        if isinstance(names, dict) and len(names) > 1:
            names.pop(name, None)
        elif name in names:
            del self.names[member]
        self._remove(member, name)

    def _lost(self, member: Member) -> None:
        """Removes a member whose connection has ended."""
        for name in self.names.pop(member, ()):
            try:
                self._remove(member, name)
            except Exception as error:  # of a custom broker
                log_failure(error, "group %r: the broker has failed at the end of a membership", name)

    def _remove(self, member: Member, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        entry = group.remove(member)
        if entry is not None:
            self._presence.exit(name, entry)
        if not group.count():
            del self.groups[name]
            self.connection.unsubscribe(name)

    async def number(self, member: Member, name: str) -> int:
        """Returns the number by which a message excludes a member; 0 if it would not get the message anyway."""
        group = self.groups.get(name)
        if group is None or not group.has(member):
            return 0
        return group.number(member)

    # Calls of the broker; see `Handler`

    def received(self, name: str, message: Message) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        if group.waiting is not None:
            group.waiting.append(message)
        else:
            group.deliver(message)

    def interrupted(self, name: str) -> None:
        group = self.groups.get(name)
        if group is None:
            return
        group.breaks += 1
        if not self._keeps_history:
            self._report_gap(name, group.copy_of_members())
        elif group.waiting is None:
            group.waiting = []
            self._spawn(self._catch_up(name, group))
        else:
            group.waiting.clear()  # the history still has them, or the members are told of the gap

    def changed(self, name: str, joined: dict[str, str], left: dict[str, str]) -> None:
        group = self.groups.get(name)
        if group is None or self._announce is None:
            return
        try:
            for change in changes(name, joined, left):
                payload = self._announce(change)
                if payload is not None:
                    send_to_all(list(group.members), Prepared(payload))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the loop
            log_failure(error, "group %r: a change of presence cannot be announced", name)

    async def _catch_up(self, name: str, group: LocalGroup) -> None:
        """Delivers the missed messages to all members, then the messages received in the meantime."""
        past = Past([], False)
        breaks = 0
        floors: dict[Member, MessageId] = {}
        try:
            while breaks != group.breaks:  # another gap may occur during the catch-up
                breaks = group.breaks
                past = Past([], False)  # if the history cannot be read again, the second gap is reported
                floors = dict(group.floors)
                if group.seen is not None:
                    past = await self._history.after(name, group.seen)
                if group.floors and not past.complete:
                    group.forget_floors((await self._history.after(name, None)).messages)
        except BrokerError as error:
            logger.warning("group %r: its members cannot catch up: %s", name, error)
        finally:
            waiting, group.waiting = group.waiting or [], None
            ahead = group.ahead(floors, past.messages) if past.complete else []
            for message in past.messages:
                group.deliver(message)
            for member in ahead:
                group.floors.pop(member, None)  # the server may assign its id again
            if past.messages:
                group.floor = past.messages[-1].id
            elif not past.complete:
                group.floor = None  # a server's older copy may assign ids again
            for message in waiting:
                group.deliver(message)
            self._report_gap(name, ahead if past.complete else group.copy_of_members())

    @staticmethod
    def _report_gap(name: str, members: Iterable[Member]) -> None:
        for member in members:
            try:
                member._missed(name)
            except Exception as error:
                log_failure(error, "group %r: the gap cannot be reported to %r", name, member)
