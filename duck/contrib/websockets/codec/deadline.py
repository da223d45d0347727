"""`Deadline`: the time limit of a task, in plain Python; the specification of `deadline.pxi`."""

from types import TracebackType
from typing import Any

from .clock import Clock
from .numbers import LONGEST_DEADLINE

__all__ = ["Deadline"]


class Deadline:
    """Cancels a task if a block in it takes too long; the block then raises TimeoutError.

    It is `asyncio.timeout` without a timer of its own, and expires at most a tick of the clock late.

        with Deadline(asyncio.current_task(), clock, 10, asyncio.CancelledError):
            await answer

    Args:
        task: The running task.
        clock: The clock of its loop.
        seconds: The limit; None for none.
        cancelled: The class of the exceptions that cancel a task.

    Attributes:
        expired: Whether the block has taken too long, or `expire` has been called.
    """

    __slots__ = ("_cancelled", "_cancelling", "_clock", "_seconds", "_task", "_tick", "expired")

    def __init__(self, task: Any, clock: Clock, seconds: float | None, cancelled: type[BaseException]) -> None:
        self._task: Any = task  # None after the block
        self._clock = clock
        self._seconds = seconds
        self._cancelled = cancelled
        self._cancelling = task.cancelling()  # requests to cancel the task that precede the block
        self._tick: int | None = None
        self.expired = False

    def __enter__(self) -> None:
        if self._seconds is not None and self._seconds < LONGEST_DEADLINE:
            loop = self._task.get_loop()
            self._tick = self._clock.set(loop, loop.time() + self._seconds, self)

    def expire(self) -> None:
        """Ends the block as if it had taken too long; may be called from any thread."""
        task = self._task
        if task is not None:
            task.get_loop().call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Cancels the task; called by the clock."""
        if self._task is not None and not self.expired:
            self.expired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._tick is not None:
            self._clock.drop(self._tick, self)
            self._tick = None
        if self.expired and task.uncancel() <= self._cancelling and isinstance(error, self._cancelled):
            raise TimeoutError from None
