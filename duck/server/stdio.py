"""The standard files of the process: opened if they are closed, and written to without errors."""

import os
import sys

__all__ = ["announce", "open_standard_files"]


def open_standard_files() -> None:
    """Opens the null device for each closed standard file.

    Otherwise sockets would get the numbers 0 to 2, and libuv aborts the process when one of them is closed.
    """
    if os.name != "posix":
        return
    for file in range(3):
        try:
            os.fstat(file)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number


def announce(line: str) -> None:
    """Prints a line; without a reader, such as `head -1` that has ended, nothing is printed from now on."""
    try:
        print(line, flush=True)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # Python flushes its buffer once more at the exit
        os.close(null)
