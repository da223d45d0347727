"""The `duck` command in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import duck

__all__ = ["ROOT", "Process", "adjusted", "command", "environment", "run_command"]

ROOT = Path(duck.__file__).parents[1]

SECONDS = 60
"""Seconds within which a command must print the awaited line, or end."""


def command(*arguments: object) -> list[str]:
    """The arguments of a process that runs `duck`."""
    return [sys.executable, "-W", "error", "-m", "duck", *map(str, arguments)]


def environment() -> dict[str, str]:
    """The environment of a command, which imports the tested package and warns of unclosed resources.

    It has no debugging of asyncio, which would log slow callbacks on a busy machine.
    """
    variables = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", "PYTHONFAULTHANDLER": "1"}
    debugging = {"PYTHONDEVMODE", "PYTHONASYNCIODEBUG"}
    return {name: value for name, value in os.environ.items() if name not in debugging} | variables


def adjusted(statements: str, *arguments: object) -> list[str]:
    """The arguments of a process that runs `duck` after some statements, which change its constants."""
    script = f"import sys; {statements}; from duck.server.cli import main; sys.exit(main())"
    return [sys.executable, "-P", "-W", "error", "-c", script, *map(str, arguments)]


class Process:
    """A running `duck serve`, which is killed at the end of the block.

    Attributes:
        process: The process.
        address: The first printed address.
    """

    def __init__(
        self, folder: Path, *arguments: object, words: Sequence[str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        self.process = subprocess.Popen(
            words or command("serve", *arguments),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on (\S+)\n", line)
        assert match, line + self.process.stderr.read()
        self.address = match[1]

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.address.rpartition(":")[2])

    def dial(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def until_told(self, words: str) -> str:
        """Reads stderr up to a line with `words`, and returns the line; kills a process that does not write it soon."""
        assert self.process.stderr is not None
        read = []
        watchdog = threading.Timer(SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stderr:
                if words in line:
                    return line
                read.append(line)
        finally:
            watchdog.cancel()
        raise AssertionError(f"the process has not written {words!r}, but:\n{''.join(read)}")

    def stop(self, signum: signal.Signals) -> tuple[int, str]:
        """Sends a signal and waits; returns the exit status and the text of stderr."""
        self.process.send_signal(signum)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


def run_command(
    folder: Path, *arguments: object, words: Sequence[str] | None = None, pass_fds: Sequence[int] = ()
) -> "subprocess.CompletedProcess[str]":
    """Runs a command to its end; `words` replace the arguments of `command`."""
    return subprocess.run(
        words or command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        pass_fds=pass_fds,
    )
