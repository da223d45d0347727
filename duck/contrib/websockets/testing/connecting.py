"""`connect`: a test client for a view, routes or an ASGI application in the same process."""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Unpack

from ..client.connecting import Connecting
from ..client.options import Options, advice_on
from ..exceptions import HandshakeRefused
from .blocking import RUNNERS, Blocking, LoopFactory, Turns
from .connection import TestConnection

__all__ = ["connect"]


class connect(Connecting[TestConnection]):
    """Connects to a view, routes or an ASGI application, in memory, without a port.

        async def test_echo():
            async with connect(Echo) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"

    The handshake, the codec, compression, the limits and the hooks are those of a networked client. Each wait has a
    timeout, whose error describes the activity of the view. An exception in a hook fails the test, with its traceback:
    at `recv`, if the exception has closed the connection, or else at the end of the block.

    In a synchronous test, `with connect(Echo) as ws: ws.send("hello")` does the same: the methods of `ws` block. The
    loop runs only inside them. Connections that are open at the same time in a thread, with the same `loop_factory`,
    share their loop, as on a server.

    Args:
        application: A `WebSocketView` class, a list of routes, or an ASGI application.
        path: Path and query; or a whole URL, for another host or for `wss://`.
        kwargs: The parameters of the view, in addition to those of its route: `connect(Room, kwargs={"name": "tea"})`.
        scope: Additional entries of an ASGI application's scope, such as `{"user": user}`.
        server: The `self.server` of a view, such as `SimpleNamespace(state=...)`. Without it, a view has none.
        timeout: Seconds for each wait; None for no limit.
        raise_errors: Whether to raise errors of hooks. Otherwise the test gets their close code, and `ws.errors`.
        keep_frames: Whether `ws.frames` has the received frames, such as the pings of a heartbeat.
        loop_factory: Creates the loop of a synchronous test, such as `VirtualTimeLoop`.
        options: Options of a client, such as `headers`, `subprotocols`, `origin`, `cookies` and `max_size`.

    Raises:
        HandshakeRefused: The upgrade request is refused; has status, headers and body. See `refusal`.
        Exception: An exception of the application during the handshake.
    """

    _ways = f"with connect(...) as ws, or {Connecting._ways}"

    def __init__(
        self,
        application: Any,
        path: str = "/",
        *,
        kwargs: Mapping[str, Any] | None = None,
        scope: Mapping[str, Any] | None = None,
        server: Any = None,
        timeout: float | None = 5,
        raise_errors: bool = True,
        keep_frames: bool = False,
        loop_factory: LoopFactory | None = None,
        **options: Unpack[Options],
    ) -> None:
        for name in options:
            if name not in Options.__annotations__:
                advice = advice_on(name) or f"a parameter of the view is an item of kwargs={{{name!r}: ...}}"
                raise TypeError(f"{name!r} is not an option of connect: {advice}")
        self._loop_factory = loop_factory
        self._make_connection: Callable[[], TestConnection] = lambda: TestConnection(
            application,
            path,
            kwargs=kwargs,
            scope=scope,
            server=server,
            timeout=timeout,
            raise_errors=raise_errors,
            keep_frames=keep_frames,
            **options,
        )
        self._turns: Turns | None = None  # of a `with` block

    async def _make(self) -> TestConnection:
        return self._make_connection()

    async def refusal(self) -> HandshakeRefused:
        """Returns the refusal of the upgrade request, as in `(await connect(Private).refusal()).status == 403`.

        Raises:
            AssertionError: The request is accepted.
        """
        try:
            async with self:
                pass
        except HandshakeRefused as refused:
            return refused
        raise AssertionError("the upgrade request was accepted")

    def refusal_sync(self) -> HandshakeRefused:
        """`refusal` in a synchronous test, as in `connect(Private).refusal_sync().status == 403`."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an event loop runs in this thread already: write await connect(...).refusal()")
        runner = RUNNERS.acquire(self._loop_factory)
        try:
            return runner.run(self.refusal())
        finally:
            RUNNERS.release(self._loop_factory)

    def __enter__(self) -> "Blocking":
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an event loop runs in this thread already: write async with connect(...)")
        runner = RUNNERS.acquire(self._loop_factory)
        try:
            self._turns = turns = Turns(runner)
            return Blocking(turns.call(self.__aenter__), turns.call)
        except BaseException:
            RUNNERS.release(self._loop_factory)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._turns is not None
        self._turns.check_block()
        try:
            self._turns.call(self.__aexit__, kind, error, traceback)
        finally:
            RUNNERS.release(self._loop_factory)
            self._turns.has_ended = True
