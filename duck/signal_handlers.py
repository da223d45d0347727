"""Handlers of signals in this process alone: a forked child process gets back those of before."""

import os
import signal
from collections.abc import Callable, Iterable

__all__ = ["handle"]


def handle(numbers: Iterable[int], callback: Callable[[int], object]) -> Callable[[], None]:
    """Installs a handler of signals in this process, not in the child processes that it forks.

    Returns:
        A function that restores the earlier handlers, except where the program has installed its own since.
    """

    own = os.getpid()

    def on_signal(signum: int, frame: object) -> None:
        if os.getpid() == own:
            callback(signum)
        else:  # called by a later handler of the program, which a fork keeps
            signal.signal(signum, before[signum])
            signal.raise_signal(signum)

    def restore() -> None:
        if restore in _restore_functions:
            _restore_functions.remove(restore)
        for number, handler in before.items():
            if signal.getsignal(number) is on_signal:
                signal.signal(number, handler)

    before = {number: signal.signal(number, on_signal) for number in numbers}
    _restore_functions.append(restore)
    return restore


_restore_functions: list[Callable[[], None]] = []  # of the handlers in effect, the latest last


def _restore_after_fork() -> None:
    """A forked child process, such as one of multiprocessing, is not the server: `terminate` has to end it.

    The handlers leave within the fork. If they left at the first signal, a child that is about to block in a system
    call would notice this signal only at the end of the call.
    """
    for restore in reversed(_restore_functions[:]):
        restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_after_fork)
