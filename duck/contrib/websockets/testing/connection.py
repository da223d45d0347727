"""`TestConnection`: a client's connection to the tested application, in the same process."""

import asyncio
import linecache
import os
import traceback
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Mapping
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, Unpack

from ..client.address import Address
from ..client.connection import ClientConnection
from ..client.dialing import Opening, new_opening
from ..client.options import Options
from ..client.timeouts import checked_timeout, within
from ..codec import SENT, Waiter
from ..exceptions import ConnectionClosed
from ..frame import Frame
from ..logging import failures
from ..opcodes import CloseCode, OpCode
from ..protocol.incoming_message import IncomingMessage
from ..protocol.pending import Pending
from ..protocol.stream_queue import OnStream, StreamQueue
from .network import Network, frames_of
from .serving import Server

__all__ = ["TestConnection"]

T = TypeVar("T")

_FOREIGN = {
    "disconnect": "close",
    "receive": "recv",
    "receive_bytes": "recv",
    "receive_from": "recv",
    "receive_json": "recv_json",
    "receive_json_from": "recv_json",
    "receive_nothing": "recv(timeout=0.1), which raises TimeoutError",
    "receive_str": "recv",
    "receive_text": "recv",
    "send_bytes": "send_binary",
    "send_json_to": "send_json",
    "send_str": "send",
    "send_to": "send",
}
"""Methods of other test clients, each with ours."""

_PATIENCE = 1.0  # seconds for the hooks of a view to end after the connection
_LAST = 5.0  # seconds for cancelled hooks to end, which cancellation and `on_close` take
_PACKAGE = os.path.dirname(os.path.dirname(__file__))


class TestConnection(ClientConnection):
    """A client's connection to the tested application: a `ClientConnection` with additions for tests.

    `connect` creates it; the arguments are described there.

    Attributes:
        timeout: Seconds for each wait; None for no limit.
        view: The view at the other end; None for an ASGI application.
        errors: The exceptions of the view's hooks.
    """

    __test__ = False  # pytest collects classes by name

    PING_INTERVAL = None  # pings that a test has not requested would disturb it
    RECEIVE_TIMEOUT = None

    def __init__(
        self,
        application: Any,
        path: str,
        *,
        kwargs: Mapping[str, Any] | None,
        scope: Mapping[str, Any] | None,
        server: Any,
        timeout: float | None,
        raise_errors: bool,
        keep_frames: bool,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(f"ws://testserver{path}" if path.startswith("/") else _whole_url(path), options)
        self.timeout = checked_timeout("timeout", timeout)
        self.errors: list[BaseException] = []
        self._raised: list[BaseException] = []
        self._raise_errors = raise_errors
        self._server = Server(application, kwargs or {}, self._address.secure, scope, server)
        self._network: Network | None = None
        self._keeps_frames = keep_frames
        self._received = 0

    if not TYPE_CHECKING:  # type checkers report these mistakes themselves

        def __getattr__(self, name: str) -> NoReturn:
            advice = f": use {_FOREIGN[name]}" if name in _FOREIGN else ""
            message = f"{type(self).__name__!r} object has no attribute {name!r}{advice}"
            raise AttributeError(message, name=name, obj=self)

    @property
    def view(self) -> Any:
        """The view at the other end."""
        return self._server.view

    # Opening

    async def open(self) -> None:
        """Performs the handshake, as `ClientConnection.open`; raises errors of the application."""
        try:
            await super().open()
        except BaseException as error:
            if self._network is not None:
                self._network.drop()
                await self._end_application()
            if isinstance(error, Exception):
                self._raise_error(error)
            raise

    async def _end_application(self) -> None:
        """Waits for the tested view to notice the failed connection; cancels it after a while."""
        try:
            for seconds in (self._patience, _LAST):
                if self._server.ends:
                    _, left = await asyncio.wait(self._server.ends, timeout=seconds)
                    if left:
                        self._server.cancel()
        except asyncio.CancelledError:
            self._server.cancel()
            raise

    async def _dial(self) -> tuple[Opening, Address]:
        self._network = network = Network()
        network.kept = bytearray() if self._keeps_frames else None
        opening = new_opening(self._address, self._route, True, self.SUBPROTOCOLS, self._offers())
        context = copy_context()
        context.run(failures.set, self.errors)
        context.run(network.server.connect, self._server)
        network.client.connect(opening)
        try:
            await self._in_time(opening.agreement, "an answer to the upgrade request")
        finally:
            opening.agreement.cancel()
        return opening, self._address

    def _new_stream_queue(self, on_stream: OnStream | None = None) -> StreamQueue:
        return _Streams(asyncio.get_running_loop(), self)

    # Waiting

    async def recv(self, timeout: float | None = None) -> str | bytes:
        """Returns the next message: a str for text, bytes for binary.

        Args:
            timeout: Seconds to wait; None for the connection's timeout.

        Raises:
            ConnectionClosed: The connection is closing or closed, and no message is left.
            Exception: The exception of a view's hook, if it has closed the connection.
            TimeoutError: No message was received in time; the text describes the activity of the view.
        """
        checked_timeout("timeout", timeout)
        return await self._received_in_time(super().recv(), timeout)

    async def recv_stream(self, timeout: float | None = None) -> IncomingMessage:
        """Returns the next message as soon as it begins. The errors are those of `recv`."""
        checked_timeout("timeout", timeout)
        if self._streams is None:
            return await super().recv_stream(timeout)
        return await self._received_in_time(super().recv_stream(), timeout)

    async def _received_in_time(self, waiting: Awaitable[T], timeout: float | None) -> T:
        """Awaits and counts a message; raises the errors of `recv`."""
        try:
            message = await self._in_time(waiting, "a message", timeout)
        except ConnectionClosed as closed:
            self._raise_error(closed)
            raise
        self._received += 1
        return message

    def send(self, data: Any, opcode: int = OpCode.TEXT) -> Coroutine[Any, Any, None]:
        """Queues a message, as `ClientConnection.send`. Awaiting it raises a TimeoutError without room in time."""
        sending = super().send(data, opcode)
        return sending if sending is SENT else Pending(lambda: self._in_time(sending, "room to send"))

    async def ping(self) -> float:
        return await self._in_time(super().ping(), "a pong")

    async def wait_closed(self, timeout: float | None = None) -> int:
        """Waits until both ends are closed and every hook of the view has ended; returns the close code."""
        checked_timeout("timeout", timeout)
        await self._in_time(self._until_ended(), "the end of the connection", timeout)
        return self._open_protocol().connection.close_code or CloseCode.ABNORMAL_CLOSURE

    async def _until_ended(self) -> None:
        await self._open_protocol().until_closed()
        if self._server.ends:
            await asyncio.wait(self._server.ends)

    async def _in_time(self, waiting: Awaitable[T], what: str, timeout: float | None = None) -> T:
        timeout = self.timeout if timeout is None else timeout
        explain = lambda: f"timeout after {timeout} seconds, waiting for {what}: {self.doing()}"  # noqa: E731
        return await within(checked_timeout("timeout", timeout), waiting, explain)

    def doing(self) -> str:
        """Describes the activity of the other end."""
        server, protocol = self._server, self._open_protocol() if self._protocol else None
        words = [f"{self.received} messages were received"] if protocol is not None else ["the connection is not open"]
        if self._inbox is not None and self._inbox.messages:
            words.append(f"{len(self._inbox.messages)} wait for recv")
        tasks = [] if server.task is None or server.task.done() else [server.task]
        view = server.view
        if view is not None and view._decision is not None:
            tasks += view._decision.running
        if view is not None and view._protocol is not None:
            tasks += view._protocol.running
            waiting = len(view._protocol.consumer.waiting)
            if waiting:
                words.append(f"{waiting} messages wait for {server.label}")
            code = view._protocol.connection.own_code
            if code is not None and not view._protocol.lost:
                words.append(f"{server.label} has closed with {code}, and waits for the close frame of the client")
        if self._network is not None and self._network.stalled:
            words.append("the client does not read")
        words += [f"{_where(task)}" for task in tasks] or [f"no hook of {server.label} is running"]
        words += [f"{type(error).__name__} was raised: {error}" for error in self.errors]
        words += [
            f"{type(error).__name__} has ended the task {server.label}.{name}: {error}"
            for name, error in _failed_tasks(view)
            if not _is_among(error, self.errors)  # one of `create_task`
        ]
        return "; ".join(words)

    @property
    def received(self) -> int:
        """The number of messages that `recv` has returned."""
        return self._received

    @property
    def frames(self) -> list[Frame]:
        """The received frames, pings and close frames included, before decompression.

        Raises:
            RuntimeError: The connection keeps no frames.
        """
        kept = self._network_of().kept
        if kept is None:
            raise RuntimeError("frames are not kept: write connect(..., keep_frames=True)")
        return frames_of(bytes(kept))

    # Closing

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        await self._in_time(super().close(code, reason), "the end of the connection")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        network = self._network_of()
        network.piece = None
        network.resume()
        late = None
        try:
            try:
                await self.close(self._code_of(error))
            except TimeoutError as timeout:
                late = timeout
                network.drop()
            await self._end_hooks()
        except asyncio.CancelledError:  # again, as in a cancelled scope of anyio
            self._server.cancel()
            raise
        finally:
            network.drop()
        if error is None or isinstance(error, ConnectionClosed):
            self._raise_error(error)
            if late is not None:
                raise late
        else:
            self._note_errors(error)

    async def _end_hooks(self) -> None:
        """Waits for the view's hooks, and cancels them after a timeout, as a server does after CLOSE_TIMEOUT."""
        try:
            await asyncio.wait_for(self._until_ended(), self._patience)
        except TimeoutError:
            doing = self.doing()
            self._server.cancel()
            await self.wait_closed(max(self.timeout or 0, _LAST))
            for index, error in enumerate(self.errors):
                if isinstance(error, asyncio.CancelledError):  # in the test it would look like its own cancellation
                    words = f"a hook had not ended {self._patience} seconds after the connection, and was cancelled"
                    self.errors[index] = TimeoutError(f"{words}: {doing}")

    @property
    def _patience(self) -> float:
        return _PATIENCE if self.timeout is None else min(self.timeout, _PATIENCE)

    def _raise_error(self, cause: BaseException | None) -> None:
        """Raises the first exception of a hook that the test has not got yet, with its own traceback and cause."""
        error = next((error for error in self.errors if not _is_among(error, self._raised)), None)
        if self._raise_errors and error is not None and error is not cause:
            self._raised.append(error)
            if isinstance(error, asyncio.CancelledError):  # in the test it would look like its own cancellation
                name = self._server.label
                words = f"a hook of {name} was cancelled, as after CLOSE_TIMEOUT, or has raised CancelledError"
                raise RuntimeError(words) from error
            context, is_suppressed = error.__context__, error.__suppress_context__
            try:
                raise error
            finally:  # the test reports the context in the hook, not the `ConnectionClosed` at hand
                error.__context__, error.__suppress_context__ = context, is_suppressed

    def _note_errors(self, error: BaseException) -> None:
        for other in self.errors:
            if other is not error:
                lines = "".join(traceback.format_exception(other))
                error.add_note(f"{self._server.label} has failed as well:\n{lines}")

    # Faults

    def _network_of(self) -> Network:
        if self._network is None:
            raise RuntimeError("the connection is not open yet")
        return self._network

    def drop(self) -> None:
        """Breaks the connection without a close frame; both ends see a reset."""
        self._network_of().drop()

    def stop_reading(self) -> None:
        """Pauses reading until `resume_reading`, so that the view's data accumulates in its transport."""
        self._network_of().stalled = True

    def resume_reading(self) -> None:
        """Reads the accumulated data."""
        self._network_of().resume()

    def send_raw(self, data: bytes) -> None:
        """Sends bytes unchanged, such as half a frame, or a frame that breaks the rules.

        `Frame(OpCode.TEXT, payload=b"hi").serialize(mask=True)` returns the bytes of a valid frame.
        """
        self._network_of().client.write(data)

    def send_eof(self) -> None:
        """Ends the client's side of the stream."""
        self._network_of().client.write_eof()

    def slow_down(self, size: int = 1) -> None:
        """Limits each pass of the loop to `size` bytes, 1 or more, in each direction from now on."""
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size is a number of bytes, such as 1, not {size!r}")
        if size < 1:
            raise ValueError(f"size is 1 byte or more, not {size!r}")
        self._network_of().piece = size


class _Streams(StreamQueue):
    """The messages of a tested connection with `stream`, whose parts have a timeout each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: TestConnection) -> None:
        super().__init__(loop, connection.MAX_WAITING_BYTES, connection.MAX_FRAME_SIZE)
        self._in_time = connection._in_time

    async def more(self, waiters: list[Waiter]) -> None:
        await self._in_time(super().more(waiters), "the rest of a message")


def _is_among(error: BaseException, errors: Iterable[BaseException]) -> bool:
    """Whether an error is one of others. Two errors may be equal, as those of a dataclass."""
    return any(error is other for other in errors)


def _whole_url(path: str) -> str:
    """Returns a whole URL; raises a ValueError for a path without its slash."""
    if "://" not in path:
        raise ValueError(f"a path begins with a slash, or is a whole URL: write {'/' + path!r}")
    return path


def _failed_tasks(view: Any) -> Iterator[tuple[str, BaseException]]:
    """The names and errors of tasks that are attributes of a view."""
    for name, value in vars(view).items() if view is not None else ():
        if isinstance(value, asyncio.Task) and value.done() and not value.cancelled():
            error = value.exception()
            if error is not None:
                yield name, error


def _where(task: "asyncio.Task[Any]") -> str:
    """Describes the place at which a task waits: its coroutine, and the line."""
    coroutine = _own(task.get_coro())
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    frame = coroutine.cr_frame
    if frame is None:
        return f"{name} is running"
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{name} is at line {frame.f_lineno} of {frame.f_code.co_filename}: {line}"


def _own(coroutine: Any) -> Any:
    """Returns the outermost coroutine of the tested code, below those of this package and of installed packages."""
    below = [coroutine]
    while getattr(below[-1].cr_await, "cr_frame", None) is not None:
        below.append(below[-1].cr_await)
    files = {each: each.cr_frame.f_code.co_filename if each.cr_frame else "" for each in below}
    outside = [each for each in below if not files[each].startswith(_PACKAGE)]
    own = [each for each in outside if "site-packages" not in files[each]]
    return (own or outside or below[-1:])[0]
