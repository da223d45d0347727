"""A server under load, among peers that break every rule, for any time:

    python -m tests.protocol.soak --minutes 10 --idle 5000 --busy 200

The server is `duck serve` in a process of its own. Idle connections answer its pings. Busy ones send messages of 1 byte
to 64 KiB, text and binary, whole, in fragments and compressed, and check every echo. Both kinds come and go, and beside
them each of the faults of `soak_peers.py` is injected all the time.

The exit status is 0 if every echo and every answer to a fault was right, the server has logged nothing but the faults
of peers, each `on_open` was followed by one `on_close`, the memory in use has grown by at most 5 % since minute two,
and no file is left open.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.server.process.loops import LOOPS, loop_factory

from . import soak_peers as peers

STAY = 60  # seconds, on average, until a connection goes and another comes in its place
FAULT_SLOTS = 4  # peers with the same fault at a time
SAMPLES = 30  # seconds between two samples of the server
GROWTH = 1.05
LEAVING = 30  # seconds until the server has noticed the end of all connections


def trim() -> None:
    """Has the C library return freed memory to the system, so that only memory in use is compared."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class AskedFor(Exception):
    """The error of a handler that fails on request."""


class Soaked(WebSocketView):
    """Repeats its messages, except for commands."""

    PING_INTERVAL = MAX_BACKOFF = 10
    PONG_TIMEOUT = CLOSE_TIMEOUT = 5
    opened = closed = 0

    async def on_open(self) -> None:
        Soaked.opened += 1

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        if message == peers.RAISE:
            raise AskedFor
        if message == peers.WAIT:
            await asyncio.sleep(0.2)
        elif message == peers.MUCH:
            for _ in range(peers.MUCH_COUNT):
                await self.send_binary(peers.MUCH_OF)
        elif message == peers.TRIM:
            trim()
        elif message == peers.COUNT:
            message = b"%d opened, %d closed" % (Soaked.opened, Soaked.closed)
        await self.send(message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        Soaked.closed += 1


LOG_HEAD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", re.MULTILINE)
EXPECTED = {
    "step": re.compile(r"INFO duck\.contrib\.websockets: \S+ / \[WebSocket\] \[(?P<kind>\w+\](?: \d+)?).*\n"),
    "handler": re.compile(
        r"(?P<kind>ERROR) duck\.contrib\.websockets: '/': error in a hook of Soaked\n"
        r"Traceback \(most recent call last\):\n(?:  .*\n)+tests\.websockets\.soak\.AskedFor\n"
    ),
}
"""Expected log records: steps of connections, and requested errors of handlers."""


def read_log(log: IO[str]) -> tuple[Counter[str], list[str]]:
    """The number of each kind of record in the log of the server, and the unexpected records."""
    kinds: Counter[str] = Counter()
    log.seek(0)
    first, *records = LOG_HEAD.split(log.read())
    others = [first] if first else []
    for record in records:
        for name, pattern in EXPECTED.items():
            if match := pattern.fullmatch(record):
                kinds[f"{name} {match['kind'].replace(']', '')}"] += 1
                break
        else:
            others.append(record)
    return kinds, others


class Soak:
    """The peers of one server, and their outcomes.

    Attributes:
        counts: The successes, by name.
        wrong: The failures, described.
        present: Idle and busy connections that are open.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.present = 0
        self._door = asyncio.Semaphore(50)  # so many connect at a time
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, idle: int, busy: int) -> None:
        """Starts all peers."""
        self._start(idle, "idle", lambda: self._stay(peers.idle))
        self._start(busy, "busy", lambda: self._stay(peers.busy))

    def inject(self) -> None:
        """Starts the faults."""
        for name, fault in peers.FAULTS.items():
            self._start(FAULT_SLOTS, name, lambda fault=fault: fault(self.port), pause=1.5)

    async def end(self) -> None:
        """Ends all peers at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def _start(self, slots: int, name: str, visit: Callable[[], Awaitable[None]], pause: float = 0) -> None:
        self._tasks += [asyncio.create_task(self._repeat(name, visit, pause)) for _ in range(slots)]

    async def _repeat(self, name: str, visit: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            await asyncio.sleep(random.uniform(0, 2 * pause))
            try:
                await visit()
                self.counts[name] += 1
            except Exception as error:
                self.wrong.append(f"{name}: {error!r}")

    async def _stay(self, behave: Callable[[peers.Peer, Counter[str]], Awaitable[None]]) -> None:
        async with self._door:
            peer = await peers.connect(self.port)
        self.present += 1
        try:
            try:
                async with asyncio.timeout(random.expovariate(1 / STAY)) as timeout:
                    await behave(peer, self.counts)
            except TimeoutError:
                if not timeout.expired():
                    raise
            await peer.leave()
        finally:
            self.present -= 1
            peer.drop()


class Process:
    """The server's process, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def memory(self) -> int:
        """KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    @property
    def files(self) -> int:
        """The number of open files."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


async def _soak(server: Process, port: int, options: argparse.Namespace) -> list[str]:
    """Runs the peers, and reports on them; returns the faults."""
    soak = Soak(port)
    await _ask(port, peers.TRIM)  # and memory that the first connection allocates for all is allocated
    files = server.files
    soak.begin(options.idle, options.busy)
    while soak.present < options.idle + options.busy:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    soak.inject()
    began = time.monotonic()
    print(f"{options.idle} idle and {options.busy} busy connections are open", flush=True)
    samples = max(int(options.minutes * 60 / SAMPLES), 2)
    reference = min(120 // SAMPLES, samples // 2)  # minute two, or half the time
    in_use = []
    for number in range(1, samples + 1):
        await asyncio.sleep(began + number * SAMPLES - time.monotonic())
        minute = number * SAMPLES / 60
        print(
            f"{minute:5.1f} min: {server.memory} KiB, {server.files} open files, {soak.present} present, "
            f"{soak.counts['echoes']} echoes, {sum(map(soak.counts.__getitem__, peers.FAULTS))} faults, "
            f"{len(soak.wrong)} wrong",
            flush=True,
        )
        if number in (reference, samples):
            await _ask(port, peers.TRIM)
            in_use.append(server.memory)
            print(f"           {in_use[-1]} KiB in use", flush=True)
    await soak.end()
    for name, count in sorted(soak.counts.items()):
        print(f"{count:9}  {'fault: ' if name in peers.FAULTS else ''}{name}")
    wrong = soak.wrong

    growth = in_use[1] / in_use[0]
    print(f"memory in use at the end is {growth:.3f} of that at minute {reference * SAMPLES / 60:.1f}")
    if growth > GROWTH:
        wrong.append("memory has grown")
    wrong += [f"no peer has got as far as {name!r}" for name in peers.FAULTS if not soak.counts[name]]

    deadline = time.monotonic() + LEAVING
    while server.files > files and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    print(f"once all have gone: {server.memory} KiB, {server.files} open files, as many as there were: {files}")
    if server.files > files:
        wrong.append("files are left open")
    words = await _ask(port, peers.COUNT)
    print(words.decode())
    opened, closed = (int(word) for word in words.split() if word.isdigit())
    if closed != opened - 1:
        wrong.append("on_close was not called once for each connection")
    return wrong


async def _ask(port: int, question: bytes) -> bytes:
    async with await peers.connect(port) as peer:
        answer = await peer.ask(question)
        await peer.leave()
    return answer


def main(options: argparse.Namespace) -> int:
    """Runs the soak; returns the exit status."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = [sys.executable, "-m", "duck", "serve", "tests.protocol.soak:Soaked", "--port", "0"]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen([*command, "--loop", options.loop], stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
                wrong = runner.run(_soak(Process(process), port, options))
            process.terminate()
            status = process.wait(LEAVING)
            if status:
                wrong.append(f"the server's exit status is {status}")
        finally:
            process.kill()
        kinds, others = read_log(log)
    for kind, count in sorted(kinds.items()):
        print(f"{count:9}  log: {kind}")
    print(f"{len(others):9}  log: anything else")
    wrong += others
    for words in wrong[:20]:
        print("WRONG", words)
    print(f"{len(wrong)} things are wrong" if wrong else "all is well")
    return bool(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.protocol.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--busy", type=int, default=200)
    parser.add_argument("--loop", choices=LOOPS, default="auto", help="that of the server")
    sys.exit(main(parser.parse_args()))
