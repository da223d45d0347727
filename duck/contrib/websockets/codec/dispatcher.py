"""The delivery of messages to handlers, in plain Python: the specification of `dispatcher.pxi`.

Each handler is a coroutine in a task of its own, as if `create_task` had started it. Most handlers never wait, and a
new task for each of them would cost too much. Therefore a connection keeps at most one *idle worker*: a parked task
whose coroutine is a `Worker`. The read callback makes that task the current one, enters its context, and runs the
handler's first step there. The next state depends on the handler:

    IDLE --a message--> STARTING --ended, task unobserved--------------> IDLE
                        STARTING --ended, task observed----------------> ENDED    the task ends, as the handler has
                        STARTING --waits--> WAITING --> DRIVEN --------> ENDED    the task drives it to its end

A task that has run a handler without a wait is unobserved under three conditions: no new reference to it exists (by its
reference count and its list of weak references), none of its methods has been called (they notify the worker), and its
context is unchanged and has no new reference, such as that of a kept token. An unobserved task is reused for the next
message. In every other case the task belongs to the handler, and ends with its result, its exception or its
cancellation.

Messages wait while `on_open` runs, while `limit` handlers wait, and while a thread decodes a message.
Waiting messages stay encoded: a compressed message is decompressed when its handler starts.

This file does not import asyncio: `worker.Tasks` is the interface to asyncio, and `Owner` to the connection.
"""

import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from time import perf_counter
from typing import Any, Protocol

from .counters import Counters
from .numbers import WAITING_BATCH
from .worker import IDLE, WAITING, Tasks, Worker

__all__ = ["Dispatcher", "Owner"]

NO_WORKERS: frozenset[Any] = frozenset()


class Owner(Protocol):
    """The connection of a dispatcher."""

    @property
    def counters(self) -> Counters | None:
        """The counters of handler times; None for no counting."""

    def hook_failed(self, error: BaseException) -> None:
        """Handles the exception of a handler."""

    def decode_later(self, message: tuple[int, bytes]) -> None:
        """Decodes a large message in a thread, and calls `resume` with the result."""

    def refuse(self, error: BaseException) -> None:
        """Ends the connection, because a message could not be decoded."""

    def renew_share(self) -> None:
        """Gives a handler that starts its own share of the loop's time."""

    def flush_if_old(self) -> None:
        """Writes the gathered frames if the oldest has waited for too long."""

    def drain_waiting(self) -> None:
        """Calls `drain`, from a callback of the loop."""

    def hold_reading(self) -> None:
        """Holds reading, because too many messages or bytes wait."""

    def release_reading(self) -> None:
        """Releases reading, because there is room again."""

    def none_waits(self) -> None:
        """Notes that no message waits for a handler."""


class Dispatcher:
    """Starts the handlers of one connection's messages, in order.

    Args:
        owner: The connection.
        loop: The event loop.
        context: The context of the connection. `on_open` runs in it, and each handler in a copy.
        handle: Called with payload and opcode of each message; returns an awaitable.
        limit: The number of handlers that may wait at a time.
        most_waiting: The numbers of messages and of bytes that may wait before the owner has to hold reading.
        tasks: The interface to asyncio.

    Attributes:
        waiting: Messages that wait for a handler, still encoded.
        workers: The tasks of handlers that wait.
        decoding: Whether the owner is decoding a message, for `resume`.
        full: Whether the owner holds reading because too many messages or bytes wait.
        decode: Decodes a message that extensions have encoded.
        encoded: The bits of an opcode that mark an encoded message.
        decoded_at_once: Bytes of the largest encoded message for `decode`. The owner decodes larger ones in a thread.
    """

    __slots__ = (
        "_draining",
        "_limit",
        "_most_waiting",
        "_opening",
        "_running",
        "_waiting_bytes",
        "context",
        "decode",
        "decoded_at_once",
        "decoding",
        "encoded",
        "full",
        "handle",
        "idle",
        "loop",
        "opened",
        "owner",
        "stopped",
        "tasks",
        "waiting",
        "workers",
    )

    def __init__(
        self,
        owner: Owner,
        loop: Any,
        context: Context,
        handle: Callable[[bytes, Any], Awaitable[None]],
        limit: int,
        most_waiting: tuple[int, int],
        tasks: Tasks,
    ) -> None:
        self.owner = owner
        self.loop = loop
        self.context = context
        self.handle = handle
        self._limit = limit
        self._most_waiting = most_waiting
        self.tasks = tasks
        self.opened = False
        self.stopped = False
        self.decoding = False
        self.decode: Callable[[int, bytes], tuple[int, bytes]] | None = None
        self.encoded = 0
        self.decoded_at_once = sys.maxsize
        self.idle: Worker | None = None
        self._opening: Worker | None = None
        self._running = False  # whether messages are being dispatched
        self._draining = False  # whether the owner is about to call `drain`
        self.full = False
        self._waiting_bytes = 0
        # Created on demand, because most connections never need them.
        self.waiting: Any = ()
        self.workers: set[Any] | frozenset[Any] = NO_WORKERS

    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Runs `on_open`, if there is one, then starts the delivery."""
        if on_open is None:
            self.opened = True
            return
        self._opening = worker = Worker(self, self.context, self.tasks.iterator(on_open()))
        task = self.tasks.start_worker(self.loop, worker, self.context)
        if task.done():
            self.tasks.retrieve(task)
        else:
            worker.task = task
            self._join(task)

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Starts handlers for messages; must be called from a callback of the loop while no task is running."""
        if self.waiting or self._running:
            self._put(messages)
            return
        at = self._dispatch(messages)
        arrived, self.waiting, self._waiting_bytes = self.waiting, (), 0  # not empty if a handler has run the loop
        if at < len(messages) and not self.stopped:
            self._put(messages[at:])
        if arrived:
            self._put(arrived)
            self._drain_soon()

    def resume(self, message: tuple[int, bytes] | None) -> None:
        """Continues after `decode_later`.

        Args:
            message: The decoded message; None if the decoding has failed.
        """
        self.decoding = False
        if message is not None and not self.stopped:
            self._dispatch([message])
        self.drain()

    def drain(self) -> None:
        """Starts handlers for waiting messages as far as possible; must be called as `deliver`."""
        self._draining = False
        while self.waiting and not (self._running or self._is_blocked()):
            messages = [self.waiting.popleft() for _ in range(min(len(self.waiting), WAITING_BATCH))]
            at = self._dispatch(messages)
            if self.stopped:
                break
            self._waiting_bytes -= sum(len(payload) for _, payload in messages[:at])
            self.waiting.extendleft(reversed(messages[at:]))
            if not self.waiting:
                self.waiting = ()
        self._report_room()

    def stop(self) -> int:
        """Starts no more handlers, drops the waiting messages, and ends the idle worker.

        Returns:
            The number of dropped messages.
        """
        if self.stopped:
            return 0
        dropped = len(self.waiting)
        self.stopped = True
        self.waiting = ()
        self._waiting_bytes = 0
        idle, self.idle = self.idle, None
        if idle is not None:
            self.loop.call_soon(idle.end)
        if dropped:
            self._report_room()
        return dropped

    def forget(self) -> None:
        """Drops the references to the connection, which has ended."""
        del self.owner, self.handle, self.decode

    def release(self, worker: Worker) -> None:
        """Releases a worker whose task has ended or is about to."""
        if worker.started and self.owner.counters is not None:
            self.owner.counters.add_handlers(worker.started, 1, 0)
            worker.started = 0.0
        if self.idle is worker:
            self.idle = None
        if isinstance(self.workers, set):
            self.workers.discard(worker.task)
        worker.task = None  # the task refers to the worker: without the cycle both are freed at once
        if self._opening is worker:
            self._opening = None
            self.opened = True
        if self.waiting:
            self._drain_soon()

    def _drain_soon(self) -> None:
        if not self._draining:
            self._draining = True
            self.loop.call_soon(self.owner.drain_waiting)

    def _is_blocked(self) -> bool:
        """Whether a message has to wait."""
        return not self.opened or self.decoding or (self.idle is None and len(self.workers) >= self._limit)

    def _dispatch(self, messages: list[tuple[int, bytes]]) -> int:
        """Starts handlers until a message has to wait; returns the index of the next message."""
        at = 0
        self._running = True
        try:
            while at < len(messages) and not (self.stopped or self._is_blocked()):
                worker, self.idle = self.idle, None
                if worker is None:
                    worker = self._new_worker()
                elif not worker.is_context_untouched():  # the connection's context may have changed since the copy
                    worker.end()
                    worker = self._new_worker()
                at = self._run(worker, messages, at)
        finally:
            self._running = False
        return at

    def _run(self, worker: Worker, messages: list[tuple[int, bytes]], at: int) -> int:
        """Runs handlers in a worker's task while it can be reused; returns the index of the next message."""
        task = worker.task
        self.tasks.enter_task(self.loop, task)
        try:
            at = worker.context.run(self._serve, worker, messages, at)
        except BaseException:  # such as KeyboardInterrupt; the program may run the loop again, and wait for the task
            worker.task = None
            self.loop.call_soon(worker.end)
            raise
        finally:
            self.tasks.leave_task(self.loop, task)
        if worker.state == IDLE and not self.stopped:
            self.idle = worker
            return at
        if worker.state == WAITING:
            self._join(task)
        else:
            worker.task = None
        worker.end()
        return at

    def _serve(self, worker: Worker, messages: list[tuple[int, bytes]], at: int) -> int:
        """The part of `_run` inside the worker's context."""
        owner, counters = self.owner, self.owner.counters
        started = perf_counter()
        ended = 0  # handlers since then
        while at < len(messages) and not (self.stopped or self.decoding):
            message = messages[at]
            at += 1
            if message[0] & self.encoded:
                if counters is not None and ended:
                    counters.add_handlers(started, ended, 0)
                    ended = 0
                decoded = self._decoded(message)
                if decoded is None:
                    break
                message = decoded
                started = perf_counter()
            owner.renew_share()
            worker.start(message)
            if worker.state == WAITING:
                if counters is not None:
                    worker.started = counters.add_handlers(started, ended, 1)
                    ended = 0
                break
            ended += 1
            if worker.state != IDLE:
                break
            owner.flush_if_old()
        if counters is not None and ended:
            counters.add_handlers(started, ended, 0)
        return at

    def _decoded(self, message: tuple[int, bytes]) -> tuple[int, bytes] | None:
        """Returns the decoded message; None if a thread decodes it, or if it cannot be decoded."""
        if len(message[1]) > self.decoded_at_once:
            self.decoding = True
            self.owner.decode_later(message)
            return None
        assert self.decode is not None
        try:
            return self.decode(*message)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the loop
            self.owner.refuse(error)
            return None

    def _new_worker(self) -> Worker:
        context = self.context.copy()
        worker = Worker(self, context)
        worker.task = self.tasks.start_worker(self.loop, worker, context)
        return worker

    def _join(self, task: Any) -> None:
        """Registers a task whose handler waits."""
        if not isinstance(self.workers, set):
            self.workers = set()
        self.workers.add(task)

    def _put(self, messages: Iterable[tuple[int, bytes]]) -> None:
        """Appends messages to those that wait."""
        if not self.waiting:
            self.waiting = deque()
        self.waiting.extend(messages)
        self._waiting_bytes += sum(len(payload) for _, payload in messages)
        if self.owner.counters is not None:
            self.owner.counters.note_waiting(len(self.waiting), self._waiting_bytes)
        most, most_bytes = self._most_waiting
        if not self.full and (len(self.waiting) > most or self._waiting_bytes > most_bytes):
            self.full = True
            self.owner.hold_reading()

    def _report_room(self) -> None:
        most, most_bytes = self._most_waiting
        if self.full and len(self.waiting) <= most // 2 and self._waiting_bytes <= most_bytes // 2:
            self.full = False
            self.owner.release_reading()
        if not (self.waiting or self.decoding):
            self.owner.none_waits()
