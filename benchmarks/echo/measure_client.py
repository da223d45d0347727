"""One measurement of a client: one workload of one client, against the C floor."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .. import ROOT
from . import launch, processes, programs
from .cores import Cores
from .load_client import GRACE, LoadError, limited
from .measure_server import Sample
from .registry import FLOOR, Server
from .servers.options import HOST
from .workloads import Workload

__all__ = ["Process", "line", "measure_client", "others_seconds", "running"]

Process = subprocess.Popen[str]


def measure_client(
    client: Server,
    workload: Workload,
    cores: Cores,
    *,
    seconds: float,
    warmup: float,
    tls: tuple[str, str] | None = None,
) -> Sample:
    """Starts the floor and the client, and reads the client's figures.

    Args:
        client: The client, as an entry of the registry.
        seconds: The length of the measurement.
        warmup: The time before it.
        tls: Unused: the floor does not encrypt.

    Returns:
        `value` in the workload's unit; the client's processor time for each message or connect, `server_us`; and the
        shares of a core that the client was busy, `server_cpu`, and everything else on the cores of both, `others_cpu`.

    Raises:
        LoadError: The client has failed.
        ServerError: The floor did not start.
    """
    with (
        launch.running(FLOOR, cores.server) as floor,
        running(client, workload, floor.port, cores.client, seconds, warmup) as process,
    ):
        line(process)  # the measurement begins
        began, before = time.monotonic(), others_seconds(cores, [floor])
        report = line(process)
        elapsed, others = time.monotonic() - began, others_seconds(cores, [floor]) - before - report["cpu"]
    count = report["count"]
    if not count:
        raise LoadError("nothing came in time to be measured")
    return {
        "value": count / report["seconds"],
        "server_us": round(report["cpu"] / count * 1e6, 2),
        "server_cpu": round(report["cpu"] / report["seconds"], 3),
        "others_cpu": round(max(others, 0) / elapsed, 3),
    }


def others_seconds(cores: Cores, floors: Sequence[launch.Running]) -> float:
    """Processor time that everything but the floors has used on the cores, clients included."""
    used = processes.core_seconds(cores.server, cores.client)
    return used - sum(processes.cpu_seconds(floor.session) for floor in floors)


@contextlib.contextmanager
def running(
    client: Server, workload: Workload, port: int, core: int, seconds: float, warmup: float
) -> Iterator[Process]:
    """Runs a client of the floor at a port while the block runs. See `measure_client` for the other arguments."""
    words = [str(programs.build("floor_client"))]
    if client.module:
        words = [sys.executable, "-m", "benchmarks.echo.clients", client.module]
    words += [workload.mode, "--url", f"ws://{HOST}:{port}{workload.path}", "--variant", client.variant]
    words += ["--depth", str(workload.depth), "--size", str(workload.size)]
    words += ["--warmup", str(warmup), "--seconds", str(seconds)]
    environment = {**os.environ, **client.environment}
    options = {"cwd": ROOT, "env": environment, "stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with limited(words, core, seconds + warmup + GRACE, **options) as process:
        yield process


def line(process: Process) -> dict[str, Any]:
    """Returns the next line of a client: the first at the begin of its measurement, the second with its figures.

    Raises:
        LoadError: The client has ended; the message has its last words.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    words = process.stdout.readline()
    if not words:
        last = process.stderr.read().strip().splitlines()[-1:]
        raise LoadError(f"it ended with status {process.wait()}: {''.join(last)}")
    report: dict[str, Any] = json.loads(words)
    return report
