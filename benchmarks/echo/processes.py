"""The kernel's figures of processor time, and of the memory of a server."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "core_seconds", "cpu_seconds", "memory"]

_TICKS = os.sysconf("SC_CLK_TCK")

# Fields of /proc/PID/stat behind the name, which may hold spaces: proc_pid_stat(5) counts them from 3.
_SESSION, _USER_TIME, _SYSTEM_TIME = 6 - 3, 14 - 3, 15 - 3


@dataclass(frozen=True)
class Memory:
    """Bytes that a server takes.

    Attributes:
        resident: Of all its processes; shared memory counts once for each.
        proportional: The same; shared memory counts once in all.
    """

    resident: int
    proportional: int


def cpu_seconds(session: int) -> float:
    """Processor time that a session's processes have used, in user mode and in the kernel."""
    ticks = sum(int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME]) for _, fields in _processes(session))
    return ticks / _TICKS


def core_seconds(*cores: int) -> float:
    """Time that cores have spent on processes, or that their host has taken from them; a core counts once."""
    names = {f"cpu{core}" for core in cores}
    seconds = 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            user, nice, system, _idle, _waiting, _interrupts, _soft_interrupts, stolen = map(int, ticks[:8])
            seconds += (user + nice + system + stolen) / _TICKS
    return seconds


def memory(session: int) -> Memory:
    """Memory that a session's processes hold."""
    resident = proportional = 0
    for process, _ in _processes(session):
        sizes = {}
        for line in (process / "smaps_rollup").read_text().splitlines()[1:]:
            name, _, size = line.partition(":")
            sizes[name] = int(size.split()[0]) * 1024
        resident += sizes["Rss"]
        proportional += sizes["Pss"]
    return Memory(resident, proportional)


def _processes(session: int) -> Iterator[tuple[Path, list[str]]]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[_SESSION]) == session:
            yield process, fields
