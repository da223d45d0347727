"""Servers in processes of their own."""

import random
import socket
import subprocess
import time
from contextlib import suppress

__all__ = ["NotStarted", "free_port", "until_listening"]


class NotStarted(Exception):
    """A process has ended or timed out before it listened."""


def free_port() -> int:
    """A free port on 127.0.0.1, for programs that need its number in advance.

    It is below those that a system gives to sockets by itself, so that no other process gets it before the program.
    """
    while True:
        port = random.randrange(10_000, 20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


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
