"""What the connections of one loop have in common: a buffer to receive into, a clock that wakes them, and threads."""

import asyncio
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ..codec import ReceiveBuffer

__all__ = ["Clock", "Sleeper", "clock", "receive_buffer", "threads"]

_BUFFER_SIZE = 262144  # the most that one read gives; stays in the second-level cache
_KEEP = 4194304  # bytes of freed memory that the allocator should keep at hand
_TICKS = 64  # a second
_MOST_THREADS = 4

_local = threading.local()


def receive_buffer(loop: asyncio.AbstractEventLoop) -> ReceiveBuffer:
    """Where the connections of `loop` receive, unless the codec knows better.

    One buffer serves all connections of a thread, because a loop that waits for readiness fills and empties it within
    one callback. It holds nothing between callbacks.
    """
    if sys.platform == "win32" and isinstance(loop, asyncio.ProactorEventLoop):
        return ReceiveBuffer(_BUFFER_SIZE)  # a proactor reads while other callbacks run
    try:
        buffer: ReceiveBuffer = _local.buffer
    except AttributeError:
        buffer = _local.buffer = ReceiveBuffer(_BUFFER_SIZE)
        # glibc's malloc sets its thresholds by the largest block that it has seen freed. Without this one, the pages of
        # each large message go back to the kernel and are zeroed again for the next: 1 MiB echoes cost 1.8 times more.
        bytes(_KEEP)
    return buffer


class Sleeper(Protocol):
    """Who can be woken by a clock."""

    def wake(self) -> None:
        """The time has come."""


class Clock:
    """Wakes those who wait for a time, with one timer of the loop for all whose times fall into one tick."""

    __slots__ = ("_sleepers",)

    def __init__(self) -> None:
        self._sleepers: dict[int, set[Sleeper]] = {}

    def set(self, loop: asyncio.AbstractEventLoop, when: float, sleeper: Sleeper) -> int:
        """Has `sleeper` woken, not before `when` and at most a tick later.

        Args:
            when: By the loop's time.

        Returns:
            The tick, to `drop` it by.
        """
        tick = int(when * _TICKS) + 1
        sleepers = self._sleepers.get(tick)
        if sleepers is None:
            self._sleepers[tick] = {sleeper}
            loop.call_at(tick / _TICKS, self._wake, loop, tick)
        else:
            sleepers.add(sleeper)
        return tick

    @staticmethod
    def time(tick: int) -> float:
        """When a tick is, by the loop's time."""
        return tick / _TICKS

    def drop(self, tick: int, sleeper: Sleeper) -> None:
        """Lets it sleep on."""
        sleepers = self._sleepers.get(tick)
        if sleepers is not None:
            sleepers.discard(sleeper)

    def _wake(self, loop: asyncio.AbstractEventLoop, tick: int) -> None:
        sleepers = self._sleepers[tick]
        try:
            while sleepers:
                sleepers.pop().wake()
        finally:
            if sleepers:  # one of them failed
                loop.call_soon(self._wake, loop, tick)
            else:
                del self._sleepers[tick]


def clock(loop: asyncio.AbstractEventLoop) -> Clock:
    """The clock of a loop, which is the running one."""
    try:
        if _local.loop() is loop:
            found: Clock = _local.clock
            return found
    except AttributeError:
        pass
    _local.loop = weakref.ref(loop)
    _local.clock = made = Clock()
    return made


def threads() -> ThreadPoolExecutor:
    """Where large messages are compressed and decompressed, for the connections of this thread.

    They are started when there is something to do, and end with the thread. The loop's own ones would not do: what
    users have run there may block them all for seconds, and every message would wait behind it.
    """
    try:
        found: ThreadPoolExecutor = _local.threads
    except AttributeError:
        count = min(os.cpu_count() or 1, _MOST_THREADS)
        found = _local.threads = ThreadPoolExecutor(count, thread_name_prefix="duck-deflate")
    return found
