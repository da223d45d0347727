"""duck: `connect` with `recv`, or WebSocketClient with hooks where the variant is "hooks"."""

import asyncio
from typing import Any

from duck.contrib.websockets import OpCode, client

from .load import MAX_SIZE, Load

__all__ = ["connect", "echo", "receive"]

BINARY = OpCode.BINARY


class Hooks(client.WebSocketClient):
    """Echoes, or only counts."""

    def __init__(self, load: Load, echoes: bool) -> None:
        super().__init__(load.url, **_options(load))
        self.load = load
        self.echoes = echoes
        self.done = asyncio.get_running_loop().create_future()

    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        load = self.load
        if self.echoes and message != load.payload:
            load.wrong()
        load.count += 1
        if not load.running:
            if not self.done.done():
                self.done.set_result(None)
        elif self.echoes:
            await self.send(load.payload, BINARY)


def _options(load: Load) -> dict[str, Any]:
    return {"compression": False, "proxy": None, "max_size": MAX_SIZE, "max_waiting_messages": max(load.depth, 16)}


def _open(load: Load) -> client.connect:
    return client.connect(load.url, **_options(load))


async def echo(load: Load) -> None:
    if load.variant == "hooks":
        async with Hooks(load, echoes=True) as hooks:
            for _ in range(load.depth):
                await hooks.send(load.payload, BINARY)
            await hooks.done
        return
    async with _open(load) as ws:
        for _ in range(load.depth):
            await ws.send(load.payload, BINARY)
        while load.running:
            if await ws.recv() != load.payload:
                load.wrong()
            load.count += 1
            await ws.send(load.payload, BINARY)


async def receive(load: Load) -> None:
    if load.variant == "hooks":
        async with Hooks(load, echoes=False) as hooks:
            await hooks.done
        return
    async with _open(load) as ws:
        while load.running:
            await ws.recv()
            load.count += 1


async def connect(load: Load) -> None:
    while load.running:
        if load.variant == "hooks":
            async with client.WebSocketClient(load.url, **_options(load)):
                load.count += 1
        else:
            async with _open(load):
                load.count += 1
