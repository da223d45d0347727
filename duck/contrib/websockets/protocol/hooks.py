"""Tasks of a connection other than message handlers, and their order at its end.

They are those of hooks (a view's own loops, `on_gap`, `on_close`) and of `create_task`.

    transport lost -> received messages are handled -> running hooks end -> other tasks are cancelled -> on_close

Hooks that still run CLOSE_TIMEOUT seconds after the loss are cancelled, so `on_close` is the last hook. Tasks of a
connection without handlers have that time too, because they may read the received messages. A task that does not end
within FLUSH_TIMEOUT after its cancellation is logged, and no longer waited for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import Context
from functools import partial
from typing import Any, Protocol, TypeVar

from ..frame import Frame
from ..logging import log_failure, logger
from ..opcodes import CloseCode, OpCode
from ..sansio.connection import Connection
from . import stepping
from .interfaces import Consumer, Endpoint

__all__ = ["Hooks"]

T = TypeVar("T")

_NONE: set[Any] = set()  # shared by the connections that start no task; stays empty


class Owner(Protocol):
    """The connection whose hooks run."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def context(self) -> Context: ...
    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def consumer(self) -> Consumer: ...
    @property
    def close_timeout(self) -> float: ...
    @property
    def is_read_by_tasks(self) -> bool: ...
    @property
    def terminated(self) -> bool: ...
    def close(self, code: int = ..., reason: str = ...) -> None: ...
    def hook_failed(self, error: BaseException) -> None: ...
    def note_error(self) -> None: ...
    def note_unhandled(self, number: int) -> None: ...
    def report_end(self) -> None: ...
    def report_closed(self, hung: bool) -> None: ...


class Hooks:
    """The hooks of one connection.

    Attributes:
        FLUSH_TIMEOUT: Seconds for the remaining work after a cancellation.
        on_close: The view's hook; None if it does nothing or must not be called.
        tasks: The tasks of the view's own loops, of other hooks, and at the end of `on_close`.
        started: The tasks of `create_task` that have not ended.
    """

    FLUSH_TIMEOUT = 1.0

    __slots__ = ("_emptied", "_heartbeat", "_owner", "_receiving", "on_close", "started", "tasks")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.tasks: tuple[asyncio.Task[None], ...] = ()
        self.started: set[asyncio.Task[Any]] = _NONE
        self._heartbeat: asyncio.Task[None] | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._emptied: asyncio.Future[None] | None = None
        self.on_close: Callable[[Frame | None], Awaitable[None]] | None = None

    def start_heartbeat(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs the view's own heartbeat loop."""
        self._heartbeat = self._start(self._run_hook(partial(self._beat, loop)), loop, self._owner.context.copy())

    def call(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Runs a hook concurrently with the handlers, in its own task and context."""
        task = self._start(self._run_hook(hook), hook, self._owner.context.copy())
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self.tasks = tuple(other for other in self.tasks if other is not task)

    def stop_heartbeat(self) -> None:
        """Cancels the view's own heartbeat loop."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def start_receiving(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs the view's own receive loop. Its end closes the connection, because no frame is read afterwards."""
        self._receiving = self._start(self._run_hook(loop), loop, self._owner.context)
        self._receiving.add_done_callback(self._receiving_ended)

    def _receiving_ended(self, task: "asyncio.Task[None]") -> None:
        self._owner.close()

    def create_task(self, coroutine: Coroutine[Any, Any, T], name: str | None) -> "asyncio.Task[T]":
        """Starts a task that ends with the connection."""
        run: Any = self._run_task(coroutine)
        run.__qualname__ = stepping.name_of(coroutine)
        try:
            task = self._owner.loop.create_task(run, name=name)
        except BaseException:  # the loop is closed, or its task factory fails
            run.close()
            raise
        if self.started is _NONE:
            self.started = set()
        self.started.add(task)
        task.add_done_callback(partial(self._task_ended, coroutine))
        return task

    def _task_ended(self, coroutine: Coroutine[Any, Any, Any], task: "asyncio.Task[Any]") -> None:
        self.started.discard(task)
        stepping.retrieve(task)  # its error is in the log already
        coroutine.close()  # if the task was cancelled before its first step

    def cancel(self) -> None:
        """Cancels all hooks, handlers and other tasks."""
        for task in self.running():
            task.cancel()

    def none_waits(self) -> None:
        """Notes that no message waits for a handler."""
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    async def finish(self) -> None:
        """Waits for the hooks after the loss of the transport, then calls `on_close`.

        A program that cancels all tasks, as `asyncio.run` does at its end, also cancels this one. Then the running
        hooks are cancelled, and `on_close` still runs.
        """
        owner = self._owner
        deadline = owner.loop.time() + self._patience
        hung = True
        try:
            await self._until_handled(deadline)
            try:
                owner.report_end()
            finally:  # even where a filter of the log raises
                hung = await self._end(self.running() - self.started, deadline)
                hung |= await self._end(self.started, deadline if owner.is_read_by_tasks else owner.loop.time())
                if self.on_close is not None:
                    last = self._start(self._run_on_close(self.on_close), self.on_close, owner.context)
                    hung |= await self._end([last], owner.loop.time() + self._patience)
        finally:  # even where `on_close` raises KeyboardInterrupt
            owner.report_closed(hung)

    def forget(self) -> None:
        """Releases the ended tasks. The traceback of a cancelled one refers to this object."""
        self.tasks = ()
        self._heartbeat = self._receiving = None

    @property
    def _patience(self) -> float:
        """Seconds for the hooks."""
        return self.FLUSH_TIMEOUT if self._owner.terminated else self._owner.close_timeout

    def _start(self, run: Any, hook: Any, context: Context) -> "asyncio.Task[None]":
        """Starts a task. Debuggers show it under the name of the hook."""
        run.__qualname__ = stepping.name_of(hook)
        task = stepping.start_task(self._owner.loop, run, context)
        self.tasks += (task,)
        return task

    async def _beat(self, loop: Callable[[], Awaitable[None]]) -> None:
        """The view's own heartbeat loop. A timeout in it is that of a pong, and no error."""
        try:
            await stepping.checked(loop())
        except TimeoutError:
            self._owner.close(CloseCode.GOING_AWAY, "no pong")

    async def _run_hook(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Runs a hook, or one of the view's own loops; an error in it ends the connection."""
        try:
            await stepping.checked(hook())
        except BaseException as error:
            if self._raises_on(error):
                raise

    async def _run_task(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a task of `create_task`; an error in it ends the connection, and is raised to code that awaits it."""
        try:
            return await coroutine
        except BaseException as error:
            if self._raises_on(error) or isinstance(error, Exception):
                raise
            raise RuntimeError(f"{stepping.name_of(coroutine)} has raised {error!r}") from error

    def _raises_on(self, error: BaseException) -> bool:
        """Ends the connection because of a hook's error; returns whether the hook's task re-raises the error."""
        if isinstance(error, KeyboardInterrupt) or stepping.is_abandoned(error, self._owner.loop):
            return True
        self._owner.hook_failed(error)
        return isinstance(error, asyncio.CancelledError)

    def running(self) -> set["asyncio.Task[None]"]:
        """The tasks that have not ended, except the current one."""
        running = {*self._owner.consumer.workers, *self.tasks, *self.started}
        return {task for task in running if not task.done() and task is not asyncio.current_task()}

    async def _until_handled(self, deadline: float) -> None:
        """Waits until every received message has been passed to its handler; then no more handlers start."""
        owner = self._owner
        consumer = owner.consumer
        if self._receiving is not None:
            # A completed task is awaited too: the callbacks that deliver its results may still be queued behind this
            # one.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([self._receiving], timeout=deadline - owner.loop.time())
        if consumer.waiting or consumer.decoding:
            self._emptied = owner.loop.create_future()
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout_at(deadline):
                    await self._emptied
        left = consumer.stop() + consumer.decoding
        if left:
            owner.note_unhandled(left)
            logger.warning("%r: %d messages were not handled in time", owner.endpoint._label, left)

    async def _end(self, running: Iterable["asyncio.Task[None]"], deadline: float) -> bool:
        """Waits for tasks, and cancels them at the deadline; returns whether some still have not ended."""
        owner = self._owner
        late = await _until_done(running, deadline - owner.loop.time())
        for task in late:
            task.cancel()
        hung = await _until_done(late, self.FLUSH_TIMEOUT)
        for task in hung:
            label, name = owner.endpoint._label, type(owner.endpoint).__name__
            logger.warning("%r: a hook of %s has not ended after its cancellation: %r", label, name, task)
        return bool(hung)

    async def _run_on_close(self, on_close: "Callable[[Frame | None], Awaitable[None]]") -> None:
        owner = self._owner
        endpoint = owner.endpoint
        received = owner.connection.received_close
        frame = None if received is None else Frame(OpCode.CLOSE, True, received)
        try:
            await stepping.checked(on_close(frame))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if stepping.is_abandoned(error, owner.loop):
                raise
            owner.note_error()
            log_failure(error, "%r: error in on_close of %s", endpoint._label, type(endpoint).__name__)


async def _until_done(running: Iterable["asyncio.Task[None]"], seconds: float) -> set["asyncio.Task[None]"]:
    """Waits for tasks up to `seconds`, or until cancelled; returns those that have not ended."""
    left = {task for task in running if not task.done()}
    if left:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(left, timeout=max(seconds, 0))
    return {task for task in left if not task.done()}
