"""The deadline for the end of a serving process. If it passes, the log names the cause, and the process exits.

The end of a process can be delayed for ever by a coroutine that swallows its cancellation, by a call that blocks the
event loop, and by a thread that never ends. Only another thread detects all three, and only the exit of the process
stops a thread.
"""

import _thread
import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from duck.contrib.websockets.logging import traceback_of

__all__ = ["Deadline"]

logger = logging.getLogger("duck.server")

_LIBRARY = os.path.dirname(threading.__file__)  # `os` has no file in some frozen programs
_NAMED = 10  # hanging tasks and threads named in the log
# The function of the task, and the name of the thread, that wait for the other threads of a loop.
_WAITING_TASK, _WAITING_THREAD = "shutdown_default_executor", "_do_shutdown"
_LAST_WORDS = 1.0  # seconds for the last log line: its handler may hang, too


class Deadline:
    """The time by which serving must have ended, counted from the order to stop or from a failure.

    Args:
        patience: Seconds until the deadline.

    Attributes:
        stage: The part of serving that runs; the log names it.
        error: The exception that has ended serving.
    """

    EXIT_PATIENCE = 5.0
    """Seconds after which the log names the threads that the interpreter waits for at its exit."""

    def __init__(self, patience: float) -> None:
        self.stage = "the start"
        self.error: BaseException | None = None
        self._patience = patience
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = False
        self._ended = _thread.allocate_lock()
        self._ended.acquire()

    def watch(self) -> None:
        """Notes the running loop, whose tasks the log may have to name."""
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Starts to count, if that has not begun. May be called in a signal handler: it takes no lock."""
        if not self._started:
            self._started = True
            _start_thread(self._watch_end)

    def met(self) -> None:
        """Notes that serving has ended. If threads are left, the exit of the interpreter is watched."""
        self._ended.release()
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            exiting = _thread.allocate_lock()
            exiting.acquire()
            # Called before the interpreter waits for threads; functions of `atexit` are called after that.
            threading._register_atexit(exiting.release)  # type: ignore[attr-defined]
            _start_thread(self._watch_exit, exiting)

    def _watch_end(self) -> None:
        if self._ended.acquire(timeout=min(self._patience, threading.TIMEOUT_MAX)):
            return
        logged = _thread.allocate_lock()
        logged.acquire()
        if _start_thread(self._log_causes, logged.release):
            logged.acquire(timeout=_LAST_WORDS)
        os._exit(1)

    def _log_causes(self, done: Callable[[], None]) -> None:
        try:
            names = ", ".join([*_tasks(self._loop), *_threads()][:_NAMED])
            logger.error(
                "the process has not ended within %g s, and exits during %s; still running: %s",
                self._patience,
                self.stage,
                names or "nothing known",
                exc_info=traceback_of(self.error),
            )
            sys.stdout.flush()
        finally:
            done()

    def _watch_exit(self, exiting: _thread.LockType) -> None:
        exiting.acquire()
        time.sleep(self.EXIT_PATIENCE)
        names = ", ".join(list(_threads())[:_NAMED])
        logger.warning("serving has ended, but the process waits for threads; still running: %s", names)


def _start_thread(function: Callable[..., None], *arguments: object) -> bool:
    """Starts a thread. Returns whether the system had one left: a shutdown without its deadline is better than none."""
    try:
        _thread.start_new_thread(function, arguments)
    except RuntimeError:
        return False
    return True


def _tasks(loop: asyncio.AbstractEventLoop | None) -> Iterator[str]:
    for task in asyncio.all_tasks(loop) if loop is not None else ():
        for frame in task.get_stack(limit=1):
            if frame.f_code.co_name != _WAITING_TASK:
                yield f"task {task.get_name()} {_place(frame)}"


def _threads() -> Iterator[str]:
    """Describes the threads that the process waits for, and the main thread unless its loop just waits."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread.daemon or _WAITING_THREAD in thread.name:
            continue
        own = _outside_library(frame)
        if thread is not threading.main_thread():
            yield f"thread {thread.name} {_place(own or frame)}"
        elif own is not None:
            yield f"the main thread {_place(own)}"


def _outside_library(frame: FrameType | None) -> FrameType | None:
    """Returns the innermost frame outside of the standard library, within the callback that the loop runs."""
    while frame is not None and frame.f_code.co_filename != asyncio.runners.__file__:
        name = frame.f_code.co_filename
        if "site-packages" in name or not name.startswith((_LIBRARY, "<frozen")):
            return frame
        frame = frame.f_back
    return None


def _place(frame: FrameType) -> str:
    return f"in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
