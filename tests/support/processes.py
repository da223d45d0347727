"""Servers that are processes of their own."""

import socket
import subprocess
import time

__all__ = ["NotStarted", "free_port", "until_listening"]


class NotStarted(Exception):
    """A process has ended, or has taken too long, before it listened."""


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on; for programs that must be told theirs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def until_listening(port: int, process: "subprocess.Popen[str] | subprocess.Popen[bytes]", seconds: float = 60) -> None:
    """Waits until somebody listens on a port of 127.0.0.1.

    Raises:
        NotStarted: The process that should has ended, or the seconds are over.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"nobody listens on port {port}; exit status: {process.poll()}") from None
            time.sleep(0.02)
