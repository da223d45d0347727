"""Signal handlers: the first signal starts the shutdown of the process, a later one ends it at once."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

from duck.signal_handlers import handle

__all__ = ["call_in_loop", "end_by", "on_hangup", "on_signals", "outlast_signals", "waking_loop"]

_SAME_SIGNAL = 1.0  # seconds in which a second signal counts as the first

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


@contextlib.contextmanager
def on_hangup(callback: Callable[[], object], unless_ignored: bool = False) -> Iterator[None]:
    """Calls back on SIGHUP, in the signal handler.

    Args:
        unless_ignored: Whether it stays ignored if it is, as by `nohup`.
    """
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    if unless_ignored and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    restore = handle([signal.SIGHUP], lambda signum: callback())
    try:
        yield
    finally:
        restore()


@contextlib.contextmanager
def on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` on the first signal that asks the process to end, and lets a later signal end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    restore = _take_signals(stop)
    try:
        yield
    finally:
        restore()


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Calls back in a loop, from a signal handler; the loop may be blocked, or closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


@contextlib.contextmanager
def waking_loop() -> Iterator[None]:
    """Wakes the running loop at each signal.

    Python calls a handler only once the main thread executes Python code again. A signal that comes just before the
    loop waits, or that the kernel gives to another thread, does not end the wait. uvloop wakes by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if before >= 0:
            signal.set_wakeup_fd(before)
            yield
            return
        loop.add_reader(reader, reader.recv, 4096)
        try:
            yield
        finally:
            loop.remove_reader(reader)
            if (current := signal.set_wakeup_fd(-1)) != writer.fileno():  # the application has set its own
                signal.set_wakeup_fd(current)


def outlast_signals() -> None:
    """Ignores the first signal, because the process is about to end without a failure. A later signal ends it."""
    if threading.current_thread() is threading.main_thread():
        _take_signals(lambda: None)


def end_by(signum: int) -> None:
    """Ends the process by a signal."""
    signal.signal(signum, signal.SIG_DFL)
    signal.raise_signal(signum)
    os._exit(128 + signum)  # process 1 of a container: the kernel drops its signals without a handler


def _take_signals(stop: Callable[[], object]) -> Callable[[], None]:
    first: float | None = None

    def on_signal(signum: int) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            stop()
        elif time.monotonic() - first >= _SAME_SIGNAL:
            end_by(signum)

    return handle(_SIGNALS, on_signal)
