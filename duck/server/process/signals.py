"""Signal handlers: the first signal starts the shutdown of the process, a later one ends it at once."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["call_in_loop", "end_by", "handle", "on_hangup", "on_signals", "outlast_signals"]

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
    before = handle([signal.SIGHUP], lambda signum: callback())
    try:
        yield
    finally:
        _restore(before)


@contextlib.contextmanager
def on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` on the first signal that asks the process to end, and lets a later signal end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _take_signals(stop)
    try:
        yield
    finally:
        _restore(before)


def handle(numbers: Iterable[int], callback: Callable[[int], object]) -> dict[int, Any]:
    """Installs a handler of signals in this process.

    A child process that a fork has made, such as one of multiprocessing, inherits the handler, but the server is its
    parent's. There the first signal restores the earlier handler, and is handled by it.

    Returns:
        The earlier handlers.
    """
    own = os.getpid()

    def on_signal(signum: int, frame: object) -> None:
        if os.getpid() == own:
            callback(signum)
        else:
            signal.signal(signum, before[signum])
            signal.raise_signal(signum)

    before = {number: signal.signal(number, on_signal) for number in numbers}
    return before


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def call_in_loop(runner: asyncio.Runner, callback: Callable[[], object]) -> None:
    """Calls back in the loop of a runner, from a signal handler; the loop may be blocked, or closed."""
    with contextlib.suppress(RuntimeError):
        runner.get_loop().call_soon_threadsafe(callback)


def outlast_signals() -> None:
    """Ignores the first signal, because the process is about to end without a failure. A later signal ends it."""
    if threading.current_thread() is threading.main_thread():
        _take_signals(lambda: None)


def end_by(signum: int) -> None:
    """Ends the process by a signal."""
    signal.signal(signum, signal.SIG_DFL)
    signal.raise_signal(signum)
    os._exit(128 + signum)  # process 1 of a container: the kernel drops its signals without a handler


def _take_signals(stop: Callable[[], object]) -> dict[int, Any]:
    first: float | None = None

    def on_signal(signum: int) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            stop()
        elif time.monotonic() - first >= _SAME_SIGNAL:
            end_by(signum)

    return handle(_SIGNALS, on_signal)
