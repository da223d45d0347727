"""Compressed bombs against a server in a process of its own, whose memory is read from the kernel."""

import asyncio
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from duck.contrib.websockets import Frame, OpCode, PerMessageDeflate
from duck.contrib.websockets.sansio.payloads import parse_close

from ..support.handshake import upgrade

REQUEST = upgrade(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"})

MIB = 2**20

SERVER = """
import asyncio
from duck.contrib.websockets import WebSocketView
from duck.server import serve

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

async def main():
    async with serve(Echo, port=0) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def deflate():
    return PerMessageDeflate("permessage-deflate")


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are read from /proc")


@pytest.fixture(scope="module")
def bomb():
    """100 MB of zeros in 100 KB."""
    compressor = zlib.compressobj(9, wbits=-15)
    payload = compressor.compress(bytes(100_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(payload) < 110_000
    return payload.removesuffix(b"\x00\x00\xff\xff")


@pytest.fixture(scope="module")
def server():
    with subprocess.Popen([sys.executable, "-P", "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def memory(pid, name):
    """Bytes: VmRSS, resident now, or VmHWM, resident at most."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def forget_highest(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def exchange(port, frames):
    """The first data or close frame that answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"permessage-deflate" in head
        writer.write(b"".join(frame.serialize(mask=True) for frame in frames))
        return await Frame.parse(reader.readexactly, mask_required=False, extensions=[deflate()])
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("fragments", [1, 2, 100])
def test_a_bomb_costs_the_server_little(server, bomb, fragments):
    pid, port = server
    size = -(-len(bomb) // fragments)
    pieces = [bomb[at : at + size] for at in range(0, len(bomb), size)]
    frames = [
        Frame(OpCode.CONTINUATION if at else OpCode.BINARY, at == len(pieces) - 1, piece, rsv1=not at)
        for at, piece in enumerate(pieces)
    ]

    async def scenario():
        async with asyncio.timeout(30):
            echo = await exchange(port, [Frame(OpCode.BINARY, payload=bytes(MIB))])
            assert echo.payload == bytes(MIB)
            forget_highest(pid)
            before = memory(pid, "VmRSS")
            for _ in range(3):
                answer = await exchange(port, frames)
                assert answer.opcode == OpCode.CLOSE
                assert parse_close(answer.payload)[0] == 1009
            assert memory(pid, "VmHWM") - before < 4 * MIB

    asyncio.run(scenario())
