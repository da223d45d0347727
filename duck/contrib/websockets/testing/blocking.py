"""`Blocking`: a tested connection for synchronous tests, and the loops on which such connections run."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from inspect import ismethod
from typing import TYPE_CHECKING, Any, Self

from ..opcodes import CloseCode, OpCode
from .connection import TestConnection

if TYPE_CHECKING:
    from ..extensions import Extension
    from ..frame import Frame
    from ..sansio.payloads import Data
    from ..state import State

__all__ = ["RUNNERS", "Blocking", "LoopFactory"]

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
"""Creates the loop of a synchronous test; None instead of it stands for asyncio's default."""


class _Runners(threading.local):
    """The loops of the synchronous tests in a thread.

    Attributes:
        running: The loops by their factory; None for asyncio's default.
        users: The numbers of open connections of each loop. The last one closes it.
    """

    def __init__(self) -> None:
        self.running: dict[LoopFactory | None, asyncio.Runner] = {}
        self.users: Counter[LoopFactory | None] = Counter()

    def acquire(self, factory: LoopFactory | None) -> asyncio.Runner:
        """Returns the loop of a connection to be opened."""
        if not self.users[factory]:
            self.running[factory] = asyncio.Runner(loop_factory=factory)
        self.users[factory] += 1
        return self.running[factory]

    def release(self, factory: LoopFactory | None) -> None:
        """Closes the loop if no other connection uses it."""
        self.users[factory] -= 1
        if not self.users[factory]:
            del self.users[factory]
            self.running.pop(factory).close()


RUNNERS = _Runners()


class Blocking:
    """A tested connection with blocking methods, for synchronous tests.

    Args:
        runner: Runs the loop.
        connection: The connection; its other attributes can be read and set here as well.

    Attributes:
        has_ended: Whether the `with` block has ended.
    """

    def __init__(self, runner: asyncio.Runner, connection: TestConnection) -> None:
        self._runner = runner
        self._connection = connection
        self._thread = threading.get_ident()
        self.has_ended = False

    def __setattr__(self, name: str, value: Any) -> None:
        owner = self if name in ("_runner", "_connection", "_thread", "has_ended") else self._connection
        object.__setattr__(owner, name, value)

    if TYPE_CHECKING:  # the members of the connection that `__getattr__` finds
        url: str
        timeout: float | None
        errors: list[BaseException]
        subprotocol: str | None
        extensions: Sequence[Extension]

        @property
        def view(self) -> Any: ...
        @property
        def frames(self) -> list[Frame]: ...
        @property
        def received(self) -> int: ...
        @property
        def state(self) -> State: ...
        @property
        def close_code(self) -> int | None: ...
        @property
        def close_reason(self) -> str: ...
        @property
        def latency(self) -> float | None: ...
        @property
        def dropped(self) -> int: ...
        @property
        def response_headers(self) -> Mapping[str, str]: ...

        def recv(self, timeout: float | None = None) -> str | bytes: ...
        def recv_json(self, timeout: float | None = None) -> Any: ...
        def send(self, data: Any, opcode: int = OpCode.TEXT) -> None: ...
        def send_text(self, data: str | Iterable[str] | AsyncIterable[str]) -> None: ...
        def send_binary(self, data: Data | Iterable[Data] | AsyncIterable[Data]) -> None: ...
        def send_json(self, data: Any) -> None: ...
        def send_ping(self, data: Data = b"") -> None: ...
        def send_pong(self, data: Data = b"") -> None: ...
        def send_frame(self, frame: Frame) -> None: ...
        def send_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None: ...
        def ping(self) -> float: ...
        def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None: ...
        def wait_closed(self, timeout: float | None = None) -> int: ...
        def drop(self) -> None: ...
        def stop_reading(self) -> None: ...
        def resume_reading(self) -> None: ...
        def send_raw(self, data: bytes) -> None: ...
        def send_eof(self) -> None: ...
        def slow_down(self, size: int = 1) -> None: ...

    else:

        def __getattr__(self, name):
            found = getattr(self._connection, name)
            if not ismethod(found):  # a view is callable too
                return found

            def call(*args, **kwargs):
                return self._run(found, args, kwargs)

            return call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str | bytes:
        try:
            message: str | bytes = self._run(self._connection.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return message

    def _check_block(self) -> None:
        """Checks that the `with` block is that of the calling thread, and has not ended."""
        if self.has_ended:
            raise RuntimeError("the connection is over, and its loop: call its methods within the with block")
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "the connection belongs to the thread of its with block: open another one in this thread"
            )

    def _run(self, method: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}) -> Any:
        self._check_block()
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this method blocks, and an event loop runs in this thread: use async with connect(...)")
        return self._runner.run(_call(method, args, kwargs))


async def _call(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    result = method(*args, **kwargs)
    return await result if isinstance(result, Coroutine) else result
