"""Measures every server, several times over, in turn."""

import contextlib
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..echo import cores as cores_module
from ..echo import load_client, machine, processes
from ..echo.cores import Cores
from ..echo.launch import ServerError, free_port, started, upgrade
from ..echo.load_client import GRACE, LoadClient, LoadError
from ..echo.run import explained
from ..redis_server import redis_server
from .registry import Server

__all__ = ["WORKLOADS", "Settings", "Workload", "run"]

_REFUSES = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Attributes:
        rounds: Measurements of each server.
        seconds: The length of a measurement.
        warmup: Seconds of load before it.
        members: Members of the group.
        publishers: The members that publish.
    """

    rounds: int = 5
    seconds: float = 3.0
    warmup: float = 1.5
    members: int = 200
    publishers: int = 40


@dataclass(frozen=True)
class Workload:
    """One kind of load.

    Attributes:
        name: In results.
        title: In tables.
        size: Bytes of a message.
        slow: Slow members at each server, beside the others.
    """

    name: str
    title: str
    size: int = 64
    slow: int = 0


WORKLOADS = (
    Workload("chat", "one group of {members} at two processes, 64 B"),
    Workload("even", "the same, 1 KiB", size=1024),
    Workload("slow", "the same, 1 KiB, beside 5 members at each process that do not read", size=1024, slow=5),
)

PROCESSES = 2


def run(
    servers: Sequence[Server],
    workloads: Sequence[Workload],
    settings: Settings,
    cores: Cores,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures; the results have the form of those of `benchmarks.echo`.

    The rivals take part in the first workload alone: the others show the effect of slow members on the rest.
    """
    cores_module.raise_file_limit()
    results: dict[str, Any] = {
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv[1:],
        "settings": vars(settings),
        "machine": machine.describe(cores),
        "servers": [
            {"name": server.name, "title": server.title, "versions": server.versions(), "missing": server.missing()}
            for server in servers
        ],
        "workloads": [
            {
                "name": workload.name,
                "mode": "groups",
                "title": workload.title.format(members=settings.members),
                "unit": "deliveries/s",
                "lower_is_better": False,
            }
            for workload in workloads
        ],
        "samples": [],
        "interrupted": False,
    }
    present = [server for server in servers if not server.missing()]
    try:
        for number in range(1, settings.rounds + 1):
            for workload in workloads:
                for server in present:
                    if workload is WORKLOADS[0] or server.name == "duck":
                        sample = _sample(server, workload, settings, cores)
                        turn = {"workload": workload.name, "server": server.name, "round": number}
                        results["samples"].append(turn | sample)
                        say(f"round {number}, {workload.name}, {server.name}: {_words(sample)}")
    except KeyboardInterrupt:
        results["interrupted"] = True
    return results


def _words(sample: dict[str, Any]) -> str:
    if "error" in sample:
        return f"failed: {sample['error']}"
    return f"{sample['value']:,.0f} deliveries/s, p99 {sample['p99_us'] / 1000:.1f} ms"


def _sample(server: Server, workload: Workload, settings: Settings, cores: Cores) -> dict[str, Any]:
    try:
        with (
            cores_module.pinned(cores.server),
            _running(server, cores.server) as (ports, sessions),
            contextlib.ExitStack() as stack,
        ):
            for port in ports:
                for _ in range(workload.slow):
                    stack.enter_context(_deaf(port))
            return _measure(server, workload, settings, cores, ports, sessions)
    except (LoadError, ServerError) as error:
        return {"error": explained(error)}


def _measure(
    server: Server, workload: Workload, settings: Settings, cores: Cores, ports: list[int], sessions: list[int]
) -> dict[str, Any]:
    wire = server.wire
    words = ["--mode", "group", "--text", "--port", ",".join(map(str, ports)), "--path", wire.path]
    words += ["--greeting", wire.greeting, "--before", wire.before, "--after", wire.after]
    words += ["--any-order"] * (not server.in_order)
    words += ["--connections", str(settings.members), "--publishers", str(min(settings.publishers, settings.members))]
    words += ["--size", str(workload.size), "--seconds", str(settings.seconds), "--warmup", str(settings.warmup)]
    with load_client.started(words, cores.client, settings.seconds + settings.warmup + 4 * GRACE) as load:
        load.report()  # that all members are reached
        if workload.slow:
            _fill(load, ports)
        load.order("run")
        load.report()  # that it begins to measure
        servers, both = _usage(cores, sessions)
        report = load.report()
        servers, both = (after - before for before, after in zip((servers, both), _usage(cores, sessions), strict=True))
        load.report()  # that no message is lost
    seconds, count = report["seconds"], report["messages"]
    if not count:
        raise LoadError("nothing came back in time to be measured")
    return {
        "value": count / seconds,
        "p50_us": report["p50_us"],
        "p99_us": report["p99_us"],
        "server_us": round(servers / count * 1e6, 2),
        "server_cpu": round(servers / seconds, 3),
        "client_cpu": report["client_cpu"],
        "others_cpu": round(max(both / seconds - servers / seconds - report["client_cpu"], 0), 3),
    }


def _usage(cores: Cores, sessions: list[int]) -> tuple[float, float]:
    """Seconds that the servers and Redis have used, and that both cores have spent on all processes."""
    return sum(map(processes.cpu_seconds, sessions)), processes.core_seconds(cores.server, cores.client)


def _fill(load: LoadClient, ports: list[int]) -> None:
    """Publishes large messages until the buffers of the members that do not read are full."""
    deadline = time.monotonic() + GRACE
    while not all(map(_dropped, ports)):
        if time.monotonic() > deadline:
            raise LoadError("the members that do not read are not slow")
        load.order("fill")
        load.report()


@contextlib.contextmanager
def _running(server: Server, core: int) -> Iterator[tuple[list[int], list[int]]]:
    """Runs Redis and two processes of a server; gives their ports, and the sessions of all."""
    with redis_server() as redis, contextlib.ExitStack() as stack:
        ports, sessions = [], [redis.pid]
        environment = {**server.environment, "REDIS_URL": redis.url}
        for _ in range(PROCESSES):
            port = free_port()
            running = started(server.command(port), core, environment, partial(_answers, port))
            sessions.append(stack.enter_context(running))
            ports.append(port)
        yield ports, sessions


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as sock:
        sock.sendall(_REFUSES)
        return sock.recv(16).startswith(b"HTTP/1.1 ")
    return False


@contextlib.contextmanager
def _deaf(port: int) -> Iterator[None]:
    """A member that does not read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(upgrade())
        yield


def _dropped(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/dropped", timeout=10) as answer:
        return int(answer.read())
