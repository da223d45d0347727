"""Queues of received messages and of tasks that wait for them, in plain Python: the specification of `inbox.pxi`.

    deliver -> messages -> take, or the next step of a waiting task

`deliver` steps waiting tasks at once. `protocol.inbox.Inbox` is the subclass that connections use.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Never

from .waiter import Waiter

__all__ = ["Inbox", "NextMessage"]

Message = tuple[int, bytes]


class NextMessage(Waiter):
    """The result of a client's `recv`: an awaitable that gets the next message, as str or bytes, when it is awaited.

    Args:
        inbox: The inbox.
        timeout: Seconds to wait for a message; None for no limit.
        ends: Called with the `ConnectionClosed` at the end of the messages; returns True to raise StopAsyncIteration.

    Attributes:
        deadline: The time of the loop's clock until which it waits; 0 if it has no limit or does not wait.
    """

    __slots__ = ("_ends", "_inbox", "_slow", "deadline", "timeout")

    def __init__(self, inbox: "Inbox", timeout: float | None = None, ends: Callable[[Any], bool] | None = None) -> None:
        super().__init__(inbox.loop, inbox.waiters)
        self._inbox = inbox
        self.timeout = timeout
        self.deadline = 0.0
        self._ends = ends
        self._slow: Coroutine[Any, Any, Message] | None = None  # waits for the thread that decodes the message

    def __next__(self) -> Any:
        queue, inbox = self._begun(), self._inbox
        if self._slow is not None:
            return self._step(self._slow.send, None)
        self._future = None
        message = inbox.take()
        if message is not None:
            self._finish(message)
        if not (inbox.messages or inbox.has_ended):
            if self.timeout is not None and not self.deadline:
                self.deadline = inbox.expire_in(self.timeout)
            return self._wait(queue)
        self._slow = inbox.get_slowly(self.timeout, self.deadline)
        return self._step(self._slow.send, None)

    def _finish(self, message: Message) -> Never:
        opcode, payload = message
        self._queue = self._slow = self._future = None
        raise StopIteration(payload.decode() if opcode == 1 else payload)

    def _step(self, step: Callable[..., Any], value: Any) -> Any:
        """Steps the coroutine that waits for a thread; raises its error at the end of the messages."""
        try:
            return step(value)
        except StopIteration as stop:
            message = stop.value
        except BaseException as error:
            self._queue = self._slow = None
            if self._ends is not None and isinstance(error, self._inbox.closed_class) and self._ends(error):
                raise StopAsyncIteration from None
            raise
        finally:
            del value
        return self._finish(message)

    def _resolved(self) -> Any:
        # The next waiting task may reuse the future, which has no callback any more.
        self._inbox.spare, self._future = self._future, None
        return self._inbox.done

    def _new_future(self) -> Any:
        future, self._inbox.spare = self._inbox.spare, None
        return super()._new_future() if future is None else future

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        try:
            return super().throw(error) if self._slow is None else self._step(self._slow.throw, error)
        finally:
            del error  # as in `Waiter.throw`

    def close(self) -> None:
        if self._slow is not None:
            self._slow.close()
            self._slow = None
        super().close()


class Inbox:
    """The received messages of one connection that no task has taken, in order and still encoded.

    Args:
        loop: The event loop.
        most: Messages that may wait; reading is on hold while there are more.
        most_bytes: Bytes of payload that may wait; reading is on hold while there are more.
        done: A completed future of asyncio.
        closed_class: `ConnectionClosed`.

    Attributes:
        messages: The waiting messages, the next one at the end.
        waiters: The waiting tasks, the first one at the beginning.
        encoded: The bits of an opcode that mark an encoded message.
        has_ended: Whether no more messages will be delivered.
        counted: The number of messages that have waited since their delivery. A message that a task gets within its
            delivery is not counted.
        waiting_bytes: Bytes of the counted messages.
        spare: An unused future for the next task that waits; a new one would cost 800 instructions.
    """

    loop: Any
    done: Any
    closed_class: type
    messages: list[Message]
    waiters: list[Waiter]
    encoded: int
    has_ended: bool
    counted: int
    waiting_bytes: int
    spare: Any

    def __init__(self, loop: Any, most: int, most_bytes: int, done: Any, closed_class: type) -> None:
        self.loop = loop
        self.done = done
        self._most = most
        self._most_bytes = most_bytes
        self.closed_class = closed_class
        self.messages = []
        self.waiters = []
        self.encoded = 0
        self.has_ended = False
        self.counted = 0
        self.waiting_bytes = 0
        self.spare = None
        self._held = False

    def next(self, timeout: float | None = None, ends: Callable[[Any], bool] | None = None) -> NextMessage:
        """Returns the awaitable of the next message; see `NextMessage`."""
        return NextMessage(self, timeout, ends)

    def deliver(self, messages: list[Message]) -> None:
        """Adds a list of messages, and steps the tasks that wait for one. The list belongs to the inbox afterwards.

        Must be called from a callback of the loop while no task is running.
        """
        messages.reverse()
        if self.messages:
            messages.extend(self.messages)
        self.messages = messages
        waiters = self.waiters
        waiting = len(waiters)  # a task that waits again joins behind these
        while waiting and waiters and self.messages:
            waiting -= 1
            waiters.pop(0).wake()
        if self.messages:
            self.count()

    def take(self) -> Message | None:
        """Removes and returns the next message; None if there is none, or if a thread must decode it."""
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
        """Counts the messages that have to wait, and holds reading if they are too many."""
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

    def get_slowly(self, timeout: float | None, deadline: float) -> Coroutine[Any, Any, Message]:
        """Returns the next message, which a thread decodes; raises `ConnectionClosed` at the end of the messages.

        Args:
            timeout: See `NextMessage`.
            deadline: The end of the wait on the loop's clock; 0 if the wait begins now.
        """
        raise NotImplementedError

    def expire_in(self, seconds: float) -> float:
        """Schedules the end of a wait in `seconds`; returns its deadline on the loop's clock."""
        raise NotImplementedError

    def hold_reading(self) -> None:
        """Holds reading, because too many messages or bytes wait."""
        raise NotImplementedError

    def release_reading(self) -> None:
        """Releases reading, because there is room again."""
        raise NotImplementedError
