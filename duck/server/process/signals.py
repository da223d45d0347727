"""Signal handlers: the first signal starts the shutdown of the process, a later one ends it at once."""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["on_hangup", "on_signals", "outlast_signals"]

_SAME_SIGNAL = 1.0  # seconds in which a second signal counts as the first

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


@contextlib.contextmanager
def on_hangup(callback: Callable[[], None] | None) -> Iterator[None]:
    """Calls back on SIGHUP, in the loop."""
    if callback is None or not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def on_signal(signum: int, frame: object) -> None:
        loop.call_soon_threadsafe(callback)

    before = signal.signal(signal.SIGHUP, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


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
        for number, handler in before.items():
            signal.signal(number, handler)


def outlast_signals() -> None:
    """Ignores the first signal, because the process is about to end without a failure. A later signal ends it."""
    if threading.current_thread() is threading.main_thread():
        _take_signals(lambda: None)


def _take_signals(stop: Callable[[], object]) -> dict[int, Any]:
    first: float | None = None

    def on_signal(signum: int, frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            stop()
        elif time.monotonic() - first >= _SAME_SIGNAL:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    return {number: signal.signal(number, on_signal) for number in _SIGNALS}
