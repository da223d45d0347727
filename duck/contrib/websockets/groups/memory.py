"""`MemoryBroker`: the broker within one process, which delivers messages between its loops and threads."""

import asyncio
import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from ..codec import SENT
from ..logging import logger
from .broker import Handler, Message, MessageId, Past
from .history import History, MemoryHistory

__all__ = ["MemoryBroker"]

_COMMANDS = frozenset({"granian", "gunicorn", "hypercorn", "uvicorn"})
"""Servers whose workers have the command line of the server as `sys.argv`."""


class MemoryBroker:
    """Connects the loops of a process, each of which has its own members.

    Args:
        history: The limits of the histories; None for no history.
    """

    def __init__(self, history: History | None) -> None:
        self._connections: tuple[_MemoryConnection, ...] = ()
        self.history = None if history is None else MemoryHistory(history)
        self.entries: dict[str, dict[str, str]] = {}  # of present members, by group and id
        self.lock = threading.RLock()  # reentrant, because a delivery may publish other messages

    def connect(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> "_MemoryConnection":
        """See `Broker`. With several workers it warns, because members in the others would get no messages."""
        _warn_of_workers()
        connection = _MemoryConnection(self, handler, loop)
        with self.lock:
            for other in self._connections:
                if other.loop.is_closed():
                    self.drop(other)
            self._connections = (*self._connections, connection)
        return connection

    def publish_sync(self, group: str, message: Message) -> None:
        """Passes a message to every loop; may be called from any thread."""
        if self.history is None:
            self._deliver(group, message)
            return
        with self.lock:  # so that messages arrive in the order of their ids
            self.history.add(group, message)
            self._deliver(group, message)

    def _deliver(self, group: str, message: Message) -> None:
        for connection in self._connections:
            connection.deliver(group, message)

    def close_sync(self) -> None:
        """Does nothing, because there is no connection to close."""

    def enter(self, group: str, entry: str, data: str) -> None:
        """Adds an entry of a present member, or replaces its data; may be called from any thread."""
        with self.lock:  # so that all loops get the changes in the same order
            entries = self.entries.setdefault(group, {})
            if entries.get(entry) != data:
                entries[entry] = data
                self._change(group, {entry: data}, {})

    def exit(self, group: str, entry: str) -> None:
        """Removes an entry; may be called from any thread."""
        with self.lock:
            entries = self.entries.get(group, {})
            data = entries.pop(entry, None)
            if not entries:
                self.entries.pop(group, None)
            if data is not None:
                self._change(group, {}, {entry: data})

    def _change(self, group: str, joined: dict[str, str], left: dict[str, str]) -> None:
        for connection in self._connections:
            connection.change(group, joined, left)

    def drop(self, connection: "_MemoryConnection") -> None:
        """Removes a connection, and the entries of its members."""
        with self.lock:
            self._connections = tuple(one for one in self._connections if one is not connection)
            for group, entries in list(self.entries.items()):
                for entry in [entry for entry in entries if entry.startswith(connection.origin)]:
                    self.exit(group, entry)


class _MemoryConnection:
    """One loop of the process."""

    def __init__(self, broker: MemoryBroker, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._broker = broker
        self._handler = handler
        self._groups: set[str] = set()
        self.origin = handler.origin.hex()
        self.loop = loop

    def deliver(self, group: str, message: Message) -> None:
        """Delivers a message, in the thread of the loop."""
        if group in self._groups:
            self._call(self._handler.received, group, message)

    def change(self, group: str, joined: dict[str, str], left: dict[str, str]) -> None:
        """Reports a change of presence, in the thread of the loop."""
        if group in self._groups:
            self._call(self._handler.changed, group, joined, left)

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        if asyncio._get_running_loop() is self.loop:
            callback(*args)
            return
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    async def publish(self, group: str, message: Message) -> None:
        self._broker.publish_sync(group, message)

    async def subscribe(self, group: str) -> None:
        self._groups.add(group)

    def unsubscribe(self, group: str) -> None:
        self._groups.discard(group)

    async def position(self, group: str) -> MessageId | None:
        history = self._broker.history
        assert history is not None
        with self._broker.lock:
            return history.position(group)

    async def after(self, group: str, since: MessageId | None) -> Past:
        history = self._broker.history
        assert history is not None
        with self._broker.lock:
            return history.after(group, since)

    def enter(self, group: str, entry: str, data: str) -> Awaitable[None]:
        self._broker.enter(group, entry, data)
        return SENT

    def exit(self, group: str, entry: str) -> None:
        self._broker.exit(group, entry)

    async def present(self, group: str) -> dict[str, str]:
        with self._broker.lock:
            return dict(self._broker.entries.get(group, ()))

    async def close(self) -> None:
        self._broker.drop(self)


def _warn_of_workers() -> None:
    if os.environ.get("DUCK_WORKER_PID", str(os.getpid())) != str(os.getpid()):
        return  # a child process of a worker, which does not serve
    for name, count in _counts_of_workers():
        if count.isdecimal() and int(count) > 1:
            logger.warning(
                "groups are kept in this process, but %s=%s processes serve: a message reaches the members in one of"
                ' them only: use Groups("redis://..."), or duck serve --groups and Groups(os.environ["DUCK_GROUPS"])',
                name,
                count,
            )
            return


def _counts_of_workers() -> Iterator[tuple[str, str]]:
    """Yields the names and values of settings that may have the number of processes."""
    yield "DUCK_WORKERS", os.environ.get("DUCK_WORKERS", "")
    program = Path(sys.argv[0])
    # The folders are those of `python -m`, such as `python -m duck.server`.
    names = {*program.parts[-3:-1]} if program.stem == "__main__" else {program.stem}
    if "duck" not in names:  # `duck serve` takes no number of the environment, which some platforms set
        yield "WEB_CONCURRENCY", os.environ.get("WEB_CONCURRENCY", "")
    if not _COMMANDS.isdisjoint(names):
        for argument, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
            option = re.fullmatch(r"(--workers|-w)=?(\d*)", argument)  # also -w4
            if option:
                yield option[1], option[2] or following
