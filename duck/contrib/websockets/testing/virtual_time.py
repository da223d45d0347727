"""A loop with virtual time: tests of heartbeats and timeouts wait for nothing.

nothing is ready -- only timers are left ------------------> the clock jumps to the next timer
                 -- a socket or a thread is waited for ----> the loop waits, and the clock runs
"""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any, TypeVarTuple

__all__ = ["VirtualTimeLoop"]

Ts = TypeVarTuple("Ts")


class _Selector(selectors.DefaultSelector):
    """Moves a clock ahead where others wait.

    Attributes:
        now: The time of the clock, in seconds.
        jobs: Jobs of the loop in threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        # The loop's own socket, by which threads and signals wake it, is registered always.
        if timeout is None or self.jobs or len(self.get_map()) > 1:
            start = time.monotonic()
            events = super().select(timeout)
            self.now += time.monotonic() - start
        else:
            self.now += timeout
        return events


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
    or a job runs in `run_in_executor`, the loop waits as any other, because it cannot know how long they take.
    """

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Returns the virtual time in seconds."""
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], Any], *args: *Ts) -> "asyncio.Future[Any]":
        """Runs a function in a thread, meanwhile without jumps of the clock."""
        job: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._virtual.jobs += 1
        job.add_done_callback(self._job_done)
        return job

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Waits for the threads, meanwhile without jumps of the clock: a timeout of minutes would pass at once."""
        self._virtual.jobs += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._virtual.jobs -= 1

    def _job_done(self, job: "asyncio.Future[Any]") -> None:
        self._virtual.jobs -= 1
