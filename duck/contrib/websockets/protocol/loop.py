"""State shared by the connections of one loop: a receive buffer, a burst, a clock that wakes them, and threads."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..codec import Burst, Clock, ReceiveBuffer

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Shared", "clock", "done_future", "in_thread", "receive_buffer", "shared", "threads"]

T = TypeVar("T")

_BUFFER_SIZE = 262144  # bytes of the largest read; fits in the second-level cache
_KEEP = 4194304  # bytes of freed memory that the allocator should keep for reuse
_MOST_THREADS = 4

_local = threading.local()


def _forget() -> None:
    """Forgets the objects of a thread that has forked: the new process has only this one, and ends no read."""
    _local.__dict__.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def receive_buffer(loop: asyncio.AbstractEventLoop) -> ReceiveBuffer:
    """Returns the buffer that the connections of `loop` receive into, unless the codec provides one.

    One buffer serves all connections of a thread, because a loop that waits for readiness fills and empties it within
    one callback. It is empty between callbacks.
    """
    if _reads_ahead(loop):
        return ReceiveBuffer(_BUFFER_SIZE)
    try:
        buffer: ReceiveBuffer = _local.buffer
    except AttributeError:
        buffer = _local.buffer = ReceiveBuffer(_BUFFER_SIZE)
        # glibc's malloc raises its thresholds to the size of the largest freed block. Without this block, the pages of
        # each large message return to the kernel and are zeroed again for the next: 1 MiB echoes cost 1.8 times more.
        bytes(_KEEP)
    return buffer


def _reads_ahead(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop, a proactor, reads into the buffers of connections while other callbacks run."""
    return sys.platform == "win32" and isinstance(loop, asyncio.ProactorEventLoop)


class Shared:
    """The objects that the connections of one loop share.

    Attributes:
        burst: The burst.
        clock: The clock.
        buffer: The receive buffer; None if each connection needs its own.
        done: A completed future; None until it is used.
    """

    __slots__ = ("buffer", "burst", "clock", "done")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = Clock()
        self.burst = Burst(loop)
        self.buffer = None if _reads_ahead(loop) else receive_buffer(loop)
        self.done: asyncio.Future[None] | None = None


def shared(loop: asyncio.AbstractEventLoop) -> Shared:
    """Returns the shared objects of a loop.

    They are an attribute of the loop, and so are freed with it. They refer to open connections, and these to the loop:
    anything else that held them would keep a closed loop, and the warnings for its unclosed connections would not come.
    """
    try:
        found: Shared = loop._duck_websockets  # type: ignore[attr-defined]
    except AttributeError:
        found = loop._duck_websockets = Shared(loop)  # type: ignore[attr-defined]
    return found


def clock(loop: asyncio.AbstractEventLoop) -> Clock:
    """Returns the clock of a loop."""
    return shared(loop).clock


def done_future(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
    """Returns a completed future of a loop; all callers share it."""
    ours = shared(loop)
    if ours.done is None:
        ours.done = asyncio.Future[None](loop=loop)
        ours.done.set_result(None)
    return ours.done


def threads() -> "ThreadPoolExecutor":
    """Returns the threads that compress and decompress large messages for the connections of this thread.

    They start on demand, and end with the thread. The loop's default executor would not do: jobs of users may block all
    its threads for seconds, and every message would wait behind them.
    """
    try:
        found: ThreadPoolExecutor = _local.threads
    except AttributeError:
        from concurrent import futures  # its executors are slow to import, and used only with compression

        count = min(os.cpu_count() or 1, _MOST_THREADS)
        found = _local.threads = futures.ThreadPoolExecutor(count, thread_name_prefix="duck-deflate")
    return found


class _Job(Future[T]):
    """A call, made by the first thread that runs the job."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__()
        self._calls = [call]

    def run(self) -> None:
        try:
            call = self._calls.pop()
        except IndexError:
            return
        if not self.set_running_or_notify_cancel():
            return
        try:
            self.set_result(call())
        except BaseException as error:
            self.set_exception(error)


def in_thread(loop: asyncio.AbstractEventLoop, function: Callable[..., T], *args: object) -> "asyncio.Future[T]":
    """Calls a function in one of `threads`.

    If no thread can start, the function is called at once: Python starts none after the end of the main thread, which
    a server in another thread may outlive, and a system limits their number.
    """
    job = _Job(partial(function, *args))
    try:
        loop.run_in_executor(threads(), job.run)
    except RuntimeError:
        _local.__dict__.pop("threads", None)  # its queue may have kept the job
        job.run()
    return asyncio.wrap_future(job, loop=loop)
