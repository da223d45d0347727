"""A loop with virtual time, in which tests of heartbeats and timeouts take no time.

nothing is ready -- only timers are left ------------------> the clock jumps to the next timer
                 -- a socket or a thread is pending -------> the loop waits, and the clock runs
something is always ready, for seconds --------------------> the clock runs, so that timeouts end the test
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any, TypeVarTuple

__all__ = ["VirtualTimeLoop"]

Ts = TypeVarTuple("Ts")

_MOST_BUSY = 5.0  # seconds of a loop that never waits, such as one in which a task polls by `sleep(0)`


class _Selector(selectors.DefaultSelector):
    """A selector that advances a virtual clock instead of waiting for a timer.

    Attributes:
        now: The time of the clock, in seconds.
        jobs: Jobs of the loop in threads.
    """

    _counted = 0.0  # the real time up to which the clock has followed
    _busy_since: float | None = None  # the real time since which the loop has not waited

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            self._busy_since = None
            # The loop's own socket, by which threads and signals wake it, is always registered.
            if timeout is None or self.jobs or len(self.get_map()) > 1:
                if not self.jobs:
                    self._counted = time.monotonic()
                events = super().select(timeout)
                self._follow()
            else:
                self.now += timeout
        elif self.jobs or self._is_endless():  # their time also passes while the loop is busy
            self._follow()
        return events

    def _is_endless(self) -> bool:
        """Whether the loop has been busy for so long that only a timeout may end it."""
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since > _MOST_BUSY:
            return True
        self._counted = now
        return False

    def _follow(self) -> None:
        """Adds the real time that has not been counted yet."""
        now = time.monotonic()
        self.now += now - self._counted
        self._counted = now

    def begin_job(self) -> None:
        """Counts a job. Until its end the clock runs in real time."""
        if not self.jobs:
            self._counted = time.monotonic()
        self.jobs += 1


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is left to do.

        async def test_a_client_that_does_not_answer():
            async with connect(View, timeout=600) as ws:
                ws.stop_reading()
                await asyncio.sleep(300)
                assert ws.view.close_code == 1001

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test_a_client_that_does_not_answer())  # takes milliseconds

    `asyncio.sleep`, `asyncio.timeout`, the heartbeat and the timeouts of connections follow `loop.time()`, which starts
    at 0 and stands still while code runs. Times of `time.monotonic` and `time.time` remain real. While a socket is open
    or a job runs in `run_in_executor`, the loop waits as any other, because it cannot know how long they take. In
    a loop that is busy for 5 seconds, the clock runs as well, so that a task which polls without end has its timeout.
    """

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        # asyncio's name: timers are due that much earlier. With its nanosecond, a timer would never be due after half a
        # year, when the next float is farther away.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Returns the virtual time in seconds."""
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], Any], *args: *Ts) -> "asyncio.Future[Any]":
        """Runs a function in a thread. Until its end the clock does not jump."""
        self._virtual.begin_job()  # before the thread begins
        try:
            job: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        except BaseException:
            self._virtual.jobs -= 1
            raise
        job.add_done_callback(self._job_done)
        return job

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Waits for the threads. Meanwhile the clock does not jump, which would end a timeout of minutes at once."""
        self._virtual.begin_job()
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._virtual.jobs -= 1

    def _job_done(self, job: "asyncio.Future[Any]") -> None:
        self._virtual.jobs -= 1
