"""The standard files of the process: opened if they are closed, and written to without errors."""

import io
import os
import sys

__all__ = ["announce", "drop_output", "prepare_standard_files"]


def prepare_standard_files() -> None:
    """Opens the null device for each closed standard file, and lets stdout escape letters that its encoding lacks.

    Without the first, sockets would get the numbers 0 to 2, and libuv aborts the process when one of them is closed.
    Without the second, an address or a message with such a letter would be an error.
    """
    if os.name == "posix":
        _open_standard_files()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_standard_files() -> None:
    for file, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(file)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
        if getattr(sys, name) is None:  # the interpreter has found it closed
            setattr(sys, name, open(file, mode, closefd=False))  # noqa: SIM115


def announce(line: str) -> None:
    """Prints a line; without a reader, such as `head -1` that has ended, nothing is printed from now on."""
    try:
        print(line, flush=True)
    except OSError:
        drop_output()


def drop_output() -> None:
    """Redirects stdout to the null device, because Python writes its buffer once more at the exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
