"""`connect`: one connection, by `async with`, `await` or `with`, or a series of connections, by `async for`."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, Unpack

from ..exceptions import ConnectionClosed
from ..state import State
from .blocking import BlockingConnection
from .connection import ClientConnection
from .loop_thread import LoopThread
from .options import Options
from .reconnecting import Attempts, Reconnect, ReconnectingConnection
from .route import pairs_of
from .timeouts import checked_timeout, within

__all__ = ["Connecting", "connect"]

C = TypeVar("C", bound=ClientConnection)
Url = str | Callable[[], str | Awaitable[str]]

_RECONNECT = Reconnect()


class Connecting(Generic[C]):
    """A connection to be opened by `async with` or `await`. Subclasses create it."""

    _connection: C | None = None  # the connection of the `with` block
    _ways = "async with connect(...) as ws, or await connect(...)"  # to open it

    async def _make(self) -> C:
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, C]:
        return self._made_and_opened().__await__()

    async def _made_and_opened(self) -> C:
        return await (await self._make()).__aenter__()

    async def __aenter__(self) -> C:
        connection = await self._make()
        last = self._connection  # another task may have opened it meanwhile
        if last is not None and (last._connection_state is not State.CLOSED or last._protocol is not None):
            raise RuntimeError("this object is in use already: write another connect(...) for another connection")
        self._connection = connection
        await connection.open()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        await connection.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:  # type checkers report these mistakes themselves

        def __getattr__(self, name: str) -> NoReturn:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if hasattr(ClientConnection, name) and not name.startswith("_"):
                message += f": the connection is not open; write {self._ways}"
            raise AttributeError(message, name=name, obj=self)


class connect(Connecting[ClientConnection]):
    """Connects to a server.

        async with connect("wss://example.org/chat", compression=True) as ws:
            await ws.send("hello")
            print(await ws.recv(timeout=5))
            async for message in ws:
                print(message)

    The connection is closed at the end of the block: with 1000, with 1011 after an exception, with 1001 after a
    cancellation. `ws = await connect(...)` requires a later `await ws.close()`. In synchronous code,
    `with connect(...) as ws: ws.send("hello")` does the same: the methods of `ws` block. See `BlockingConnection`.

    A loop over `connect` yields a connection, and after its end and a pause another one; see `Reconnect`:

        async for ws in connect("wss://example.org/ticker", reconnect=Reconnect(longest=10)):
            try:
                await ws.send("subscribe")
                async for message in ws:  # ends with the connection
                    print(message)
            except ConnectionClosed:  # of `send`
                continue

    `ws.left_over` has the messages that the previous connection may not have sent. Each iteration closes its connection
    at the end, if it is still open. After a `break`, an exception or a cancellation the last connection is closed in
    the background, once nothing refers to the `connect` object any more.

    Args:
        url: `ws://` or `wss://`; user and password in it become the Authorization field. Or a function, also a
            coroutine function, that returns it, and is called for each connection.
        reconnect: The pauses of a loop, and the errors that end it.
        options: See `Options`.

    Raises:
        HandshakeFailed: The server refused, or its response breaks the rules; has status, headers and body.
        OSError: The network, the proxy or TLS failed. After `open_timeout` it is a TimeoutError.
        TypeError, ValueError: An option or the URL is invalid.
    """

    _ways = f"{Connecting._ways}, or with connect(...) as ws"
    _thread: LoopThread | None = None  # of a `with` block
    _series: "_Series | None" = None  # of a loop

    def __init__(self, url: Url, *, reconnect: Reconnect | None = None, **options: Unpack[Options]) -> None:
        self._url = url
        self._options = options
        if "headers" in options and not callable(options["headers"]):
            options["headers"] = pairs_of(options["headers"])
        if not (reconnect is None or isinstance(reconnect, Reconnect)):
            raise TypeError(f"reconnect is a Reconnect(...), or None for its defaults, not {reconnect!r}")
        self._reconnect = reconnect or _RECONNECT

    async def _make(self) -> ClientConnection:
        url, options = self._url, self._options
        if callable(url) or callable(options.get("headers")):
            url, options = await _arguments(url, options)
        return ClientConnection(url, options)

    def __enter__(self) -> BlockingConnection:
        thread = LoopThread()
        try:
            connection = BlockingConnection(thread.call(self.__aenter__), thread.call)
        except BaseException:
            thread.end()
            raise
        self._thread = thread
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        assert thread is not None
        if thread.is_missing:
            return
        try:
            thread.call(self.__aexit__, kind, error, traceback)
        finally:
            thread.end()

    def __aiter__(self) -> Self:
        if self._options.get("sock") is not None:
            raise ValueError("a socket serves one connection: leave sock out to connect again")
        return self

    async def __anext__(self) -> ReconnectingConnection:
        if self._series is None:
            self._series = _Series(self._url, self._options, self._reconnect)
        return await self._series.next()


class _Series:
    """The connections of a loop.

    The end of the loop frees this object, which then closes the last connection. An asynchronous generator would need a
    task for that. `asyncio.run` destroys such a task if the loop ends with the program, and reports it.
    """

    _last: ReconnectingConnection | None = None

    def __init__(self, url: Url, options: Options, policy: Reconnect) -> None:
        self._url = url
        self._options = options
        self._attempts = Attempts(policy)
        self._unsent: list[tuple[Any, int]] = []  # of the last connection; kept if the loop ends before the next one
        self._opened = 0.0  # time of the last connection's opening
        self._is_busy = False  # in `next`

    async def next(self) -> ReconnectingConnection:
        """Closes the last connection, and returns the next one; raises an error that is final."""
        if self._is_busy:
            raise RuntimeError("another task waits for the next connection: write another connect(...)")
        self._is_busy = True
        try:
            last, self._last = self._last, None
            if last is not None:
                await self._leave(last)
            self._last = connection = await self._open()
        finally:
            self._is_busy = False
        connection.left_over, self._unsent = self._unsent, []
        self._opened = asyncio.get_running_loop().time()
        return connection

    async def _leave(self, last: ReconnectingConnection) -> None:
        self._unsent = last.unsent
        await last.__aexit__(None, None, None)
        code = await last.wait_closed()
        self._attempts.lasted(asyncio.get_running_loop().time() - self._opened)
        await self._attempts.pause(last.url, ConnectionClosed(code, last.close_reason))

    def __del__(self) -> None:
        last = self._last
        if last is not None and last.state is not State.CLOSED:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                last._home.call_soon_threadsafe(last.send_close)

    async def _open(self) -> ReconnectingConnection:
        while True:
            try:
                arguments = await _arguments(self._url, self._options)
            except Exception as failure:
                await self._attempts.pause("no URL or header fields", failure)
                continue
            connection = ReconnectingConnection(*arguments)
            try:
                await connection.open()
                return connection
            except Exception as failure:
                await self._attempts.pause(connection.url, failure)


async def _arguments(url: Url, options: Options) -> tuple[str, Options]:
    """Returns the URL and the options of a connection, with the results of the functions among them."""
    given: Any = url
    if callable(given):
        given = await _result(given, options)
    headers: Any = options.get("headers")
    if callable(headers):
        options = options.copy()
        options["headers"] = await _result(headers, options)
    return given, options


async def _result(function: Callable[[], Any], options: Options) -> Any:
    """Returns the result of a function; that of a coroutine function within `open_timeout`."""
    timeout = checked_timeout("open_timeout", options.get("open_timeout", ClientConnection.OPEN_TIMEOUT))
    made = function()
    if not inspect.isawaitable(made):
        return made
    return await within(timeout, made, lambda: f"{function!r} took longer than {timeout} seconds: see open_timeout")
