"""The measurement of clients that receive a few messages: of all clients together, in turns of a fraction of a second.

Such a client works for 20 of each 1,000 µs, and these 20 depend on the caches, on the clock of the core and on other
processes. A client measured for a second after another one may find a different machine. Therefore each client has a
connection to a floor of its own for the whole time, and one client at a time receives messages. A client that receives
none takes no processor time.
"""

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from . import launch, measure_client
from .cores import Cores
from .load_client import LoadError
from .measure_server import Sample
from .registry import FLOOR, Server
from .servers.options import HOST
from .workloads import Workload

__all__ = ["RATE", "measure"]

RATE = 1000
"""Messages a second that a client receives during its turns."""

_TURN = 0.1  # seconds


def measure(
    clients: Sequence[Server], workload: Workload, cores: Cores, *, seconds: float, warmup: float
) -> list[Sample | LoadError]:
    """Starts a floor for each client and the clients, sends to one client after the other, and reads their figures.

    Args:
        clients: The clients, as entries of the registry.
        cores: The floors and the sender run on the server's core.
        seconds: The length of the measurement for each client.
        warmup: The time before it.

    Returns:
        For each client a sample as of `measure_client`, or its error. `value` is in messages for each second of the
        client's processor time.

    Raises:
        ServerError: A floor did not start.
    """
    with contextlib.ExitStack() as stack:
        floors = [stack.enter_context(launch.running(FLOOR, cores.server)) for _ in clients]
        turn = max(round(min(_TURN, seconds / 4) * RATE), 1)
        stack.enter_context(_sending([floor.port for floor in floors], workload.size, turn, cores.server))
        running = [
            stack.enter_context(
                measure_client.running(client, workload, floor.port, cores.client, seconds * len(clients), warmup)
            )
            for client, floor in zip(clients, floors, strict=True)
        ]
        begun = [_line(process) for process in running]
        began, before = time.monotonic(), measure_client.others_seconds(cores, floors)
        reports = [
            first if isinstance(first, LoadError) else _line(process)
            for first, process in zip(begun, running, strict=True)
        ]
        elapsed, others = time.monotonic() - began, measure_client.others_seconds(cores, floors) - before
    others -= sum(report["cpu"] for report in reports if not isinstance(report, LoadError))
    return [_sample(report, max(others, 0) / elapsed) for report in reports]


def _line(process: measure_client.Process) -> dict[str, float] | LoadError:
    try:
        return measure_client.line(process)
    except LoadError as error:
        return error


def _sample(report: dict[str, float] | LoadError, others: float) -> Sample | LoadError:
    if isinstance(report, LoadError):
        return report
    if not report["count"]:
        return LoadError("nothing came in time to be measured")
    each = report["cpu"] / report["count"]
    return {
        "value": 1 / each,
        "server_us": round(each * 1e6, 2),
        "server_cpu": round(each * RATE, 3),
        "others_cpu": round(others, 3),
    }


@contextlib.contextmanager
def _sending(ports: Sequence[int], size: int, turn: int, core: int) -> Iterator[None]:
    """Sends RATE messages a second while the block runs, `turn` of them to one floor's client, then to the next one's.

    Args:
        ports: Those of the floors.
        size: Bytes of a message, below 65,536.
        turn: Messages.
        core: The core of the sender.
    """
    stop = threading.Event()
    frame = bytes([0x82, 0x80 | size] if size < 126 else [0x82, 0xFE, *size.to_bytes(2)]) + bytes(4) + bytes(size)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection((HOST, port))) for port in ports]
        for connection in connections:
            connection.sendall(launch.upgrade("/broadcast"))
            connection.recv(4096)
        thread = threading.Thread(target=_send, args=(connections, frame, turn, core, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _send(connections: Sequence[socket.socket], frame: bytes, turn: int, core: int, stop: threading.Event) -> None:
    os.sched_setaffinity(0, {core})  # this thread alone
    due = time.monotonic()
    for connection in itertools.cycle(connections):
        for _ in range(turn):
            if stop.is_set():
                return
            due += 1 / RATE
            time.sleep(max(due - time.monotonic(), 0))
            connection.sendall(frame)
            connection.recv(65536)  # its own copy
