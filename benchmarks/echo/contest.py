"""One measurement of a client: one workload of one client, against the C floor."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from . import cores, launch, processes, programs
from .client import GRACE, LoadError
from .cores import Cores
from .measure import Sample
from .registry import Server
from .servers.options import HOST
from .workloads import Workload

__all__ = ["measure"]

RATE = 1000
"""Messages a second that a client receives under the mode "receive"."""

_FLOOR = Server("floor", "C floor", "", tls=False)
_REQUEST = (
    "GET /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def measure(
    client: Server,
    workload: Workload,
    cores_: Cores,
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
    with contextlib.ExitStack() as stack:
        floor = stack.enter_context(launch.running(_FLOOR, cores_.server))
        if workload.mode == "receive":
            stack.enter_context(_sending(floor.port, workload.size))
        process = stack.enter_context(_running(client, workload, floor.port, cores_.client, seconds, warmup))
        _line(process)  # the measurement begins
        began, floor_before, all_before = time.monotonic(), processes.cpu_seconds(floor.session), _seconds(cores_)
        report = _line(process)
        elapsed, floor_cpu = time.monotonic() - began, processes.cpu_seconds(floor.session) - floor_before
        others = _seconds(cores_) - all_before - floor_cpu - report["cpu"]
    count = report["count"]
    if not count:
        raise LoadError("nothing came in time to be measured")
    return {
        "value": count / (report["cpu"] if workload.mode == "receive" else report["seconds"]),
        "server_us": round(report["cpu"] / count * 1e6, 2),
        "server_cpu": round(report["cpu"] / report["seconds"], 3),
        "others_cpu": round(max(others, 0) / elapsed, 3),
    }


def _seconds(pair: Cores) -> float:
    return sum(processes.core_seconds(core) for core in {pair.server, pair.client})


@contextlib.contextmanager
def _running(
    client: Server, workload: Workload, port: int, core: int, seconds: float, warmup: float
) -> Iterator["subprocess.Popen[str]"]:
    words = [str(programs.build("floor_client"))]
    if client.module:
        words = [sys.executable, "-m", "benchmarks.echo.clients", client.module]
    words += [workload.mode, "--url", f"ws://{HOST}:{port}{workload.path}", "--variant", client.variant]
    words += ["--depth", str(workload.depth), "--size", str(workload.size)]
    words += ["--warmup", str(warmup), "--seconds", str(seconds)]
    with cores.pinned(core):
        process = subprocess.Popen(
            words,
            cwd=launch.ROOT,
            env={**os.environ, **client.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    deadline = threading.Timer(seconds + warmup + GRACE, process.kill)
    deadline.start()
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        deadline.cancel()


def _line(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        last = process.stderr.read().strip().splitlines()[-1:]
        raise LoadError(f"it ended with status {process.wait()}: {''.join(last)}")
    report: dict[str, Any] = json.loads(line)
    return report


@contextlib.contextmanager
def _sending(port: int, size: int) -> Iterator[None]:
    """Sends RATE messages a second to all who are connected."""
    stop = threading.Event()
    frame = bytes([0x82, 0x80 | size] if size < 126 else [0x82, 0xFE, *size.to_bytes(2)]) + bytes(4) + bytes(size)
    with socket.create_connection((HOST, port)) as connection:
        connection.sendall(_REQUEST.encode())
        connection.recv(4096)
        thread = threading.Thread(target=_send, args=(connection, frame, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _send(connection: socket.socket, frame: bytes, stop: threading.Event) -> None:
    due = time.monotonic()
    while not stop.is_set():
        due += 1 / RATE
        time.sleep(max(due - time.monotonic(), 0))
        connection.sendall(frame)
        connection.recv(65536)  # its own copy
