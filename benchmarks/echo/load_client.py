"""Runs the load client, and reads its measurements."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from . import cores, programs
from .workloads import Workload

__all__ = ["LoadClient", "LoadError", "limited", "running", "started"]

GRACE = 30.0
"""Seconds that opening connections and everything else may take, beside the load itself."""


class LoadError(Exception):
    """The load client failed, most likely because the server did; the message describes the failure."""


class LoadClient:
    """A load client that runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def report(self) -> dict[str, Any]:
        """The next report.

        Raises:
            LoadError: It failed, or took too long.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise LoadError("it took too long and was ended" if status == -9 else f"it ended with status {status}")
        report: dict[str, Any] = json.loads(line)
        if "error" in report:
            raise LoadError(report["error"])
        return report

    def order(self, words: str) -> None:
        """Sends a line of orders to one that takes them."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the next report tells why
            self._process.stdin.write(words + "\n")
            self._process.stdin.flush()

    def finish(self) -> None:
        """Ends one that holds idle connections.

        Raises:
            LoadError: It has failed meanwhile.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._process.wait() != 0:
            self.report()


@contextlib.contextmanager
def running(workload: Workload, port: int, core: int, *, seconds: float, warmup: float) -> Iterator[LoadClient]:
    """Puts a workload on a server while the block runs.

    Args:
        core: The core of the client.
        seconds: The length of the measurement.
        warmup: Seconds of load before it.
    """
    words = ["--port", str(port), "--mode", workload.mode, "--path", workload.path]
    words += ["--connections", str(workload.connections), "--depth", str(workload.depth)]
    words += ["--size", str(workload.size), "--seconds", str(seconds), "--warmup", str(warmup)]
    words += ["--text"] * workload.text + ["--tls"] * workload.tls
    words += ["--deflate"] * workload.deflate
    with started(words, core, seconds + warmup + GRACE) as load:
        yield load


@contextlib.contextmanager
def started(options: list[str], core: int, timeout: float) -> Iterator[LoadClient]:
    """Runs the load client while the block runs.

    Args:
        options: Its command line.
        core: Its core.
        timeout: Seconds after which it is ended.
    """
    with limited([str(programs.build("load")), *options], core, timeout, stdin=subprocess.PIPE) as process:
        yield LoadClient(process)


@contextlib.contextmanager
def limited(words: list[str], core: int, timeout: float, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """Runs a command on a core while the block runs, for `timeout` seconds at most; the options are those of Popen."""
    with cores.pinned(core):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options)
    deadline = threading.Timer(timeout, process.kill)
    deadline.start()
    try:
        with process:  # closes its pipes
            try:
                yield process
            finally:
                process.kill()
    finally:
        deadline.cancel()
