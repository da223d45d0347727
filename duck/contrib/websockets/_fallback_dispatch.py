"""How messages get to handlers, in plain Python: the readable specification of `_dispatch.pxi`.

A received message goes to `on_receive` inside the read callback. For that each connection has at most one *idle
worker*: a task whose coroutine is a `Worker`, and which is parked. The read callback makes that task the current one,
enters its context, and runs the handler's coroutine there. If it ends, nothing else is to be done: no task was made,
and no pass of the loop spent. If it waits, the worker hands what it waits for to the parked task, which from then on
drives it like any other; for the messages behind it there will be another worker. At most `limit` workers are busy with
handlers that wait; while all are, messages wait in the inbox and the owner holds reading.

What asyncio is needed for comes in as `tasks`, so that nothing here depends on how tasks are made:

    start_task(loop, coroutine, context)    makes a task, which takes its first step at once where Python can do that
    enter_task(loop, task), leave_task(loop, task)    as asyncio.tasks has them, for who implements tasks of their own
    copy_context(), CancelledError, deque    of contextvars, asyncio, collections
    iterator(awaitable)    what `await` would drive
    OPCODES    opcodes by number
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self


class Worker:
    """The coroutine of a task that runs handlers, and the future that the task waits for while there are none."""

    __slots__ = (
        "_asyncio_future_blocking",
        "_awaited",
        "_callback",
        "_cancelled",
        "_context",
        "_dispatcher",
        "_handed",
        "_opening",
        "handler",
        "task",
    )

    def __init__(self, dispatcher: "Dispatcher", context: Any, handler: Iterator[Any] | None) -> None:
        self._dispatcher = dispatcher
        self._context = context
        self.task: Any = None  # None during its first step
        self.handler: Any = handler  # what has waited and is not finished, None when idle
        self._opening = handler is not None  # whether the handler is `on_open`
        self._handed = False  # whether `_awaited` is for the task to take
        self._awaited: Any = None  # what the handler waits for, while the task does not know yet
        self._callback: Callable[[Any], object] | None = None  # steps the task while it is parked
        self._cancelled = False
        self._asyncio_future_blocking = False

    # What a task calls on its coroutine

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self.handler is not None and not self._handed:
            try:
                if self._advance(self.handler):
                    return self._take_awaited()
            except BaseException as error:
                self.failed(error)
            self._ended()
        return self._go_on()

    def send(self, value: Any) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        if self.handler is None:
            self._dispatcher.leave(self)
            raise error
        self._handed = False
        self._awaited = None
        try:
            return self.handler.throw(error)
        except StopIteration:
            pass
        except BaseException as raised:
            self.failed(raised)
        self._ended()
        return self._go_on()

    def close(self) -> None:
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.close()

    # What a task calls on the future that it waits for

    def get_loop(self) -> Any:
        return self._dispatcher.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any) -> None:
        self._callback = callback

    def result(self) -> None:
        if self._cancelled:
            raise self._dispatcher.cancelled_error

    def cancel(self, msg: object = None) -> bool:
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        self._cancelled = True
        self._dispatcher.leave(self)
        self._dispatcher.loop.call_soon(callback, self, context=self._context)
        return True

    def wake(self) -> None:
        """Steps the task here and now, if it is parked; no other task may be running."""
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback, self)

    # Running handlers

    def run(self, messages: list[tuple[int, bytes]], at: int) -> tuple[int, bool]:
        """Hands messages to handlers within the task's context, until one waits: (where to go on, whether it waits)."""
        return self._context.run(self._run, messages, at)  # type: ignore[no-any-return]

    def _run(self, messages: list[tuple[int, bytes]], at: int) -> tuple[int, bool]:
        waits = False
        while at < len(messages) and not waits and not self._dispatcher.stopped:
            at += 1
            try:
                waits = self._begin(messages[at - 1])
            except BaseException as error:
                self.failed(error)
        return at, waits

    def _advance(self, handler: Any) -> bool:
        """Runs a handler to its next wait; false if it ended."""
        try:
            self._awaited = handler.send(None)
        except StopIteration:
            return False
        self.handler = handler
        self._handed = True
        return True

    def _begin(self, message: tuple[int, bytes]) -> bool:
        """Hands a message to a new handler, which runs to its first wait; false if it ended."""
        opcode, payload = message
        dispatcher = self._dispatcher
        return self._advance(dispatcher.iterator(dispatcher.handle(payload, dispatcher.opcodes[opcode])))

    def _take_awaited(self) -> Any:
        awaited, self._awaited = self._awaited, None
        self._handed = False
        return awaited

    def failed(self, error: BaseException) -> None:
        """A handler has raised; raises on if it was the task that was cancelled."""
        if self._dispatcher.owner.hook_failed(error):
            self._ended()
            self._dispatcher.leave(self)
            raise error

    def _ended(self) -> None:
        self.handler = None
        if self._opening:
            self._opening = False
            self._dispatcher.opened = True

    def _go_on(self) -> Any:
        """What the task is to wait for next: a handler that waits already, one in the inbox that will, or a message."""
        dispatcher = self._dispatcher
        if self._handed:
            return self._take_awaited()
        while dispatcher.inbox and dispatcher.opened:
            try:
                if self._begin(dispatcher.take_message()):
                    if self.task is not None:
                        dispatcher.join(self.task)
                    return self._take_awaited()
            except BaseException as error:
                self.failed(error)
        dispatcher.leave(self)
        if dispatcher.stopped or dispatcher.idle is not None:
            self.task = None  # which holds on to this: without the cycle both are freed at once, not by the collector
            raise StopIteration
        dispatcher.idle = self
        self._asyncio_future_blocking = True
        return self


NO_WORKERS: frozenset[Any] = frozenset()


class Dispatcher:
    """The workers of one connection.

    Args:
        owner: Has `hold_inbox()`, `release_inbox()`, and `hook_failed(error)`, which says whether to raise it on.
        loop: The event loop.
        handle: Called with payload and opcode of each message, gives an awaitable.
        limit: Workers that may be busy at a time.
        tasks: See above.

    Attributes:
        inbox: Messages that no handler has got.
        workers: Tasks whose handlers wait.
    """

    __slots__ = (
        "_copy_context",
        "_enter_task",
        "_leave_task",
        "_limit",
        "_new_deque",
        "_start_task",
        "cancelled_error",
        "handle",
        "idle",
        "inbox",
        "iterator",
        "loop",
        "opcodes",
        "opened",
        "owner",
        "stopped",
        "workers",
    )

    def __init__(
        self,
        owner: Any,
        loop: Any,
        handle: Callable[[bytes, Any], Awaitable[None]],
        limit: int,
        tasks: Any,
    ) -> None:
        self.owner = owner
        self.loop = loop
        self.handle = handle
        self._limit = limit
        self._start_task = tasks.start_task
        self._enter_task = tasks.enter_task
        self._leave_task = tasks.leave_task
        self._copy_context = tasks.copy_context
        self.cancelled_error = tasks.CancelledError
        self.iterator = tasks.iterator
        self.opcodes = tasks.OPCODES
        self.opened = False
        self.stopped = False
        self.idle: Worker | None = None
        self._new_deque = tasks.deque
        # Most connections never need these, so they are made when they do.
        self.inbox: Any = ()
        self.workers: set[Any] | frozenset[Any] = NO_WORKERS

    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Runs `on_open`, if there is one, then lets messages through."""
        if on_open is None:
            self.opened = True
        else:
            self._new_worker(on_open)

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Hands messages to handlers; to be called from a callback of the loop, while no task is running."""
        at = 0
        while at < len(messages) and not self.stopped:
            if self.inbox or not self.opened or (self.idle is None and len(self.workers) >= self._limit):
                if not self.inbox:
                    self.inbox = self._new_deque()
                self.inbox.extend(messages[at:])
                self.owner.hold_inbox()
                return
            if self.idle is None:
                self.idle = self._new_worker(None)
            at = self._run(self.idle, messages, at)

    def stop(self) -> None:
        """Nothing more is to be handled: drops what no handler has got, and lets the idle worker go."""
        self.stopped = True
        self.inbox = ()
        if self.idle is not None:
            self.loop.call_soon(self.idle.wake)
            self.idle = None

    def forget(self) -> None:
        """Lets the connection go, which is over."""
        del self.owner, self.handle

    def _run(self, worker: Worker, messages: list[tuple[int, bytes]], at: int) -> int:
        self._enter_task(self.loop, worker.task)
        try:
            at, waits = worker.run(messages, at)
        finally:
            self._leave_task(self.loop, worker.task)
        if waits:
            self.idle = None
            self.join(worker.task)
            worker.wake()
        return at

    def _new_worker(self, on_open: Callable[[], Awaitable[None]] | None) -> Worker:
        context = self._copy_context()
        worker = Worker(self, context, self.iterator(on_open()) if on_open is not None else None)
        task = self._start_task(self.loop, worker, context)
        if not task.done():
            worker.task = task
            if worker.handler is not None:
                self.join(task)
        return worker

    def take_message(self) -> tuple[int, bytes]:
        """The first message of the inbox."""
        message: tuple[int, bytes] = self.inbox.popleft()
        if not self.inbox:
            self.inbox = ()
            self.owner.release_inbox()
        return message

    def join(self, task: Any) -> None:
        """The task is busy with a handler that waits."""
        if not isinstance(self.workers, set):
            self.workers = set()
        self.workers.add(task)

    def leave(self, worker: Worker) -> None:
        """The worker is not busy any more, nor idle."""
        if isinstance(self.workers, set):
            self.workers.discard(worker.task)
        if self.idle is worker:
            self.idle = None
        if self.inbox:  # it was cancelled
            self.loop.call_soon(self.replace_worker)

    def replace_worker(self) -> None:
        """Has what is in the inbox handled, if nobody is about to."""
        if self.inbox and self.opened and len(self.workers) < self._limit:
            self._new_worker(None)
