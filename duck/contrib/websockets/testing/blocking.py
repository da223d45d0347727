"""`Blocking`: a tested connection for synchronous tests, and the loops on which such connections run."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..client.blocking import BlockingConnection
from ..client.loop_thread import check_blocking, completed

if TYPE_CHECKING:
    from ..frame import Frame

__all__ = ["RUNNERS", "Blocking", "LoopFactory", "Turns"]

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


class Turns:
    """Runs the loop while a method blocks.

    Attributes:
        has_ended: Whether the `with` block has ended.
    """

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._thread = threading.get_ident()
        self.has_ended = False

    def check_block(self) -> None:
        """Checks that the `with` block is that of the calling thread, and has not ended."""
        if self.has_ended:
            raise RuntimeError("the connection is over, and its loop: call its methods within the with block")
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "the connection belongs to the thread of its with block: open another one in this thread"
            )

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method in the loop, and runs the loop until the result is there."""
        self.check_block()
        check_blocking()
        return self._runner.run(completed(partial(method, *args, **kwargs)))


class Blocking(BlockingConnection):
    """A tested connection with blocking methods, for synchronous tests."""

    if TYPE_CHECKING:
        timeout: float | None
        errors: list[BaseException]

        @property
        def view(self) -> Any: ...
        @property
        def frames(self) -> list[Frame]: ...
        @property
        def received(self) -> int: ...

        def wait_closed(self, timeout: float | None = None) -> int: ...
        def drop(self) -> None: ...
        def stop_reading(self) -> None: ...
        def resume_reading(self) -> None: ...
        def send_raw(self, data: bytes) -> None: ...
        def send_eof(self) -> None: ...
        def slow_down(self, size: int = 1) -> None: ...
