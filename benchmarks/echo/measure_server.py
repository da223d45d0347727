"""One measurement: one workload on one server."""

import time
from typing import Any

from . import launch, load_client, processes
from .cores import Cores
from .registry import Server
from .workloads import Workload

__all__ = ["Sample", "measure_server"]

_SETTLED = 64 * 1024  # bytes
_SETTLE_TIMEOUT = 4.0

Sample = dict[str, Any]


def measure_server(
    server: Server,
    workload: Workload,
    cores: Cores,
    *,
    seconds: float,
    warmup: float,
    tls: tuple[str, str] | None = None,
) -> Sample:
    """Starts the server, loads it, and ends it.

    Args:
        seconds: The length of the measurement.
        warmup: Seconds of load before it.
        tls: Files with a certificate and its key, for workloads that need them.

    Returns:
        `value` in the workload's unit, and further figures: latencies; the server's processor time for each
        message or whatever is counted, `server_us`; and the shares of a core that the server was busy, `server_cpu`,
        the load client, `client_cpu`, and everything else on their cores, `others_cpu`.

    Raises:
        LoadError: An echo was wrong or did not come, or the like.
        ServerError: The server did not start.
    """
    idle = workload.mode == "idle"
    with launch.running(
        server, cores.server, heartbeat=idle, tls=tls if workload.tls else None, deflate=workload.deflate
    ) as running:
        if idle:
            return _measure_memory(running, workload, cores)
        return _measure_speed(running, workload, cores, seconds, warmup)


def _measure_speed(server: launch.Running, workload: Workload, cores: Cores, seconds: float, warmup: float) -> Sample:
    with load_client.running(workload, server.port, cores.client, seconds=seconds, warmup=warmup) as load:
        load.report()  # that it begins to measure
        began, cpu_before, cores_before = time.monotonic(), processes.cpu_seconds(server.session), _seconds(cores)
        report = load.report()
        cpu = processes.cpu_seconds(server.session) - cpu_before
        others = _seconds(cores) - cores_before - cpu - report["client_cpu"] * report["seconds"]
        elapsed = time.monotonic() - began
    count = report.pop("messages", None) or report.pop("connects", 0)
    if not count:
        raise load_client.LoadError("nothing came back in time to be measured")
    return {
        "value": count / report["seconds"],
        "server_cpu": round(cpu / report["seconds"], 3),
        "server_us": round(cpu / count * 1e6, 2),
        "others_cpu": round(max(others, 0) / elapsed, 3),
        **report,
    }


def _seconds(cores: Cores) -> float:
    return processes.core_seconds(cores.server, cores.client)


def _measure_memory(server: launch.Running, workload: Workload, cores: Cores) -> Sample:
    """KiB that one more idle connection takes."""
    # Memory that is set up once, for the first connections, is not part of the cost of one more.
    first = Workload("first", "idle", max(workload.connections // 100, 1), deflate=workload.deflate)
    with load_client.running(first, server.port, cores.client, seconds=0, warmup=0) as load:
        load.report()
        load.finish()
    before = _settled_memory(server)
    with load_client.running(workload, server.port, cores.client, seconds=0, warmup=0) as load:
        load.report()
        after = _settled_memory(server)
        load.finish()
    each = workload.connections * 1024
    return {
        "value": max(after.proportional - before.proportional, 0) / each,
        "resident_kib": round(max(after.resident - before.resident, 0) / each, 3),
        "server_mib": round(after.proportional / 1024**2, 1),
    }


def _settled_memory(server: launch.Running) -> processes.Memory:
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    last = processes.memory(server.session)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        memory = processes.memory(server.session)
        if abs(memory.proportional - last.proportional) <= _SETTLED:
            return memory
        last = memory
    return last
