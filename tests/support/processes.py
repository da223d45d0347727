"""Servers in processes of their own."""

import functools
import itertools
import random
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

__all__ = ["NotStarted", "free_port", "until_listening"]

_RANGE = 200
"""Ports of one process of tests."""


class NotStarted(Exception):
    """A process has ended or timed out before it listened."""


def free_port() -> int:
    """A free port on 127.0.0.1, for programs that need its number in advance, or again after a pause.

    It is below those that a system gives to sockets by itself, and in a range of this process: no other process that
    calls this function gets it before the program.
    """
    while True:
        port = next(_ports())
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@functools.cache
def _ports() -> Iterator[int]:
    """Goes round the ports of a range. Its first port, which stays bound, tells other processes that it is taken."""
    while True:
        first = random.randrange(10_000, 20_000, _RANGE)
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", first))
        except OSError:
            sock.close()
        else:
            sock.detach()  # it ends with the process
            return itertools.cycle(range(first + 1, first + _RANGE))


def until_listening(port: int, process: "subprocess.Popen[str] | subprocess.Popen[bytes]", seconds: float = 60) -> None:
    """Waits until a process listens on a port of 127.0.0.1.

    Raises:
        NotStarted: The process has ended, or does not listen in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"no process listens on port {port}; exit status: {process.poll()}") from None
            time.sleep(0.02)
