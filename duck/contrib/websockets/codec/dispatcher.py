"""How messages get to handlers, in plain Python: the readable specification of `dispatcher.pxi`.

A handler is a coroutine of its own in a task of its own, as `create_task` would make it. Most handlers never wait, and
for them a task is too much to make anew. So a connection keeps at most one *idle worker*: a task that is parked, whose
coroutine is a `Worker`. The read callback makes that task the current one, enters its context and runs the handler's
first step there. What happens next depends on the handler:

    IDLE --a message--> STARTING --ended, nobody has noticed the task--> IDLE
                        STARTING --ended, somebody has-----------------> ENDED    the task ends, as the handler has
                        STARTING --waits--> WAITING --> DRIVEN --------> ENDED    the task drives it to its end

A handler that ends without a wait leaves no trace if nobody keeps its task (the reference count and the list of weak
references tell), nothing was done to the task (its methods tell the worker), and its context is as it was. Then the
task takes the next message. In every other case the task belongs to the handler and ends with it: with its result, its
exception or its cancellation.

Messages wait in the inbox while `on_open` runs, while `limit` handlers wait, and while a thread decodes a message. They
wait as they came, encoded: what an extension has compressed is decompressed when its handler starts.

asyncio comes in as `tasks`, so that this file depends on nothing of it:

    start_worker(loop, worker, context)    a task that tells its worker what is done to it (`kept`, `withdraw_cancel`);
                                         it takes its first step at once where Python can do that
    enter_task(loop, task), leave_task(loop, task)    as asyncio.tasks has them, for who implements tasks of their own
    retrieve(task)    marks its exception as retrieved
    CancelledError, deque    of asyncio and collections
    iterator(awaitable)    what `await` would drive
    OPCODES    opcodes by number
"""

import sys
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Self

IDLE, STARTING, WAITING, DRIVEN, ENDED = range(5)

_DRAINED = 64  # messages that leave the inbox at a time

NO_WORKERS: frozenset[Any] = frozenset()


class Worker:
    """The coroutine of a handler's task, and the future that the task waits for while there is no handler.

    Args:
        dispatcher: Hands it messages.
        context: Of the task.
        hook: A coroutine that the task is to drive from its first step; None for a worker that waits for a message.

    Attributes:
        handler: The coroutine of the hook.
        kept: Whether something was done to the task, so that it must not serve another message.
        state: See above.
        task: The task; None during its first step, and after the end.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_awaited",
        "_callback",
        "_cancelled",
        "_context",
        "_dispatcher",
        "_error",
        "_marks",
        "_pending",
        "_value",
        "handler",
        "kept",
        "state",
        "task",
    )

    def __init__(self, dispatcher: "Dispatcher", context: Any, hook: Iterator[Any] | None = None) -> None:
        self.handler: Any = hook
        self.state = IDLE if hook is None else DRIVEN
        self.task: Any = None
        self.kept = False
        self._dispatcher = dispatcher
        self._context = context
        self._marks: tuple[int, int] | None = None  # of a task that nobody keeps
        self._awaited: Any = None  # what the handler waits for, while the task has not been told
        self._pending: BaseException | None = None  # a cancellation that strikes at the next step
        self._value: Any = None  # what the handler has returned
        self._error: BaseException | None = None  # what it has raised
        self._callback: Callable[[Any], object] | None = None  # steps the task while it is parked
        self._cancelled = False
        self._asyncio_future_blocking = False

    def __getattr__(self, name: str) -> Any:
        """`cr_frame`, `__qualname__` and the like are those of the handler: debuggers show these."""
        if name == "__qualname__" and self.handler is None:
            return "idle WebSocket worker"
        if name.startswith(("cr_", "__")):
            return getattr(self.handler, name)
        raise AttributeError(name)

    # What a task calls on its coroutine

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self.state == DRIVEN:
            if self._pending is not None:
                error, self._pending = self._pending, None
                return self._drive(error)
            return self._drive(None)
        if self.state == WAITING:
            return self._hand_over()
        if self.state == IDLE:
            self._asyncio_future_blocking = True
            return self
        if self._error is not None:
            raise self._error
        raise StopIteration(self._value)

    def send(self, value: Any) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        if self.state == DRIVEN:
            pending, self._pending = self._pending, None
            if pending is not None and not isinstance(error, self._dispatcher.cancelled_error):
                error = pending
            return self._drive(error)
        if self.state == WAITING:
            # The handler was cancelled in its first step: so is what it waits for, as a task does it.
            awaited = self._hand_over()
            cancel = getattr(awaited, "cancel", None)
            if cancel is None or not cancel(msg=error.args[0] if error.args else None):
                self._pending = error
            return awaited
        if self.state == IDLE:
            self.state = ENDED
            self._dispatcher.lose(self)
        raise self._error or error

    def close(self) -> None:
        if self.handler is not None:
            self.handler.close()

    # What a task calls on the future that it waits for

    def get_loop(self) -> Any:
        return self._dispatcher.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any) -> None:
        self._callback = callback

    def result(self) -> None:
        if self._cancelled:
            raise self._dispatcher.cancelled_error

    def cancel(self, msg: object = None) -> bool:
        if self.state != IDLE or self._callback is None:
            return False  # the task notes it, and its next step raises it
        callback, self._callback = self._callback, None
        self._cancelled = True
        self._dispatcher.lose(self)
        self._dispatcher.loop.call_soon(callback, self, context=self._context)
        return True

    # What a task's own methods tell

    def withdraw_cancel(self) -> None:
        """The task is not to be cancelled any more."""
        self._pending = None

    # Running handlers

    def run(self, messages: list[tuple[int, bytes]], at: int) -> int:
        """Hands messages to handlers within the task's context, while the task can serve another; where to go on."""
        return self._context.run(self._run, messages, at)  # type: ignore[no-any-return]

    def _run(self, messages: list[tuple[int, bytes]], at: int) -> int:
        dispatcher = self._dispatcher
        owner = dispatcher.owner
        while at < len(messages) and not (dispatcher.stopped or dispatcher.decoding):
            message = messages[at]
            at += 1
            if message[0] & dispatcher.encoded:
                if len(message[1]) > dispatcher.decoded_at_once:
                    dispatcher.decoding = True
                    owner.decode_later(message)
                    break
                try:
                    message = dispatcher.decode(*message)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # such as SystemExit, which would end the loop
                    owner.refuse(error)
                    break
            owner.renew_share()
            self._start(message)
            if self.state != IDLE:
                break
            owner.flush_if_old()
        return at

    def _start(self, message: tuple[int, bytes]) -> None:
        """Hands a message to a new handler, which runs to its first wait."""
        opcode, payload = message
        dispatcher = self._dispatcher
        marks = self._taken_marks()
        if self._marks is None:
            self._marks = marks
        elif self._marks != marks:
            self.kept = True
        self.state = STARTING
        try:
            self.handler = handler = dispatcher.iterator(dispatcher.handle(payload, dispatcher.opcodes[opcode]))
            self._awaited = handler.send(None)
        except StopIteration as stop:
            self._value = stop.value
        except BaseException as error:
            self._fail(error)
            return
        else:
            self.state = WAITING
            return
        if self.kept or self._marks != self._taken_marks() or not self.is_context_untouched():
            self.state = ENDED
        else:
            self.state = IDLE
            self.handler = None

    def _taken_marks(self) -> tuple[int, int]:
        return sys.getrefcount(self.task), weakref.getweakrefcount(self.task)

    def is_context_untouched(self) -> bool:
        """Whether every variable has the object that it has for the connection."""
        context, base = self._context, self._dispatcher.context
        if len(context) != len(base):
            return False
        missing = object()
        return all(base.get(variable, missing) is value for variable, value in context.items())

    def _hand_over(self) -> Any:
        """What the handler waits for; from now on the task drives it."""
        self.state = DRIVEN
        awaited, self._awaited = self._awaited, None
        return awaited

    def _drive(self, error: BaseException | None) -> Any:
        """Runs the handler to its next wait; StopIteration or its error if it ends."""
        try:
            return self.handler.send(None) if error is None else self.handler.throw(error)
        except StopIteration as stop:
            self.state = ENDED
            self._dispatcher.lose(self)
            raise StopIteration(stop.value) from None
        except BaseException as raised:
            self._fail(raised)
            self._dispatcher.lose(self)
            if self._error is None:
                raise StopIteration from None
            raise

    def _fail(self, error: BaseException) -> None:
        """The handler has raised, which its task is to end with."""
        self.state = ENDED
        if isinstance(error, KeyboardInterrupt):
            raise error
        self._dispatcher.owner.hook_failed(error)
        if isinstance(error, SystemExit):
            return  # which would end the loop if a task raised it
        self._error = error
        if self.task is not None and not isinstance(error, self._dispatcher.cancelled_error):
            self.task.add_done_callback(self._dispatcher.retrieve)

    def wake(self) -> None:
        """Steps the task here and now, if it is parked; no other task may be running."""
        callback, self._callback = self._callback, None
        if callback is not None:
            self._context.run(callback, self)

    def end(self) -> None:
        """Has the task end, which serves nobody any more."""
        if self.state == IDLE:
            self.state = ENDED
        self.wake()


class Dispatcher:
    """Hands the messages of one connection to its handlers, in order.

    Args:
        owner: The connection; see `Owner`.
        loop: The event loop.
        context: Of the connection: `on_open` runs in it, and each handler in a copy.
        handle: Called with payload and opcode of each message, gives an awaitable.
        limit: Handlers that may wait at a time.
        most_waiting: Messages and bytes that may wait before the owner is told to hold reading.
        tasks: See above.

    Attributes:
        inbox: Messages that no handler has got, as they came.
        workers: Tasks whose handlers wait.
        decoding: Whether the owner decodes a message, for `resume`.
        full: Whether so much waits that the owner holds reading.
        decode: Decodes a message, where there is an extension.
        encoded: Bits of an opcode that tell that its message is to be decoded.
        decoded_at_once: Bytes of the largest encoded message that `decode` is given; larger ones are for the owner.
    """

    __slots__ = (
        "_draining",
        "_enter_task",
        "_leave_task",
        "_limit",
        "_most_waiting",
        "_new_deque",
        "_opening",
        "_running",
        "_start_worker",
        "_waiting_bytes",
        "cancelled_error",
        "context",
        "decode",
        "decoded_at_once",
        "decoding",
        "encoded",
        "full",
        "handle",
        "idle",
        "inbox",
        "iterator",
        "loop",
        "opcodes",
        "opened",
        "owner",
        "retrieve",
        "stopped",
        "workers",
    )

    def __init__(
        self,
        owner: Any,
        loop: Any,
        context: Any,
        handle: Callable[[bytes, Any], Awaitable[None]],
        limit: int,
        most_waiting: tuple[int, int],
        tasks: Any,
    ) -> None:
        self.owner = owner
        self.loop = loop
        self.context = context
        self.handle = handle
        self._limit = limit
        self._most_waiting = most_waiting
        self._start_worker = tasks.start_worker
        self._enter_task = tasks.enter_task
        self._leave_task = tasks.leave_task
        self.retrieve = tasks.retrieve
        self.cancelled_error = tasks.CancelledError
        self.iterator = tasks.iterator
        self.opcodes = tasks.OPCODES
        self.opened = False
        self.stopped = False
        self.decoding = False
        self.decode: Any = None
        self.encoded = 0
        self.decoded_at_once = sys.maxsize
        self.idle: Worker | None = None
        self._opening: Worker | None = None
        self._running = False  # whether messages are being handed out
        self._draining = False  # whether the owner is about to call `drain`
        self.full = False
        self._waiting_bytes = 0
        self._new_deque = tasks.deque
        # Most connections never need these, so they are made when they do.
        self.inbox: Any = ()
        self.workers: set[Any] | frozenset[Any] = NO_WORKERS

    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Runs `on_open`, if there is one, then lets messages through."""
        if on_open is None:
            self.opened = True
            return
        self._opening = worker = Worker(self, self.context, self.iterator(on_open()))
        task = self._start_worker(self.loop, worker, self.context)
        if task.done():
            self.retrieve(task)
        else:
            worker.task = task
            self._join(task)

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Hands messages to handlers; to be called from a callback of the loop, while no task is running."""
        if self.inbox or self._running:
            self._put(messages)
            return
        at = self._hand_out(messages)
        came_meanwhile, self.inbox, self._waiting_bytes = self.inbox, (), 0  # where a handler has run the loop
        if at < len(messages) and not self.stopped:
            self._put(messages[at:])
        if came_meanwhile:
            self._put(came_meanwhile)
            self._drain_soon()

    def resume(self, message: tuple[int, bytes] | None) -> None:
        """Goes on with what `decode_later` was to decode; None if it cannot be."""
        self.decoding = False
        if message is not None and not self.stopped:
            self._hand_out([message])
        self.drain()

    def drain(self) -> None:
        """Hands out what waits, as far as that is possible; to be called as `deliver`."""
        self._draining = False
        while self.inbox and not (self._running or self._is_blocked()):
            messages = [self.inbox.popleft() for _ in range(min(len(self.inbox), _DRAINED))]
            at = self._hand_out(messages)
            if self.stopped:
                return
            self._waiting_bytes -= sum(len(payload) for _, payload in messages[:at])
            self.inbox.extendleft(reversed(messages[at:]))
            if not self.inbox:
                self.inbox = ()
        self._tell_of_room()

    def stop(self) -> int:
        """Nothing more is to be handled: drops what no handler has got, and lets the idle worker go.

        Returns:
            How many messages have been dropped.
        """
        if self.stopped:
            return 0
        dropped = len(self.inbox)
        self.stopped = True
        self.inbox = ()
        self._waiting_bytes = 0
        idle, self.idle = self.idle, None
        if idle is not None:
            self.loop.call_soon(idle.end)
        if dropped:
            self._tell_of_room()
        return dropped

    def forget(self) -> None:
        """Lets the connection go, which is over."""
        del self.owner, self.handle, self.decode

    def lose(self, worker: Worker) -> None:
        """The worker's task has ended, or is about to."""
        if self.idle is worker:
            self.idle = None
        if isinstance(self.workers, set):
            self.workers.discard(worker.task)
        worker.task = None  # which holds on to the worker: without the cycle both are freed at once
        if self._opening is worker:
            self._opening = None
            self.opened = True
        if self.inbox:
            self._drain_soon()

    def _drain_soon(self) -> None:
        if not self._draining:
            self._draining = True
            self.loop.call_soon(self.owner.drain_inbox)

    def _is_blocked(self) -> bool:
        """Whether a message has to wait."""
        return not self.opened or self.decoding or (self.idle is None and len(self.workers) >= self._limit)

    def _hand_out(self, messages: list[tuple[int, bytes]]) -> int:
        """Starts handlers until a message has to wait; where to go on."""
        at = 0
        self._running = True
        try:
            while at < len(messages) and not (self.stopped or self._is_blocked()):
                worker, self.idle = self.idle, None
                if worker is None:
                    worker = self._new_worker()
                elif not worker.is_context_untouched():  # since it has copied that of the connection
                    worker.end()
                    worker = self._new_worker()
                at = self._run(worker, messages, at)
        finally:
            self._running = False
        return at

    def _run(self, worker: Worker, messages: list[tuple[int, bytes]], at: int) -> int:
        task = worker.task
        self._enter_task(self.loop, task)
        try:
            at = worker.run(messages, at)
        except BaseException:  # such as KeyboardInterrupt; a program that goes on with the loop may wait for the task
            worker.task = None
            self.loop.call_soon(worker.end)
            raise
        finally:
            self._leave_task(self.loop, task)
        if worker.state == IDLE and not self.stopped:
            self.idle = worker
            return at
        if worker.state == WAITING:
            self._join(task)
        else:
            worker.task = None
        worker.end()
        return at

    def _new_worker(self) -> Worker:
        context = self.context.copy()
        worker = Worker(self, context)
        worker.task = self._start_worker(self.loop, worker, context)
        return worker

    def _join(self, task: Any) -> None:
        """The task has a handler that waits."""
        if not isinstance(self.workers, set):
            self.workers = set()
        self.workers.add(task)

    def _put(self, messages: Iterable[tuple[int, bytes]]) -> None:
        """Lets messages wait."""
        if not self.inbox:
            self.inbox = self._new_deque()
        self.inbox.extend(messages)
        self._waiting_bytes += sum(len(payload) for _, payload in messages)
        most, most_bytes = self._most_waiting
        if not self.full and (len(self.inbox) > most or self._waiting_bytes > most_bytes):
            self.full = True
            self.owner.hold_inbox()

    def _tell_of_room(self) -> None:
        most, most_bytes = self._most_waiting
        if self.full and len(self.inbox) <= most // 2 and self._waiting_bytes <= most_bytes // 2:
            self.full = False
            self.owner.release_inbox()
        if not (self.inbox or self.decoding):
            self.owner.inbox_emptied()
