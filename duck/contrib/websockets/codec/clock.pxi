# A timer for many objects: part of _speedups.pyx. `clock.py` is its specification.

from heapq import heappop as _heappop, heappush as _heappush
from sys import maxsize as _NEVER


@cython.final
cdef class Clock:
    cdef dict sleepers  # sets by tick; None if all of a tick have been dropped
    cdef list ticks  # the keys of the dict, as a heap
    cdef object armed  # the tick of the timer

    def __cinit__(self):
        self.sleepers = {}
        self.ticks = []
        self.armed = _NEVER

    cpdef set(self, loop, double when, sleeper):
        cdef object tick = int(when * CLOCK_TICKS) + 1
        cdef object sleepers = self.sleepers.get(tick, _NEVER)
        if sleepers is not _NEVER and sleepers is not None:
            (<set>sleepers).add(sleeper)
            return tick
        self.sleepers[tick] = {sleeper}
        if sleepers is _NEVER:
            _heappush(self.ticks, tick)
            if tick < self.armed:
                self.arm(loop)
        return tick

    @staticmethod
    def time(tick):
        return <double>tick / CLOCK_TICKS

    cpdef drop(self, tick, sleeper):
        cdef object sleepers = self.sleepers.get(tick)
        if sleepers is not None:
            (<set>sleepers).discard(sleeper)
            if not sleepers:
                self.sleepers[tick] = None

    cdef int arm(self, loop) except -1:
        self.armed = self.ticks[0]
        loop.call_at(<double>self.armed / CLOCK_TICKS, self._wake, loop, self.armed)
        return 0

    def _wake(self, loop, tick):
        if tick != self.armed:
            return
        due = max(tick, int(loop.time() * CLOCK_TICKS))
        try:
            while self.ticks and (self.ticks[0] <= due or self.sleepers[self.ticks[0]] is None):
                self.wake_next()
        finally:
            self.armed = _NEVER
            if self.ticks:
                self.arm(loop)

    cdef int wake_next(self) except -1:
        tick = _heappop(self.ticks)
        try:
            while sleepers := self.sleepers[tick]:
                sleepers.pop().wake()
        finally:
            if self.sleepers[tick]:  # one of them has raised
                _heappush(self.ticks, tick)
            else:
                del self.sleepers[tick]
        return 0
