"""A connection in synchronous code: `BlockingConnection`, whose methods block.

    ws.recv() -> LoopThread.call -> the thread of the loop: await ClientConnection.recv() -> the message

A test in memory has another way to call: see `testing.blocking`.
"""

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from inspect import ismethod
from typing import TYPE_CHECKING, Any, Self

from ..opcodes import CloseCode, OpCode
from ..protocol.stepping import retrieve
from ..sansio.payloads import Data, parts_of
from .loop_thread import Call

if TYPE_CHECKING:
    from ..extensions import Extension
    from ..frame import Frame
    from ..state import State

__all__ = ["BlockingConnection", "BlockingMessage"]


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

    def __reduce__(self) -> Any:
        return self._target.__reduce__()

    def __dir__(self) -> list[str]:  # completion in a console
        return sorted({*super().__dir__(), *dir(self._target)})

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


class _Parts:
    """The parts of a message, which a thread produces while the loop sends them.

    Args:
        send: Sends them as one message.
    """

    def __init__(self, send: Callable[[AsyncIterable[Any]], Coroutine[Any, Any, None]]) -> None:
        self._queue: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()  # at most one part; an empty tuple is the end
        self._is_wanted = asyncio.Event()  # the next part; also set at the end of the sending
        self._sending = asyncio.ensure_future(send(self))
        self._sending.add_done_callback(self._end)

    def _end(self, sending: "asyncio.Future[None]") -> None:
        retrieve(sending)
        self._is_wanted.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        self._is_wanted.set()
        part = await self._queue.get()
        if not part:
            raise StopAsyncIteration
        return part[0]

    async def wanted(self) -> None:
        """Waits until the next part is wanted, or until the message is sent; raises the error of the sending."""
        await self._is_wanted.wait()
        if self._sending.done():
            self._sending.result()

    async def put(self, *part: Any) -> None:
        """Passes on a part, or without one the end of the message; then waits as `wanted` does."""
        if not self._sending.done():
            self._is_wanted.clear()
            self._queue.put_nowait(part)
        await self.wanted()

    async def cancel(self) -> None:
        """Stops the sending. A message that has begun ends the connection."""
        if not self._sending.done():
            self._sending.cancel()
            await asyncio.wait([self._sending])
        del self._sending  # its error would form a cycle with the frames of the caller


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

    def __init__(self, target: Any, call: Call) -> None:
        super().__init__(target, call)
        object.__setattr__(self, "_sources", set())

    if TYPE_CHECKING:  # the members of the connection that `__getattr__` finds
        _sources: set[int]  # the threads that produce the parts of a message
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
        def send_ping(self, data: Data = b"") -> None: ...
        def send_pong(self, data: Data = b"") -> None: ...
        def send_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None: ...
        def ping(self) -> float: ...
        def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None: ...
        def wait_closed(self) -> int: ...

    def send(self, data: Data | Iterable[Data] | AsyncIterable[Data], opcode: int = OpCode.TEXT) -> None:
        """Sends a message; see `ClientConnection.send`. An iterable produces its parts in the calling thread.

        Raises:
            RuntimeError: The calling thread produces the parts of another message, which would have to leave before.
        """
        if isinstance(data, Collection) or not isinstance(data, Iterable):
            self._call_outside_a_message(self._target.send, data, opcode)
            return
        parts = self._call_outside_a_message(_Parts, lambda parts: self._target.send(parts, opcode))
        thread = threading.get_ident()
        self._sources.add(thread)
        try:
            self._call(parts.wanted)
            for part in parts_of(data):
                self._call(parts.put, part)
            self._call(parts.put)
        except BaseException:
            self._call(parts.cancel)
            raise
        finally:
            self._sources.remove(thread)

    def send_text(self, data: str | Iterable[str] | AsyncIterable[str]) -> None:
        """Sends a text message; see `send`."""
        self.send(data, OpCode.TEXT)

    def send_binary(self, data: Data | Iterable[Data] | AsyncIterable[Data]) -> None:
        """Sends a binary message; see `send`."""
        self.send(data, OpCode.BINARY)

    def send_json(self, data: Any) -> None:
        """Sends an object as a text message of JSON; see `send`."""
        self._call_outside_a_message(self._target.send_json, data)

    def send_frame(self, frame: "Frame") -> None:
        """Sends one frame; see `ClientConnection.send_frame`. Not within the parts of a message."""
        self._call_outside_a_message(self._target.send_frame, frame)

    def _call_outside_a_message(self, method: Callable[..., Any], *args: Any) -> Any:
        if threading.get_ident() in self._sources:  # a generator, or a signal handler that has interrupted `send`
            raise RuntimeError("the parts of a message send another one, which would leave behind it: send it before")
        return self._call(method, *args)

    def recv_stream(self, timeout: float | None = None) -> BlockingMessage:
        """Returns the next message as soon as it begins; see `ClientConnection.recv_stream`."""
        return BlockingMessage(self._call(self._target.recv_stream, timeout), self._call)
