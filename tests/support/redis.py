"""Redis servers for tests, each on a free port and with a folder of its own."""

import asyncio
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from .processes import free_port, until_listening
from .programs import unavailable

__all__ = ["RedisServer", "Sentinel", "answering", "program"]


def program() -> str:
    """The path of redis-server. Without it the test is skipped, or fails if DUCK_REQUIRE_REDIS=1 is set."""
    try:
        import redis  # noqa: F401
    except ImportError:
        unavailable("REDIS", "redis-py is not installed")
    found = shutil.which("redis-server")
    if found is None:
        unavailable("REDIS", "redis-server is not installed")
    return found


class RedisServer:
    """A server that can be killed, and started again on the same port.

    Args:
        folder: The folder of its files.
        options: Further options of its command line.
        tls: Whether it accepts only TLS.
    """

    def __init__(self, folder: Path, *options: str, tls: bool = False) -> None:
        self._program = program()
        self._folder = folder
        self._options = options
        self._port_option = "--tls-port" if tls else "--port"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server, and waits until it listens."""
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        until_listening(self.port, self._process)

    def _command(self) -> list[str]:
        words = [
            "--port",
            "0",
            self._port_option,
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        return [self._program, *words, "--dir", str(self._folder), *self._options]

    async def ask(self, *words: Any, **options: Any) -> Any:
        """The reply to a command, by redis-py's own client."""
        from redis.asyncio import Redis

        client: Any = Redis(port=self.port, socket_timeout=10, **options)  # its methods have no types
        async with client:
            return await client.execute_command(*words)

    def kill(self) -> None:
        """Kills the server by SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Suspends the server; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


class Sentinel(RedisServer):
    """A Sentinel with a quorum of one, which decides alone on the failover of a master.

    Args:
        folder: The folder of its files.
        name: The name of the master.
        master: The master.
        password: The password of the master; empty for none.
        options: Further options of its command line.
        tls: Whether it accepts only TLS.
    """

    def __init__(
        self, folder: Path, name: str, master: RedisServer, password: str, *options: str, tls: bool = False
    ) -> None:
        super().__init__(folder, *options, tls=tls)
        self._config = folder / "sentinel.conf"
        lines = [
            "port 0",
            f"{self._port_option[2:]} {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {name} 127.0.0.1 {master.port} 1",
            f"sentinel down-after-milliseconds {name} 2000",
            f"sentinel failover-timeout {name} 1000",
            *([f"sentinel auth-pass {name} {password}"] if password else []),
        ]
        self._config.write_text("\n".join(lines))

    def _command(self) -> list[str]:
        return [self._program, str(self._config), "--sentinel", *self._options]


@asynccontextmanager
async def answering(answer_to: Callable[[list[bytes]], bytes]) -> AsyncIterator[tuple[int, list[asyncio.StreamWriter]]]:
    """A server in this process, whose answers are those of the test: its port, and the writers of its connections.

    The connections are closed at the end.

    Args:
        answer_to: Called with each command; returns the bytes of the answer, or none.
    """
    writers: list[asyncio.StreamWriter] = []
    tasks: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.current_task())
        with suppress(ConnectionError):
            while (line := await reader.readline()).startswith(b"*"):
                words = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                writer.write(answer_to(words))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield server.sockets[0].getsockname()[1], writers
        finally:
            server.close()
            for writer in writers:
                writer.close()
            await asyncio.gather(*tasks)  # before Python 3.12 a server does not wait for its connections
