"""The coroutine of a handler's task, in plain Python: the specification of `worker.pxi`.

A `Dispatcher` creates workers; its module describes their states and transitions.
"""

import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context
from typing import Any, Protocol, Self

__all__ = ["DRIVEN", "ENDED", "IDLE", "STARTING", "WAITING", "Tasks", "Worker"]

IDLE, STARTING, WAITING, DRIVEN, ENDED = range(5)


class Tasks(Protocol):
    """The interface of dispatchers and workers to asyncio and `opcodes`, implemented by a module."""

    def start_worker(self, loop: Any, worker: Any, context: Context, /) -> Any:
        """Creates the task of a worker.

        The task reports calls of its methods to the worker (`observed`). It takes its first step at once.
        """

    def enter_task(self, loop: Any, task: Any, /) -> None:
        """Makes a task the current one of its loop, as the function of the same name in `asyncio.tasks` does."""

    def leave_task(self, loop: Any, task: Any, /) -> None:
        """The inverse of `enter_task`."""

    @property
    def current_tasks(self) -> dict[Any, Any] | None:
        """The dict that both functions change, for the compiled codec; None if they do more than change a dict."""

    def cancel_again(self, loop: Any, error: BaseException, /) -> None:
        """Restores a cancellation that the current task has just passed to its coroutine, with the error's message."""

    def retrieve(self, task: Any, /) -> object:
        """Marks the exception of a task as retrieved."""

    def iterator(self, awaitable: Awaitable[None], /) -> Any:
        """Returns the iterator that `await` would drive."""

    @property
    def CancelledError(self) -> type[BaseException]: ...
    @property
    def OPCODES(self) -> Any: ...


class Connection(Protocol):
    """The connection of a worker's dispatcher."""

    def hook_failed(self, error: BaseException) -> None:
        """Handles the exception of a handler."""


class Owner(Protocol):
    """The dispatcher of a worker; `Dispatcher` documents these names."""

    @property
    def owner(self) -> Connection: ...

    @property
    def loop(self) -> Any: ...
    @property
    def context(self) -> Context: ...
    @property
    def handle(self) -> Callable[..., Awaitable[None]]: ...
    @property
    def tasks(self) -> Tasks: ...
    def release(self, worker: "Worker") -> None: ...


class Worker:
    """The coroutine of a handler's task, and the future that the task waits for while it has no handler.

    Args:
        dispatcher: The dispatcher that starts its handlers.
        context: The context of the task.
        hook: A coroutine that the task drives from its first step on; None for a worker that waits for a message.

    Attributes:
        handler: The coroutine of the hook.
        observed: Whether other code may notice a reuse of the task, so that it must not run another handler.
        started: The time when the handler began, once it waits; 0.0 if it is not to be counted.
        state: IDLE, STARTING, WAITING, DRIVEN or ENDED.
        task: The task; None during its first step, and after the end.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_awaited",
        "_callback",
        "_cancelled",
        "_dispatcher",
        "_error",
        "_references",
        "_value",
        "context",
        "handler",
        "observed",
        "started",
        "state",
        "task",
    )

    def __init__(self, dispatcher: Owner, context: Any, hook: Iterator[Any] | None = None) -> None:
        self.handler: Any = hook
        self.state = IDLE if hook is None else DRIVEN
        self.task: Any = None
        self.observed = False
        self.started = 0.0
        self._dispatcher = dispatcher
        self.context = context
        self._references: tuple[int, int] | None = None  # of an unobserved task
        self._awaited: Any = None  # the future that the handler has yielded, until the task waits for it
        self._value: Any = None  # the handler's result
        self._error: BaseException | None = None  # the handler's exception
        self._callback: Callable[[Any], object] | None = None  # steps the task while it is parked
        self._cancelled = False
        self._asyncio_future_blocking = False

    def __getattr__(self, name: str) -> Any:
        """`cr_frame`, `__qualname__` and so on are those of the handler, for debuggers."""
        if name == "__qualname__" and self.handler is None:
            return "idle WebSocket worker"
        if name.startswith(("cr_", "__")):
            return getattr(self.handler, name)
        raise AttributeError(name)

    # The coroutine of a task

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self.state == DRIVEN:
            return self._drive(None)
        if self.state == WAITING:
            return self._hand_over()
        if self.state == IDLE:
            self._asyncio_future_blocking = True
            return self
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        raise StopIteration(self._value)

    def send(self, value: Any) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        try:
            if self.state == DRIVEN:
                return self._drive(error)
            if self.state == IDLE:
                self.state = ENDED
                self._dispatcher.release(self)
                raise error
            # The handler was cancelled in its first step. The task acts on the result of that step as it would have
            # then: it cancels the future that the handler waits for, the handler's next step, or itself.
            if self._error is None:
                self._dispatcher.tasks.cancel_again(self._dispatcher.loop, error)
            return self.__next__()
        finally:
            del error  # as in `Waiter.throw`

    def close(self) -> None:
        if self.handler is not None:
            self.handler.close()

    # The future that a task waits for

    def get_loop(self) -> Any:
        return self._dispatcher.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any) -> None:
        self._callback = callback

    def result(self) -> None:
        if self._cancelled:
            raise self._dispatcher.tasks.CancelledError

    def cancel(self, msg: object = None) -> bool:
        if self.state != IDLE or self._callback is None:
            return False  # so the task raises the cancellation in its next step
        callback, self._callback = self._callback, None
        self._cancelled = True
        self._dispatcher.release(self)
        self._dispatcher.loop.call_soon(callback, self, context=self.context)
        return True

    # Running handlers

    def start(self, message: tuple[int, bytes]) -> None:
        """Creates the handler of a message, and runs it to its first wait."""
        opcode, payload = message
        dispatcher = self._dispatcher
        references, context_references = self._count_references(), sys.getrefcount(self.context)
        if self._references is None:
            self._references = references
        elif self._references != references:
            self.observed = True
        self.state = STARTING
        try:
            awaitable = dispatcher.handle(payload, dispatcher.tasks.OPCODES[opcode])
            self.handler = handler = dispatcher.tasks.iterator(awaitable)
            self._awaited = handler.send(None)
        except StopIteration as stop:
            self._value = stop.value
        except BaseException as error:
            self._fail(error)
            return
        else:
            self.state = WAITING
            return
        if (
            self.observed
            or self._references != self._count_references()
            or sys.getrefcount(self.context) != context_references  # a kept token is one
            or not self.is_context_untouched()
        ):
            self.state = ENDED
        else:
            self.state = IDLE
            self.handler = None

    def _count_references(self) -> tuple[int, int]:
        return sys.getrefcount(self.task), weakref.getweakrefcount(self.task)

    def is_context_untouched(self) -> bool:
        """Whether each context variable has the same value as in the connection's context."""
        context, base = self.context, self._dispatcher.context
        if len(context) != len(base):
            return False
        missing = object()
        return all(base.get(variable, missing) is value for variable, value in context.items())

    def _hand_over(self) -> Any:
        """Returns the future of the handler's first wait. From now on the task drives the handler."""
        self.state = DRIVEN
        awaited, self._awaited = self._awaited, None
        return awaited

    def _drive(self, error: BaseException | None) -> Any:
        """Runs the handler to its next wait; raises StopIteration or its error when it ends."""
        try:
            return self.handler.send(None) if error is None else self.handler.throw(error)
        except StopIteration as stop:
            self.state = ENDED
            self._dispatcher.release(self)
            raise StopIteration(stop.value) from None
        except BaseException as raised:
            self._fail(raised)
            self._dispatcher.release(self)
            if self._error is None:
                raise StopIteration from None
            self._error = None  # its traceback refers to this frame
            raise
        finally:
            del error

    def _fail(self, error: BaseException) -> None:
        """Ends the task with the handler's error."""
        self.state = ENDED
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._dispatcher.owner.hook_failed(error)
        if isinstance(error, SystemExit):
            return  # raised by a task, it would end the loop
        self._error = error
        if self.task is not None and not isinstance(error, self._dispatcher.tasks.CancelledError):
            self.task.add_done_callback(self._dispatcher.tasks.retrieve)

    def wake(self) -> None:
        """Steps the task at once, if it is parked. No other task may be running."""
        callback, self._callback = self._callback, None
        if callback is not None:
            self.context.run(callback, self)

    def end(self) -> None:
        """Ends the task of an idle worker, or continues that of a handler that waits or has ended."""
        if self.state == IDLE:
            self.state = ENDED
            self.task = None  # as in `Dispatcher.release`
        self.wake()
