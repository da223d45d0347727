"""`Pending`: the awaitable that `send` returns.

When `send` returns, the message has been sent or queued. The result may be awaited, at any time and repeatedly, be
passed to `asyncio.create_task`, or be dropped: a dropped result causes no "never awaited" warning.
"""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["Pending"]

T = TypeVar("T")


class Pending(Coroutine[Any, Any, T]):
    """An awaitable that creates its coroutine when it is first awaited.

    Args:
        wait: The factory of the coroutine.
    """

    __slots__ = ("_coroutine", "_wait")

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._wait = wait
        self._coroutine: Coroutine[Any, Any, T] | None = None  # when a task drives this object itself

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    def send(self, value: Any) -> Any:
        return self._driven().send(value)

    def throw(self, *error: Any) -> Any:
        try:
            return self._driven().throw(*error)
        finally:
            del error  # as in `codec.Waiter.throw`

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def _driven(self) -> Coroutine[Any, Any, T]:
        if self._coroutine is None:
            self._coroutine = self._wait()
        return self._coroutine
