"""An awaitable for an event of a connection, such as the next message; the specification of `waiter.pxi`.

    await Waiter(loop, queue) -> the queue -> wake -> the next step of the task

`wake` runs the step at once, not one pass of the loop later. So the replies to the messages of one read leave together.
This file does not import asyncio: the loop creates the futures.
"""

from collections.abc import Coroutine, Generator
from typing import Any, Self

__all__ = ["Waiter"]


class Waiter(Coroutine[Any, Any, Any]):
    """An awaitable for one task, in a queue of waiting tasks.

    The task waits for a future of asyncio, because any other future costs a task 2,000 instructions. `wake` removes the
    task's callback from the future and calls it at once; the loop would call it in its next pass. A cancellation
    cancels the future. A cancelled waiter stays in the queue until the next step of its task.

    A handler may be woken before its task waits, because its first step can precede that of the task. The future is
    then completed, and the task continues in a later callback.

    Args:
        loop: The event loop.
        queue: The waiters of all tasks that wait for the same event. An awaited waiter appends itself, and
            removes itself when it is cancelled. The caller of `wake` must remove the waiter before.
    """

    __slots__ = ("_future", "_loop", "_queue")

    def __init__(self, loop: Any, queue: "list[Any]") -> None:
        self._loop = loop
        self._queue: list[Any] | None = queue  # None once the waiter has ended
        self._future: Any = None

    @property
    def is_over(self) -> bool:
        """Whether the task does not wait: it has been woken or cancelled, or has not begun to wait."""
        return self._future is None or bool(self._future.done())

    def wake(self) -> None:
        """Steps the task at once. No other task may be running."""
        if self._future is None:
            return
        callbacks = self._future._callbacks
        if not callbacks or len(callbacks) > 1:
            self.wake_soon()
            return
        callback, context = callbacks[0]
        self._future.remove_done_callback(callback)
        context.run(callback, self._resolved())

    def wake_soon(self) -> None:
        """Schedules the task's step in the loop."""
        if not self.is_over:
            self._future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Leaves the queue. The task's next step, in a later callback, raises the error."""
        self._leave()
        if not self.is_over:
            self._future.set_exception(error)
            self._future.exception()  # marks it as retrieved: asyncio does not log it if the task has no next step

    def _leave(self) -> None:
        if self._queue is not None and self in self._queue:
            self._queue.remove(self)

    def _resolved(self) -> Any:
        """Returns a completed future as the argument of the task's callback."""
        self._future.set_result(None)
        return self._future

    def _new_future(self) -> Any:
        return self._loop.create_future()

    # The coroutine that a task drives

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        queue = self._begun()
        if self._future is None:
            return self._wait(queue)
        self._queue = None
        raise StopIteration

    def _begun(self) -> list[Any]:
        """Returns the queue; raises RuntimeError if the waiter has ended."""
        if self._queue is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        return self._queue

    def _wait(self, queue: list[Any]) -> Any:
        """Joins the queue; returns the future that the task has to wait for."""
        if self._future is None:
            self._future = self._new_future()
        queue.append(self)
        self._future._asyncio_future_blocking = True
        return self._future

    def send(self, value: Any) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        self.close()
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame: without the cycle both are freed at once

    def close(self) -> None:
        self._leave()
        self._queue = self._future = None
