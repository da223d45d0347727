"""A connection in synchronous code: `BlockingConnection`, and `LoopThread`, in which its loop runs.

    ws.recv() -> LoopThread.call -> the thread of the loop: await ClientConnection.recv() -> the result

The loop runs between the calls as well, so that pings are answered and messages are received.
"""

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from inspect import ismethod
from typing import TYPE_CHECKING, Any, Protocol, Self

from ..opcodes import CloseCode, OpCode
from ..protocol.stepping import start_task

if TYPE_CHECKING:
    from ..extensions import Extension
    from ..frame import Frame
    from ..sansio.payloads import Data
    from ..state import State

__all__ = ["BlockingConnection", "BlockingMessage", "Call", "LoopThread", "completed"]


class Call(Protocol):
    """Calls a method in the loop of a connection, and returns its result."""

    def __call__(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...


async def completed(method: Callable[[], Any]) -> Any:
    """Calls a method, and awaits its result if that is a coroutine."""
    result = method()
    return await result if isinstance(result, Coroutine) else result


class LoopThread:
    """The event loop of the connection of one `with` block, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # orders calls and the end
        self._has_ended = False
        self._runner = _new_runner()
        self._loop = self._runner.get_loop()
        # A daemon: a block that is never left must not keep a program alive.
        self._thread = threading.Thread(target=self._run, name="duck-client", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._runner.close()
            raise

    def _run(self) -> None:
        with self._runner:
            self._loop.run_forever()

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a method in the loop, and waits for its result. After the end of the loop it runs in a loop of its own.

        Raises:
            RuntimeError: An event loop runs in the calling thread, or the caller is a child process.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this method blocks, and an event loop runs in this thread: use async with connect(...)")
        bound = partial(method, *args, **kwargs)
        result: Future[Any] = Future()
        if self._submit(result, bound):
            try:
                return result.result()
            except CancelledError:  # the loop has ended meanwhile
                pass
            except BaseException:  # such as KeyboardInterrupt
                result.cancel()
                raise
        with _new_runner() as runner:
            return runner.run(completed(bound))

    def _submit(self, result: Future[Any], method: Callable[[], Any]) -> bool:
        """Schedules a call in the loop; returns False after its end."""
        with self._lock:
            if self._has_ended:
                return False
            if not self._thread.is_alive():
                raise RuntimeError("the connection belongs to the parent process: open another one in this process")
            self._loop.call_soon_threadsafe(self._start, result, method)
            return True

    def _start(self, result: Future[Any], method: Callable[[], Any]) -> None:
        # Without `run_coroutine_threadsafe`, whose result takes two more passes of the loop: 80 us in place of 100.
        task = start_task(self._loop, _complete(result, method))
        if not task.done():

            def cancel(result: Future[Any]) -> None:
                if result.cancelled():
                    self._loop.call_soon_threadsafe(task.cancel)

            result.add_done_callback(cancel)

    def end(self) -> None:
        """Ends the loop and its thread; calls that wait in other threads go on as calls after the end."""
        with self._lock:
            self._has_ended = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _complete(result: Future[Any], method: Callable[[], Any]) -> None:
    """Sets the result of a call, unless the caller does not wait for it any more."""
    try:
        value = await completed(method)
    except asyncio.CancelledError:
        result.cancel()
    except BaseException as error:
        if result.set_running_or_notify_cancel():
            result.set_exception(error)
    else:
        if result.set_running_or_notify_cancel():
            result.set_result(value)


def _new_runner() -> asyncio.Runner:
    """Returns a runner that leaves the default loop of the thread unchanged."""
    return asyncio.Runner(loop_factory=asyncio.new_event_loop)


class Blocking:
    """An object whose methods block, in place of one whose methods are awaited.

    Args:
        target: The object; its other attributes can be read and set here as well.
        call: Calls a method of it.
    """

    def __init__(self, target: Any, call: Call) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_call", call)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    if TYPE_CHECKING:
        _target: Any
        _call: Call
    else:

        def __getattr__(self, name):
            found = getattr(self._target, name)
            return partial(self._call, found) if ismethod(found) else found  # a view is callable too

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str | bytes:
        try:
            part: str | bytes = self._call(self._target.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return part

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._target!r}>"


class BlockingMessage(Blocking):
    """An `IncomingMessage` in synchronous code: `for part in message`, or `message.read()`."""

    if TYPE_CHECKING:
        opcode: OpCode

        def read(self, limit: int | None = None) -> str | bytes: ...


class BlockingConnection(Blocking):
    """A `ClientConnection` in synchronous code; created by `with connect(...)`.

    It has the methods of a `ClientConnection`, which block, and its attributes. `for message in ws` ends as
    `async for` does. The methods may be called from any thread, `recv` in one and `send` in another. Ctrl-C ends a
    method as a cancellation ends that of a `ClientConnection`.
    """

    if TYPE_CHECKING:  # the members of the connection that `__getattr__` finds
        url: str
        subprotocol: str | None
        extensions: Sequence[Extension]

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
        def wait_closed(self) -> int: ...

    def recv_stream(self, timeout: float | None = None) -> BlockingMessage:
        """Returns the next message as soon as it begins; see `ClientConnection.recv_stream`."""
        return BlockingMessage(self._call(self._target.recv_stream, timeout), self._call)
