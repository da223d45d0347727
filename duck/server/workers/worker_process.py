"""`WorkerProcess`: the supervisor's interface to a worker, consisting of a process and a socket to it."""

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from typing import Any

from duck.contrib.websockets.metrics import Stats

from ..errors import ServingError
from .worker import Boot

__all__ = ["WorkerError", "WorkerProcess", "outcome"]

# The supervisor's `sys.path`, and `-P`: with `-c` alone, files of the current folder would hide modules of their names.
_BOOT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); sys.path[:] = {2!a};"
    " from duck.server.workers.worker import main; main({0}, {1})"
)

_REPORT_TIMEOUT = 1.0  # seconds for a worker to report its numbers
_ABORT_TIMEOUT = 2.0  # seconds for a worker to write its traceback


class WorkerError(ServingError):
    """Workers cannot be started.

    Attributes:
        is_known: Whether the cause is known, rather than just the end of the worker.
    """

    def __init__(self, message: str, details: str = "", status: int = 1, is_known: bool = False) -> None:
        super().__init__(message, details)
        self.status = status
        self.is_known = is_known

    def described(self) -> str:
        """Returns the message, with the traceback below it."""
        return f"{self}\n{self.details}".rstrip()


class WorkerProcess:
    """A worker process.

    Attributes:
        pid: The process identifier.
        ended: Done once the process has ended; the result is its exit status.
        serves: Whether it has started to serve.
        stats: The last known numbers of its connections.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self.ended = asyncio.get_running_loop().create_task(process.wait())
        self.serves = False
        self.stats = Stats()
        self._reported = asyncio.Event()  # set by each report of the counts
        self._reading: asyncio.Task[None] | None = None
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, boot: Boot, listeners: list[int]) -> "WorkerProcess":
        """Starts a process that serves the files of listening sockets, without waiting until it is ready."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A report may have any length: it quotes an exception of the application.
            reader, writer = await asyncio.open_connection(sock=ours, limit=sys.maxsize)
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            path = [folder for folder in sys.path if isinstance(folder, str)]
            words = [sys.executable, *flags, "-P", "-c", _BOOT.format(theirs.fileno(), listeners, path)]
            try:
                process = await asyncio.create_subprocess_exec(*words, pass_fds=[theirs.fileno(), *listeners])
            except BaseException:
                writer.close()
                raise
        writer.write(pickle.dumps(boot))
        return cls(process, reader, writer)

    async def ready(self, startup_timeout: float) -> tuple[list[str], str | None]:
        """Waits until the worker serves.

        Args:
            startup_timeout: Seconds to wait.

        Returns:
            Its addresses, and the path of its first page; None without a page.

        Raises:
            WorkerError: The worker has ended, has reported a failure, or does not serve in time.
        """
        try:
            async with asyncio.timeout(startup_timeout):
                return await self._report()
        except TimeoutError:
            raise WorkerError(
                f"worker {self.pid} did not serve within {startup_timeout:g} s and is stopped: the import of the"
                " application or the start of its lifespan may hang; otherwise raise --startup-timeout",
                is_known=True,
            ) from None

    async def _report(self) -> tuple[list[str], str | None]:
        with contextlib.suppress(ConnectionError):
            line = await self._reader.readline()
            if line:
                report: dict[str, Any] = json.loads(line)
                if "failed" in report:
                    raise WorkerError(report["failed"], report["details"], report["status"], is_known=True)
                self.serves = True
                self._reading = asyncio.get_running_loop().create_task(self._read())
                return report["addresses"], report["page"]
        await asyncio.wait([self.ended])  # a caller that is cancelled leaves `ended` as it is
        raise WorkerError(f"worker {self.pid} {outcome(self.ended.result())} before it served")

    async def _read(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while line := await self._reader.readline():
                    self.stats = Stats.from_dict(json.loads(line)["stats"])
                    self._reported.set()
        finally:
            self._reported.set()  # there will be no other report

    async def measure(self) -> None:
        """Has the worker report its numbers for `stats`. One that is busy or has ended leaves the last known ones."""
        await self._answers(_REPORT_TIMEOUT)

    async def _answers(self, timeout: float) -> bool:
        """Asks for a report; returns whether it arrives in time, or will never come because the process has ended."""
        if self._reading is not None and not self._reading.done():
            self._reported.clear()
            self._writer.write(b"m")
            try:
                async with asyncio.timeout(timeout):
                    await self._reported.wait()
            except TimeoutError:
                return False
        return True

    async def blocked(self, timeout: float) -> None:
        """Returns once the event loop of the worker has not answered for `timeout` seconds.

        The worker is asked twice in that time, because a pause of all processes, as of a container or a suspended job,
        lets the time for one answer pass.
        """
        while await self._answers(timeout / 2) or await self._answers(timeout / 2):  # noqa: ASYNC110
            await asyncio.sleep(timeout / 4)

    async def last_stats(self) -> Stats:
        """Waits for the last numbers of a worker that has ended, whose connections are all closed."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=_REPORT_TIMEOUT)
            self._reading.cancel()
        return replace(self.stats, open=0)

    def stop(self, replaced: bool = False) -> None:
        """Asks the worker to drain and end; one that does not serve yet ends at once."""
        if self.ended.done():
            return
        if self.serves:
            self._writer.write(b"r" if replaced else b"s")
        else:
            self._send_signal(signal.SIGTERM)

    async def abort(self) -> None:
        """Ends the process, which writes its traceback."""
        self._send_signal(signal.SIGABRT)
        await asyncio.wait([self.ended], timeout=_ABORT_TIMEOUT)
        self.kill()  # SIGABRT does not end a suspended process
        await asyncio.wait([self.ended])

    def kill(self) -> None:
        """Kills the process."""
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended.

        The methods of the process raise if it has just ended, and some take its status from asyncio.
        """
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def close(self) -> None:
        """Closes the socket to a process that has ended."""
        self._writer.close()


def outcome(status: int) -> str:
    """Describes the exit of a process."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"has ended with status {status}"
