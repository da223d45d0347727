"""What runs for a view beside the handlers of its messages: loops of its own, and in the end `on_close`.

When the transport is gone, what had come is handled first, then `on_close` runs, then the handlers end.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from . import tasks
from .logging import logger
from .opcodes import CloseCode

if TYPE_CHECKING:
    from .frame import Frame
    from .protocol import WebSocketProtocol

__all__ = ["Hooks"]


class Hooks:
    """The hooks of one connection.

    Attributes:
        FLUSH_TIMEOUT: Seconds for what is left to be done when nobody waits for the peer any more.
        on_close: The view's, unless it does nothing or is not to be called.
    """

    FLUSH_TIMEOUT = 1.0

    __slots__ = ("_beating", "_protocol", "_pulling", "_tasks", "on_close")

    def __init__(self, protocol: "WebSocketProtocol") -> None:
        self._protocol = protocol
        self._tasks: tuple[asyncio.Task[None], ...] = ()  # of the view's own loops, and in the end of `on_close`
        self._beating: asyncio.Task[None] | None = None
        self._pulling: asyncio.Task[None] | None = None
        self.on_close: Callable[[Frame | None], Awaitable[None]] | None = None

    def beat(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs the view's own heartbeat loop."""
        self._beating = self._run(loop)

    def stop_beating(self) -> None:
        """Ends it."""
        if self._beating is not None:
            self._beating.cancel()

    def pull(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs the view's own receive loop; the connection ends with it, for nobody would read on."""

        async def run() -> None:
            await loop()
            self._protocol.close()

        self._pulling = self._run(run)

    def cancel(self) -> None:
        """Cancels all that runs, and the handlers."""
        for task in self._running():
            task.cancel()

    async def finish(self) -> None:
        """The transport is gone."""
        protocol = self._protocol
        patience = self.FLUSH_TIMEOUT if protocol.terminated else protocol.endpoint.CLOSE_TIMEOUT
        deadline = protocol.loop.time() + patience
        await self._until_started(deadline)
        protocol.report_end()
        if self.on_close is not None:
            last = tasks.start_task(protocol.loop, self._run_on_close(self.on_close))
            if not last.done():
                self._tasks += (last,)
                await asyncio.wait([last], timeout=patience)
        running = self._running()
        if running:
            _, late = await asyncio.wait(running, timeout=max(deadline - protocol.loop.time(), 0))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        protocol.report_closed()

    def _run(self, loop: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        """Runs a loop of the view's own; an error in it ends the connection."""
        protocol = self._protocol

        async def run() -> None:
            try:
                await loop()
            except TimeoutError:
                protocol.close(CloseCode.GOING_AWAY, "no pong")
            except BaseException as error:
                if protocol.hook_failed(error):
                    raise

        task = tasks.start_task(protocol.loop, run())
        self._tasks += (task,)
        return task

    def _running(self) -> set["asyncio.Task[None]"]:
        running = {*self._protocol.dispatcher.workers, *self._tasks}
        return {task for task in running if not task.done() and task is not asyncio.current_task()}

    async def _until_started(self, deadline: float) -> None:
        """Until every message that came before the end has been handed to its handler."""
        protocol = self._protocol
        await protocol.until_inflated(deadline)
        if self._pulling is not None:
            # Even if it is done, for what it has handed on is delivered in callbacks that may be behind this one.
            await asyncio.wait([self._pulling], timeout=deadline - protocol.loop.time())
        await protocol.until_emptied(deadline)

    async def _run_on_close(self, on_close: "Callable[[Frame | None], Awaitable[None]]") -> None:
        protocol = self._protocol
        endpoint = protocol.endpoint
        try:
            await on_close(protocol.connection.close_received)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            logger.error("%r: error in on_close of %s", endpoint._label, type(endpoint).__name__, exc_info=error)
