"""A Redis server for benchmarks: on a free port, with a folder of its own."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from .echo.launch import free_port

__all__ = ["RedisServer", "redis_server"]

START_TIMEOUT = 20.0


class RedisServer:
    """A server, in a session of its own, that can be killed and started again on the same port; it saves nothing."""

    def __init__(self, program: str, folder: str) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process identifier; 0 while it does not run."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Starts it, and returns once it listens."""
        words = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*words, "--dir", self._folder, "--loglevel", "warning"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server does not listen on port {self.port}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """Runs a server while the block runs.

    Raises:
        FileNotFoundError: redis-server is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed")
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(program, folder)
        server.start()
        try:
            yield server
        finally:
            server.kill()
