"""The cores of the server and of the load client, and the limit of their open files."""

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "choose", "pinned", "raise_file_limit"]


@dataclass(frozen=True)
class Cores:
    """Numbers of the two cores; the same one twice where there is no other."""

    server: int
    client: int

    @property
    def shared(self) -> bool:
        return self.server == self.client


def choose() -> Cores:
    """Two cores that are not threads of the same one, as far as this process may use any.

    They are taken from the end, because interrupts tend to go to the first.
    """
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    server = allowed[0]
    others = [core for core in allowed[1:] if core not in _siblings(server)] or allowed[1:]
    return Cores(server, others[0] if others else server)


def _siblings(core: int) -> set[int]:
    """The logical cores that share a physical one with `core`."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return {core}
    siblings: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started in the block run on that core from their first instruction."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raises the limit of open files to its maximum, for later child processes too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
