"""Messages that wait for tasks to receive them, in plain Python: the readable specification of `inbox.pxi`.

    deliver -> messages -> take, or the next step of a waiting task

A task that waits is stepped inside `deliver`, not one pass of the loop later, so that its replies leave together with
those of the same read. This file imports nothing of asyncio: the class of a cancellation comes with the inbox.
"""

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Never, Self

__all__ = ["Inbox", "NextMessage", "Turn"]

Message = tuple[int, bytes]


class Turn(Coroutine[Any, Any, Any]):
    """An awaitable for one task, which waits in the line of an inbox. `wake` runs the task's next step at once.

    It is the coroutine that a task awaits, and the future that it yields. As long as no task waits for it,
    `_asyncio_future_blocking` is None, so that asyncio does not take it for a future. A task is woken with a future of
    asyncio that is done, because a task spends 1600 instructions on the result of any other future. The outcome of the
    wait is that of the coroutine's next step. A handler may be woken before its task waits, because its first step can
    precede that of the task; the task then goes on in a callback.

    Args:
        inbox: The inbox.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_error", "_inbox", "_is_woken")

    _context: Context

    def __init__(self, inbox: "Inbox") -> None:
        self._inbox: Inbox | None = inbox
        self._asyncio_future_blocking: bool | None = None
        self._callback: Callable[[Any], object] | None = None
        self._error: BaseException | None = None
        self._is_woken = False  # before the task waits

    def wake(self) -> None:
        """Steps the task at once. No other task may be running."""
        callback, self._callback = self._callback, None
        if callback is None:
            self._is_woken = True
        elif self._inbox is not None:
            self._context.run(callback, self._inbox.done)

    def wake_soon(self) -> None:
        """Schedules the task's step in the loop."""
        callback, self._callback = self._callback, None
        if callback is None:
            self._is_woken = True
        elif self._inbox is not None:
            self._inbox.loop.call_soon(callback, self._inbox.done, context=self._context)

    def fail(self, error: BaseException) -> None:
        """Leaves the line. The task's next step, in a later callback, raises the error."""
        self._leave()
        self._error = error
        self.wake_soon()

    def _leave(self) -> None:
        if self._inbox is not None and self in self._inbox.turns:
            self._inbox.turns.remove(self)

    # The coroutine that a task drives

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        inbox = self._inbox
        if inbox is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if self._error is not None:
            self._inbox = None
            raise self._error
        if self._asyncio_future_blocking is None:
            return self._wait(inbox)
        self._inbox = None
        raise StopIteration

    def _wait(self, inbox: "Inbox") -> Self:
        inbox.turns.append(self)
        self._asyncio_future_blocking = True
        return self

    def send(self, value: Any) -> Any:
        return self.__next__()

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        self.close()
        raise error

    def close(self) -> None:
        self._leave()
        self._inbox = self._callback = None

    # The future that the task waits for

    def get_loop(self) -> Any:
        return None if self._inbox is None else self._inbox.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context) -> None:
        self._callback = callback
        self._context = context
        if self._is_woken:
            self._is_woken = False
            self.wake_soon()

    def cancel(self, msg: Any = None) -> bool:
        if self._callback is None or self._inbox is None:
            return False
        new = self._inbox.cancelled_error
        self.fail(new() if msg is None else new(msg))
        return True


class NextMessage(Turn):
    """The result of a client's `recv`: an awaitable that takes the next message as str or bytes when it is awaited.

    Args:
        inbox: The inbox.
        timeout: Seconds to wait for a message; None for no limit.
        ends: Called with the `ConnectionClosed` at the end of the messages; returns True to raise StopAsyncIteration.

    Attributes:
        deadline: The time of the loop's clock until which it waits; 0 if it has no limit or does not wait.
    """

    __slots__ = ("_ends", "_slow", "deadline", "timeout")

    def __init__(self, inbox: "Inbox", timeout: float | None = None, ends: Callable[[Any], bool] | None = None) -> None:
        super().__init__(inbox)
        self.timeout = timeout
        self.deadline = 0.0
        self._ends = ends
        self._slow: Coroutine[Any, Any, Message] | None = None  # what waits for a thread

    def __next__(self) -> Any:
        inbox = self._inbox
        if inbox is None:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if self._slow is not None:
            return self._step(self._slow.send, None)
        if self._error is not None:
            self._inbox = None
            raise self._error
        message = inbox.take()
        if message is not None:
            self._finish(message)
        if not (inbox.messages or inbox.has_ended):
            if self.timeout is not None and not self.deadline:
                self.deadline = inbox.expire_in(self.timeout)
            return self._wait(inbox)
        self._slow = inbox.get_slowly(self.timeout)
        return self._step(self._slow.send, None)

    def _finish(self, message: Message) -> Never:
        opcode, payload = message
        self._inbox = self._slow = None
        raise StopIteration(payload.decode() if opcode == 1 else payload)

    def _step(self, step: Callable[..., Any], value: Any) -> Any:
        """Drives the coroutine that waits for a thread, or raises the error of the end."""
        inbox = self._inbox
        assert inbox is not None
        try:
            return step(value)
        except StopIteration as stop:
            message = stop.value
        except BaseException as error:
            self._inbox = self._slow = None
            if self._ends is not None and isinstance(error, inbox.closed_class) and self._ends(error):
                raise StopAsyncIteration from None
            raise
        return self._finish(message)

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        if self._slow is not None:
            return self._step(self._slow.throw, error)
        return super().throw(error)

    def close(self) -> None:
        if self._slow is not None:
            self._slow.close()
            self._slow = None
        super().close()


class Inbox:
    """The received messages of one connection that have not been taken, in order and still encoded.

    Args:
        loop: The event loop.
        most: Messages that may wait; reading is on hold while there are more.
        most_bytes: Bytes of payload that may wait; reading is on hold while there are more.
        done: A future of asyncio that is done.
        cancelled_error: `asyncio.CancelledError`.
        closed_class: `ConnectionClosed`.

    Attributes:
        messages: The waiting messages, the next one at the end.
        turns: Waiting tasks, the first one at the beginning.
        encoded: A mask of opcodes: a message that has one of its bits must be decoded.
        has_ended: Whether no message will be delivered any more.
        counted: Number of the oldest messages, which have waited since an earlier delivery. A message that a task takes
            within its delivery is not counted.
        waiting_bytes: Bytes of the counted messages.
    """

    loop: Any
    done: Any
    cancelled_error: type
    closed_class: type
    messages: list[Message]
    turns: list[Turn]
    encoded: int
    has_ended: bool
    counted: int
    waiting_bytes: int

    def __init__(
        self, loop: Any, most: int, most_bytes: int, done: Any, cancelled_error: type, closed_class: type
    ) -> None:
        self.loop = loop
        self.done = done
        self._most = most
        self._most_bytes = most_bytes
        self.cancelled_error = cancelled_error
        self.closed_class = closed_class
        self.messages = []
        self.turns = []
        self.encoded = 0
        self.has_ended = False
        self.counted = 0
        self.waiting_bytes = 0
        self._held = False

    def deliver(self, messages: list[Message]) -> None:
        """Takes over a list of messages, and steps the tasks that wait for one.

        Must be called from a callback of the loop while no task is running.
        """
        messages.reverse()
        if self.messages:
            messages.extend(self.messages)
        self.messages = messages
        turns = self.turns
        waiting = len(turns)  # a task that waits again joins behind these
        while waiting and turns and self.messages:
            waiting -= 1
            turns.pop(0).wake()
        if self.messages:
            self.count()

    def take(self) -> Message | None:
        """Returns the next message; None if none is there or a thread must decode it."""
        if not self.messages:
            return None
        taken = self.messages[-1]
        if taken[0] & self.encoded:
            return self.take_encoded(taken)
        self.pop()
        return taken

    def pop(self) -> None:
        """Removes the next message."""
        message = self.messages.pop()
        if self.counted:
            self.counted -= 1
            self.waiting_bytes -= len(message[1])
            if self._held and self.counted <= self._most // 2 and self.waiting_bytes <= self._most_bytes // 2:
                self._held = False
                self.release_reading()

    def count(self) -> None:
        """Counts the messages left to wait, and holds reading if they are too many."""
        messages = self.messages
        for at in range(len(messages) - self.counted):
            self.waiting_bytes += len(messages[at][1])
        self.counted = len(messages)
        if not self._held and (self.counted > self._most or self.waiting_bytes > self._most_bytes):
            self._held = True
            self.hold_reading()

    # Methods of the subclass

    def take_encoded(self, message: Message) -> Message | None:
        """`take` of a message that must be decoded."""
        raise NotImplementedError

    def get_slowly(self, timeout: float | None) -> Coroutine[Any, Any, Message]:
        """Waits for a thread to decode the next message; raises `ConnectionClosed` at the end of the messages."""
        raise NotImplementedError

    def expire_in(self, seconds: float) -> float:
        """Has the turns whose deadline comes first wake then; returns the time in `seconds` on the loop's clock."""
        raise NotImplementedError

    def hold_reading(self) -> None:
        """Holds reading, because too much waits."""
        raise NotImplementedError

    def release_reading(self) -> None:
        """Releases reading, because there is room."""
        raise NotImplementedError
