"""websockets, its asyncio client."""

from typing import Any

import websockets.asyncio.client

from .load import MAX_SIZE, Load

__all__ = ["connect", "echo", "receive"]


def _open(load: Load) -> Any:
    return websockets.asyncio.client.connect(load.url, compression=None, proxy=None, max_size=MAX_SIZE)


async def echo(load: Load) -> None:
    async with _open(load) as ws:
        for _ in range(load.depth):
            await ws.send(load.payload)
        while load.running:
            if await ws.recv() != load.payload:
                load.wrong()
            load.count += 1
            await ws.send(load.payload)


async def receive(load: Load) -> None:
    async with _open(load) as ws:
        while load.running:
            await ws.recv()
            load.count += 1


async def connect(load: Load) -> None:
    while load.running:
        async with _open(load):
            load.count += 1
