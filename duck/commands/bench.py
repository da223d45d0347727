"""`duck bench URL`: measures the message rate and the latency of an echo server."""

import argparse
import asyncio
import os
import sys
import time
from array import array
from collections import Counter, deque
from typing import Unpack

from duck.contrib.websockets import ConnectionClosed, OpCode
from duck.contrib.websockets.client import Options, WebSocketClient
from duck.contrib.websockets.logging import printable

from .connection_options import FAILURES, address_of, connection_options, explain

__all__ = ["run"]

_AT_ONCE = 64  # connections that are opened concurrently


async def run(arguments: argparse.Namespace) -> int:
    """Loads a server and prints the results.

    Returns:
        The exit status: 0 without errors, 1 with errors, 2 without any connection.
    """
    try:
        options = connection_options(arguments)
    except ValueError as error:
        print(f"duck: {address_of(arguments)}: {error}", file=sys.stderr)
        return 2
    load = Load(os.urandom(arguments.size), arguments.depth)
    began = time.perf_counter()
    try:
        await _open(load, arguments, options)
        return await _measure(load, arguments, time.perf_counter() - began)
    except BaseException:  # such as a cancellation, or an output that cannot be written
        for client in load.clients:
            client.terminate()
        await asyncio.gather(*(client.wait_closed() for client in load.clients))
        raise


async def _measure(load: "Load", arguments: argparse.Namespace, opening: float) -> int:
    if not load.clients:
        for words, count in load.errors.most_common():
            print(f"duck: {address_of(arguments)}: {words} ({count} times)", file=sys.stderr)
        return 2
    print(f"{address_of(arguments)}: {arguments.depth} messages of {arguments.size} bytes in flight on each connection")
    print(f"opened     {len(load.clients)} connections in {opening:.2f} s", flush=True)
    seconds = await _load(load, arguments.seconds)
    _report(load, seconds)
    return 1 if load.errors else 0


class Load:
    """State shared by all connections.

    Attributes:
        payload: The message.
        depth: Messages in flight on each connection.
        clients: The open connections.
        latencies: Round-trip time of each message, in seconds.
        errors: The number of errors of each kind.
        running: Whether echoes trigger further messages.
    """

    def __init__(self, payload: bytes, depth: int) -> None:
        self.payload = payload
        self.depth = depth
        self.clients: list[Loader] = []
        self.latencies = array("d")
        self.errors: Counter[str] = Counter()
        self.running = False


class Loader(WebSocketClient):
    """One connection: each echo triggers the next message."""

    MAX_FRAME_SIZE = None
    PING_INTERVAL = None
    RECEIVE_TIMEOUT = None
    CLOSE_TIMEOUT = 2

    def __init__(self, url: str, load: Load, **options: Unpack[Options]) -> None:
        super().__init__(url, **options)
        self._load = load
        self._sent: deque[float] = deque()
        self._has_echo = False
        self._is_counted = False  # whether the end of the connection counts as an error already

    @property
    def is_silent(self) -> bool:
        """Whether the connection is open and has received no echo."""
        return not self._has_echo and self.is_open

    @property
    def is_open(self) -> bool:
        """Whether the connection has not ended."""
        return self.close_code is None

    def begin(self) -> None:
        """Sends the first messages."""
        for _ in range(self._load.depth):
            self._send_one()

    def _send_one(self) -> None:
        self._sent.append(time.perf_counter())
        _ = self.send(self._load.payload, OpCode.BINARY)

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        load = self._load
        if message != load.payload:
            load.errors["received a message that is not an echo"] += 1
            self._is_counted = True
            await self.send_close()
            return
        if load.running:
            self._has_echo = True
            load.latencies.append(time.perf_counter() - self._sent.popleft())
            self._send_one()

    async def on_close(self, frame: object = None) -> None:
        if self._load.running:
            self.count_end(self.close_code, self.close_reason)

    def count_end(self, code: int | None, reason: str) -> None:
        """Counts the end of the connection as an error, once."""
        if not self._is_counted:
            self._is_counted = True
            self._load.errors[f"closed with {code} {printable(reason)}".rstrip()] += 1


async def _open(load: Load, arguments: argparse.Namespace, options: Options) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            client = Loader(arguments.url, load, **options)
            try:
                await client.open()
            except FAILURES as error:
                load.errors[explain(error)] += 1
            else:
                load.clients.append(client)

    await asyncio.gather(*(one() for _ in range(arguments.connections)))


async def _load(load: Load, seconds: float) -> float:
    """Sends messages for `seconds`, or until no connection is open, then closes all; returns the actual seconds."""
    load.running = True
    began = time.perf_counter()
    for client in load.clients:
        try:
            client.begin()
        except ConnectionClosed as error:  # before the first message
            client.count_end(error.code, error.reason)
    counted = 0
    while (left := began + seconds - time.perf_counter()) > 0 and any(client.is_open for client in load.clients):
        await asyncio.sleep(min(left, 1))
        count = len(load.latencies)
        if sys.stderr.isatty():
            print(f"\r{count - counted:>9} messages/s ", end="", file=sys.stderr, flush=True)
        counted = count
    took = time.perf_counter() - began
    load.running = False
    silent = sum(client.is_silent for client in load.clients)
    if silent:
        load.errors["no echo received"] += silent
    if sys.stderr.isatty():
        print("\r" + " " * 24 + "\r", end="", file=sys.stderr, flush=True)
    await asyncio.gather(*(client.close() for client in load.clients))
    return took


def _report(load: Load, seconds: float) -> None:
    latencies = sorted(load.latencies)
    count = len(latencies)
    print(f"messages   {count / seconds:.0f}/s, {count} in {seconds:.2f} s")
    if count:
        p50, p99 = latencies[count // 2] * 1000, latencies[min(int(count * 0.99), count - 1)] * 1000
        print(f"latency    p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {latencies[-1] * 1000:.2f} ms")
    print(f"errors     {load.errors.total()}")
    for words, number in load.errors.most_common():
        print(f"           {number} times: {words}")
