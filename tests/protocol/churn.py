"""Connections that open, exchange messages and end in every way: `python -m tests.protocol.churn --connections 10000`.

It prints the open files and the memory of the process, which is both server and client.
"""

import argparse
import asyncio
import gc
import os
import socket
from pathlib import Path

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.server import Server, serve
from duck.server.process.loops import LOOPS, loop_factory

from ..support.handshake import UPGRADE

HELLO = Frame(OpCode.TEXT, payload=b"hello").serialize(mask=True)
BYE = Frame(OpCode.CLOSE, payload=b"\x03\xe8").serialize(mask=True)
BREACH = b"\x83\x80mask"
WAYS = ("close", "half-close", "reset", "inside a frame", "breach", "inside the head", "no handshake", "at once")
AT_ONCE = 20
DEADLINES = 25  # seconds until no timer is left that was set for a connection: PING_INTERVAL, and a little more


class Echo(WebSocketView):
    """Repeats its messages, and notes its end."""

    opened = closed = 0

    async def on_open(self) -> None:
        Echo.opened += 1

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        await self.send(message, opcode)

    async def on_close(self, frame: Frame | None = None) -> None:
        Echo.closed += 1


async def come_and_go(port: int, connections: int) -> None:
    """Makes connections, some at a time, and ends them by each of the `WAYS` in turn."""
    numbers = iter(range(connections))

    async def work() -> None:
        for number in numbers:
            await visit(port, WAYS[number % len(WAYS)])

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def visit(port: int, way: str) -> None:
    """Makes a connection, and ends it in one of the `WAYS`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if way == "inside the head":
            writer.write(UPGRADE[:50])
        elif way == "no handshake":
            writer.write(UPGRADE.replace(b"13", b"12"))
            assert await reader.read(12) == b"HTTP/1.1 426"
        elif way != "at once":
            writer.write(UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO)
            assert await _frame(reader) == b"\x81\x05hello"
            await _end(reader, writer, way)
    finally:
        writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends with a TCP reset."""
    no_linger = b"\1\0\0\0\0\0\0\0"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    writer.transport.abort()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
    if way == "reset":
        reset(writer)
    elif way == "half-close":
        writer.write_eof()
        await reader.read()
    elif way == "inside a frame":
        writer.write(HELLO[:7])
    else:
        writer.write(BYE if way == "close" else BREACH)
        assert (await _frame(reader))[0] == 0x88


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next small frame, except for pings, which a slow process receives."""
    while True:
        head = await reader.readexactly(2)
        frame = head + await reader.readexactly(head[1])
        if head[0] != 0x89:
            return frame


async def settled(server: Server) -> None:
    """Waits until the server has noticed the end of all connections."""
    for _ in range(10):
        await asyncio.sleep(0)  # the last ones may not have been accepted yet
    seconds = 0.001
    while server._work.views or server._work.protocols:
        await asyncio.sleep(seconds)
        seconds *= 1.5
    gc.collect()


def _facts() -> str:
    status = Path("/proc/self/status").read_text()
    memory = int(status.split("VmRSS:")[1].split()[0])
    return f"{len(os.listdir('/proc/self/fd'))} open files, {memory} KiB, {len(gc.get_objects())} objects"


async def _main(connections: int) -> None:
    async with serve(Echo, port=0) as server:
        assert server.port is not None
        total = 0
        for count in (connections // 10, connections // 2, connections // 2):
            await come_and_go(server.port, count)
            await settled(server)
            await asyncio.sleep(DEADLINES)
            total += count
            print(f"after {total} connections: {_facts()}; on_open {Echo.opened}, on_close {Echo.closed}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.protocol.churn")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory(arguments.loop)) as runner:
        runner.run(_main(arguments.connections))
