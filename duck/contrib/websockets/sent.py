"""What `send` returns when there is nothing to wait for: an awaitable that is done, the same for all, made once."""

from collections.abc import Coroutine, Generator
from typing import Any, Never

__all__ = ["SENT"]


class _Sent(Coroutine[Any, Any, None]):
    """A coroutine that has ended, so that `create_task(view.send(...))` works as well as `await view.send(...)`."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return iter(())  # type: ignore[return-value]

    def send(self, value: Any) -> Never:
        raise StopIteration

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Never:
        raise typ if val is None else val

    def close(self) -> None:
        pass


SENT = _Sent()
