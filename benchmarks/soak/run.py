"""Runs the server and the clients, and kills Redis and workers meanwhile."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .. import ROOT
from ..echo.cores import raise_file_limit
from ..redis_server import RedisServer, redis_server
from .client import Client
from .ledger import Ledger

__all__ = ["Settings", "soak"]

AWAY = 2.0  # seconds without Redis
QUIET = 2.0  # seconds without a delivery after which nothing is on its way any more
LATEST = 120.0  # seconds for anything to end
GROWTH = 1.03  # of a worker's memory over the last quarter, at most
SHORT = 60.0  # seconds of a soak that tells nothing of memory
SLACK = 2 * 1024  # KiB of growth that are no leak

# The victims, and the time of each kill as a share of the run. The last quarter has none, to measure the memory.
EVENTS = (("redis", 0.15), ("worker", 0.3), ("redis", 0.45), ("worker", 0.6))


@dataclass(frozen=True)
class Settings:
    """A soak.

    Attributes:
        seconds: The length of the soak.
        clients: The number of clients.
        groups: The number of groups.
        pace: Seconds between the actions of a client, on average.
        seed: Decides on the actions of clients.
    """

    seconds: float
    clients: int = 2000
    groups: int = 100
    pace: float = 20.0
    seed: int = 1


@dataclass
class Report:
    """The findings of a soak."""

    counts: dict[str, int]
    faults: list[str]
    lines: list[str] = field(default_factory=list)


class Server:
    """`duck serve` with two workers.

    Attributes:
        workers: The PIDs of the workers that serve.
        errors: Lines of its log that tell of an error, but for those of workers that were killed.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.workers: list[int] = []
        self.errors: list[str] = []
        self.url = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, redis: RedisServer) -> "AsyncIterator[Server]":
        """Runs it while the block runs."""
        words = ["-m", "duck", "serve", str(Path(__file__).parent / "app.py"), "--port", "0", "--workers", "2"]
        # The workers import the installed package, not the one in the current folder.
        environment = os.environ | {"REDIS_URL": redis.url, "PYTHONSAFEPATH": "1"}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe
        )
        server = cls(process)
        log = asyncio.create_task(server._read_log())
        try:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            if not line:
                raise RuntimeError(f"the server does not start: {server.errors}")
            server.url = line.split()[-1]
            yield server
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
            await log
            if process.returncode:
                server.errors.append(f"the server ended with status {process.returncode}")

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            words = line.decode().rstrip()
            if serves := re.search(r"worker (\d+) serves", words):
                self.workers.append(int(serves[1]))
            elif ended := re.search(r"worker (\d+) was ended by SIGKILL", words):
                self.workers.remove(int(ended[1]))
            elif not re.search(r"\b(INFO|WARNING)\b", words):
                self.errors.append(words)

    async def states(self) -> list[dict[str, int]]:
        """The reports of the workers on themselves."""
        found: dict[int, dict[str, int]] = {}
        async with asyncio.timeout(LATEST):
            while {*found} != {*self.workers} or len(found) < 2:
                state = await asyncio.to_thread(self._state)
                found[state["pid"]] = state
        return list(found.values())

    def _state(self) -> dict[str, int]:
        with urllib.request.urlopen(self.url.replace("ws:", "http:") + "/state", timeout=LATEST) as answer:
            state: dict[str, int] = json.load(answer)
            return state


def soak(settings: Settings, say: Callable[[str], None]) -> Report:
    """Runs a soak. `say` is told of its progress."""
    raise_file_limit()
    with redis_server() as redis:
        return asyncio.run(_soak(settings, redis, say))


async def _soak(settings: Settings, redis: RedisServer, say: Callable[[str], None]) -> Report:
    ledger = Ledger()
    async with Server.running(redis) as server:
        before = {state["pid"]: state for state in await server.states()}
        groups = [f"group-{number}" for number in range(settings.groups)]
        clients = [
            Client(number, server.url, groups, settings.pace, ledger, settings.seed)
            for number in range(settings.clients)
        ]
        async with asyncio.TaskGroup() as tasks:
            living = [tasks.create_task(client.run()) for client in clients]
            memory = _Memory(server)
            watching = tasks.create_task(memory.watch())
            lagging = tasks.create_task(_note_lateness(ledger))
            await _disturb(settings, server, redis, ledger, say)
            watching.cancel()
            say("the clients come to rest")
            for client in clients:
                client.stopping.set()
            try:
                await _until(lambda: all(client.is_home for client in clients))
            except TimeoutError:
                doing = Counter(client.doing for client in clients)
                ledger.fault(f"the clients do not come to rest within {LATEST:g} s: {dict(doing)}")
            lagging.cancel()
            await _quiet(ledger)
            ledger.check_ends([place for client in clients for place in client.places.values()])
            for client in clients:
                client.finished.set()
            await asyncio.wait(living)
        ledger.settle()
        after = await server.states()
        clients_of_redis = await _redis_clients(redis)
    report = Report(dict(ledger.counts), ledger.faults + server.errors)
    memory.check(report, settings.seconds)
    _check_rest(report, before, after, clients_of_redis)
    return report


async def _note_lateness(ledger: Ledger) -> None:
    """Notes how late the clients' loop is, which runs all of them, until it is cancelled."""
    while True:
        due = time.monotonic() + 0.1
        await asyncio.sleep(0.1)
        ledger.was_late(due, time.monotonic())


async def _disturb(
    settings: Settings, server: Server, redis: RedisServer, ledger: Ledger, say: Callable[[str], None]
) -> None:
    begin = time.monotonic()

    async def at(share: float) -> None:
        await asyncio.sleep(max(begin + share * settings.seconds - time.monotonic(), 0))

    for what, share in EVENTS:
        await at(share)
        passed = f"{time.monotonic() - begin:.0f} s: "
        if what == "redis":
            redis.kill()
            await asyncio.sleep(min(AWAY, settings.seconds / 10))
            await asyncio.to_thread(redis.start)
            say(passed + "Redis was killed, and started again")
        else:
            victim = server.workers[0]  # the oldest, so that both are killed
            killed = time.monotonic()
            ledger.kills.append(killed)
            os.kill(victim, signal.SIGKILL)
            await _until(lambda: len(server.workers) == 2 and victim not in server.workers)  # noqa: B023
            say(passed + f"worker {victim} was killed; another served after {time.monotonic() - killed:.1f} s")
    await at(1)


class _Memory:
    """The resident memory of the workers, in KiB."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._samples: list[tuple[float, int, int]] = []

    async def watch(self) -> None:
        """Takes samples until it is cancelled."""
        while True:
            await asyncio.sleep(0.5)
            for pid in self._server.workers:
                with contextlib.suppress(OSError):
                    self._samples.append((time.monotonic(), pid, _resident(pid)))

    def check(self, report: Report, seconds: float) -> None:
        """Compares the two halves of the last quarter, if that is long enough to tell of anything."""
        if seconds < SHORT:
            return
        end = self._samples[-1][0]
        for pid in {pid for _, pid, _ in self._samples[-4:]}:
            quarter = [(at, size) for at, its, size in self._samples if its == pid and at > end - seconds / 4]
            first = median(size for at, size in quarter if at <= end - seconds / 8)
            second = median(size for at, size in quarter if at > end - seconds / 8)
            report.lines.append(f"memory of worker {pid}: {first / 1024:.1f} MiB, then {second / 1024:.1f} MiB")
            if second > first * GROWTH and second - first > SLACK:
                report.faults.append(f"the memory of worker {pid} grows: {first:.0f} KiB, then {second:.0f} KiB")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _check_rest(
    report: Report, before: dict[int, dict[str, int]], after: list[dict[str, int]], clients_of_redis: list[str]
) -> None:
    tasks = max(state["tasks"] for state in before.values())
    objects = max(state["objects"] for state in before.values())
    for state in after:
        report.lines.append("at the end: " + ", ".join(f"{name} {value}" for name, value in state.items()))
        for name in ("connections", "groups", "members"):
            if state[name]:
                report.faults.append(f"worker {state['pid']} has {name}: {state[name]}")
        report.lines.append(f"    beyond those of a fresh worker: {state['objects'] - objects} objects")
        report.lines.append(f"    beyond those of a fresh worker: {state['tasks'] - tasks} tasks")
    report.lines.append(f"connections to Redis: {len(clients_of_redis)}")


async def _redis_clients(redis: RedisServer) -> list[str]:
    """The connections to Redis, but for the one that asks."""
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(b"CLIENT LIST\r\n")
    size = int((await reader.readline())[1:])
    lines = (await reader.readexactly(size)).decode().splitlines()
    writer.close()
    await writer.wait_closed()
    return [line for line in lines if "cmd=client" not in line]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LATEST):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _quiet(ledger: Ledger) -> None:
    """Waits until no message is delivered any more."""
    async with asyncio.timeout(LATEST):
        delivered = -1
        while delivered != ledger.counts["delivered"]:
            delivered = ledger.counts["delivered"]
            await asyncio.sleep(QUIET)
