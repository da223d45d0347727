"""`Clock`: wakes objects at their times, in plain Python; the specification of `clock.pxi`."""

import sys
from heapq import heappop, heappush
from typing import Any, Protocol

from .numbers import CLOCK_TICKS

__all__ = ["Clock", "Sleeper"]

_NEVER = sys.maxsize


class Sleeper(Protocol):
    """An object that a clock can wake."""

    def wake(self) -> None:
        """Called at the scheduled time."""


class Clock:
    """Wakes sleepers at their times. All share one timer of the loop, which is set for the first time.

    Times are rounded up to ticks. A timer of the loop for each tick would cost 8 000 instructions, and keep 1 KB until
    its time, even after its sleepers have been dropped.
    """

    __slots__ = ("_armed", "_sleepers", "_ticks")

    def __init__(self) -> None:
        self._sleepers: dict[int, set[Sleeper] | None] = {}  # None if all of a tick have been dropped
        self._ticks: list[int] = []  # the keys of the dict, as a heap
        self._armed = _NEVER  # the tick of the timer

    def set(self, loop: Any, when: float, sleeper: Sleeper) -> int:
        """Schedules a wake of `sleeper`, not before `when` and at most a tick later.

        Args:
            when: A time of the loop's clock.

        Returns:
            The tick, as the argument of `drop`.
        """
        tick = int(when * CLOCK_TICKS) + 1
        sleepers = self._sleepers.get(tick)
        if sleepers is not None:
            sleepers.add(sleeper)
            return tick
        is_new = tick not in self._sleepers
        self._sleepers[tick] = {sleeper}
        if is_new:
            heappush(self._ticks, tick)
            if tick < self._armed:
                self._arm(loop)
        return tick

    @staticmethod
    def time(tick: int) -> float:
        """The time of a tick, on the loop's clock."""
        return tick / CLOCK_TICKS

    def drop(self, tick: int, sleeper: Sleeper) -> None:
        """Cancels the wake of `sleeper` at a tick."""
        sleepers = self._sleepers.get(tick)
        if sleepers is not None:
            sleepers.discard(sleeper)
            if not sleepers:
                self._sleepers[tick] = None

    def _arm(self, loop: Any) -> None:
        self._armed = self._ticks[0]
        loop.call_at(self._armed / CLOCK_TICKS, self._wake, loop, self._armed)

    def _wake(self, loop: Any, tick: int) -> None:
        if tick != self._armed:
            return  # a sleeper with an earlier time has come since this timer was set
        due = max(tick, int(loop.time() * CLOCK_TICKS))  # timers of uvloop may be a millisecond early
        try:
            while self._ticks and (self._ticks[0] <= due or self._sleepers[self._ticks[0]] is None):
                self._wake_next()
        finally:
            self._armed = _NEVER
            if self._ticks:
                self._arm(loop)

    def _wake_next(self) -> None:
        """Wakes the sleepers of the first tick."""
        tick = heappop(self._ticks)
        try:
            while sleepers := self._sleepers[tick]:
                sleepers.pop().wake()
        finally:
            if self._sleepers[tick]:  # one of them has raised
                heappush(self._ticks, tick)
            else:
                del self._sleepers[tick]
