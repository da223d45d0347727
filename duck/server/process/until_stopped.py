"""Serves in this process until the order to stop."""

import asyncio
import logging
import socket
import ssl as tls
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from duck.contrib.websockets.metrics import Stats

from ..application.target import Target
from ..options import Options
from ..server import Server
from ..serving import serve_target
from .deadline import Deadline
from .exposition import exposing
from .signals import call_in_loop, waking_loop

__all__ = ["Stop", "serve_until_stopped"]

logger = logging.getLogger("duck.server")

_LAST = 1.0  # seconds for tasks that outlive the server to end


class Stop:
    """The order to stop serving.

    Args:
        deadline: Starts with the order.

    Attributes:
        replaced: Whether another process takes over the sockets.
        interrupted: Whether the order came before the server was ready, and has cancelled its start.
        deadline: The deadline for the end of serving.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.replaced = self.interrupted = False
        self._event = asyncio.Event()
        self._starting: asyncio.Task[Any] | None = None

    def set(self, replaced: bool = False) -> None:
        """Gives the order; must be called in the loop."""
        self.deadline.start()
        self.replaced = replaced
        self._event.set()
        if self._starting is not None:
            self.interrupted = True
            self._starting.cancel()

    def from_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives the order in a signal handler."""
        self.deadline.start()
        call_in_loop(loop, self.set)

    def is_set(self) -> bool:
        """Whether the order has been given."""
        return self._event.is_set()

    def begin(self) -> None:
        """Notes that this task starts a server and may be cancelled."""
        self.deadline.watch()
        self._starting = asyncio.current_task()

    async def wait(self) -> None:
        """Waits for the order once the server is ready."""
        self._starting = None
        await self._event.wait()


async def serve_until_stopped(
    target: Target,
    options: Options,
    sockets: Sequence[socket.socket],
    ssl: tls.SSLContext | None,
    stop: Stop,
    ready: Callable[[Server], AbstractContextManager[object]],
) -> None:
    """Serves an application until the order to stop.

    Args:
        target: The application.
        options: The options of the server.
        sockets: Bound sockets to listen on; none for the address in the options.
        ssl: The TLS context.
        stop: The order.
        ready: Called with the server once it accepts connections; returns a context that is left at the order.
    """
    if stop.is_set():  # by a signal before the loop ran
        return
    stop.begin()
    try:
        stop.deadline.stage = "the start of the server and its lifespan"
        with waking_loop():
            async with serve_target(target, options, sockets, ssl) as server:

                async def stats() -> Stats:
                    return server.stats()

                async with exposing(options.metrics, stats):
                    with ready(server):
                        stop.deadline.stage = "the end of the connections"
                        await stop.wait()
                    await server.close(replaced=stop.replaced)
                stop.deadline.stage = "the end of the lifespan"
            stop.deadline.stage = "the end of other tasks and of threads"
            await _end_tasks(server)
    except asyncio.CancelledError:
        if not stop.interrupted:
            raise
    except Exception as error:
        stop.deadline.error = error
        raise
    finally:
        stop.deadline.start()  # the runner waits for the threads of the loop


async def _end_tasks(server: Server) -> None:
    """Cancels all remaining tasks, as the runner does, but with a time limit."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    _, hung = await asyncio.wait(tasks, timeout=_LAST)
    for task in hung:
        if not server.hung:
            logger.error("%r did not end when cancelled, and was abandoned", task)
        _forget(task)


def _forget(task: "asyncio.Task[Any]") -> None:
    """Hides a task from the runner and keeps it alive: if freed, its coroutine would continue although it is closed."""
    asyncio._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
