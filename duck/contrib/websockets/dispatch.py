"""How messages reach a view's hooks.

Messages go to `on_receive` in the order in which they came, one worker task handling one after the other. A worker
with nothing to do is *parked*: it awaits an object that is not a future but speaks a future's protocol, and that the
read callback wakes by stepping the task right there. So a handler that never waits costs no task and no pass of the
loop.

A handler that does wait keeps its worker, with its task and context, and the messages behind it go to a new one. At
most `MAX_CONCURRENT_MESSAGES` workers are busy; while all are, reading is on hold. At most one is parked.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .exceptions import ConnectionClosed
from .frame import Frame
from .opcodes import OpCode

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["Dispatcher", "FrameQueue"]

_EAGER = sys.version_info >= (3, 12)
_OPCODES = {int(opcode): opcode for opcode in OpCode}


def start_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """A task that has run to its first wait already, where Python can do that."""
    if _EAGER:
        return asyncio.Task(coroutine, loop=loop, eager_start=True)  # type: ignore[call-arg, unused-ignore]
    return loop.create_task(coroutine)


class _Parking:
    """What a worker awaits for its next message (the future protocol of asyncio.Task: `_asyncio_future_blocking`)."""

    __slots__ = ("_asyncio_future_blocking", "_callback", "_cancelled", "_context", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._callback: Callable[[Any], object] | None = None
        self._context: Context | None = None
        self._cancelled = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def wake(self) -> None:
        """Steps the task that awaits, here and now; no other task may be running."""
        callback, self._callback = self._callback, None
        if callback is not None:
            assert self._context is not None
            self._context.run(callback, self)

    # What the task calls.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._callback, self._context = callback, context

    def result(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError

    def cancel(self, msg: object = None) -> bool:
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        self._cancelled = True
        self._loop.call_soon(callback, self, context=self._context)
        return True


class Dispatcher:
    """The workers of one connection.

    Attributes:
        inbox: Messages whose handlers have not been started.
        workers: Tasks in which hooks run.
    """

    __slots__ = (
        "_handle",
        "_limit",
        "_loop",
        "_opened",
        "_parked",
        "_protocol",
        "_stopped",
        "_when_empty",
        "inbox",
        "workers",
    )

    def __init__(self, protocol: "WebSocketProtocol", loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._protocol = protocol
        self._loop = loop
        self._limit = limit
        self._handle = protocol.handle
        self._opened = False
        self._stopped = False
        self._parked: _Parking | None = None
        self._when_empty: asyncio.Future[None] | None = None
        self.inbox: deque[tuple[int, bytes]] = deque()
        self.workers: set[asyncio.Task[None]] = set()

    def open(self, on_open: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        """Runs `on_open`, then lets messages through."""
        if on_open is None:
            self._opened = True
        else:
            self._start(on_open)

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Starts the handlers of messages, to be called from a callback of the loop and not from a task."""
        self.inbox.extend(messages)
        if self._parked is not None:
            self._parked.wake()
        self._engage()

    def deliver_soon(self, messages: list[tuple[int, bytes]]) -> None:
        """`deliver` from a task."""
        self.inbox.extend(messages)
        self._loop.call_soon(self.deliver, [])

    async def until_started(self) -> None:
        """Until every message has been handed to its handler."""
        if self.inbox:
            self._when_empty = self._loop.create_future()
            await self._when_empty

    def stop(self) -> None:
        """Nothing more will come: drops what has not been started, and lets the parked worker go."""
        self._stopped = True
        self.inbox.clear()
        if self._parked is not None:
            self._loop.call_soon(self._parked.wake)

    def _engage(self) -> None:
        """Starts workers for the messages behind handlers that wait."""
        while self.inbox and self._parked is None:
            if not self._opened or len(self.workers) >= self._limit:
                self._protocol.hold_inbox()
                return
            self._start(None)
            if not _EAGER:
                # The worker takes its first step in the next pass; then look whether it waits in a handler.
                self._loop.call_soon(self._engage)
                return

    def _start(self, on_open: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        task = start_task(self._loop, self._work(on_open))
        if not task.done():
            self.workers.add(task)
            task.add_done_callback(self.workers.discard)

    async def _work(self, on_open: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        if on_open is not None:
            await self._guard(on_open())
            self._opened = True
            self._loop.call_soon(self._engage)
        inbox, handle = self.inbox, self._handle
        while True:
            while inbox:
                opcode, payload = inbox.popleft()
                if not inbox:
                    self._emptied()
                try:
                    await handle(payload, _OPCODES[opcode])
                except (Exception, asyncio.CancelledError) as error:
                    self._failed(error)
            if self._stopped or self._parked is not None:
                return
            self._parked = parking = _Parking(self._loop)
            try:
                await parking
            finally:
                self._parked = None

    async def _guard(self, hook: Coroutine[Any, Any, None]) -> None:
        try:
            await hook
        except (Exception, asyncio.CancelledError) as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """A hook has raised."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise error
        if isinstance(error, ConnectionClosed) and not self._protocol.connection.is_open:
            return  # it tried to send when the peer had gone; that is no fault of its own
        self.inbox.clear()
        self._emptied()
        self._protocol.hook_failed(error)

    def _emptied(self) -> None:
        self._protocol.release_inbox()
        if self._when_empty is not None and not self._when_empty.done():
            self._when_empty.set_result(None)


class FrameQueue:
    """Frames for a view that overrides `read_frame` or `_receive_loop`, and so pulls them itself."""

    _HIGH = 16  # frames that may wait before reading is put on hold

    def __init__(self, protocol: "WebSocketProtocol", loop: asyncio.AbstractEventLoop) -> None:
        self._protocol = protocol
        self._loop = loop
        self._frames: deque[Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def put(self, messages: list[tuple[int, bytes]]) -> None:
        """Adds messages and control frames."""
        self._frames.extend(Frame(opcode, payload=payload) for opcode, payload in messages)
        if len(self._frames) >= self._HIGH:
            self._protocol.hold_inbox()
        self._wake()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake()

    async def get(self) -> Frame:
        """The next one; ConnectionClosed when there will be none."""
        while not self._frames:
            if self._ended:
                connection = self._protocol.connection
                raise ConnectionClosed(connection.close_code or 1006, connection.close_reason)
            self._waiter = self._loop.create_future()
            await self._waiter
        frame = self._frames.popleft()
        if not self._frames:
            self._protocol.release_inbox()
        return frame

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
