"""`SENT`: the result of `send` when there is nothing to wait for; the specification of `sent.pxi`."""

from collections.abc import Coroutine
from typing import Any, Never, Self, cast

__all__ = ["SENT", "Sent"]


class Sent:
    """A completed coroutine: the result of `send` when there is nothing to wait for.

    `asyncio.create_task(view.send(...))` works as well as `await view.send(...)`.
    """

    __slots__ = ()

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Never:
        raise StopIteration

    def send(self, value: Any) -> Never:
        raise StopIteration

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Never:
        raise error

    def close(self) -> None:
        pass


SENT = cast("Coroutine[Any, Any, None]", Sent())
