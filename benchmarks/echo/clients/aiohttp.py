"""aiohttp, its client."""

import aiohttp

from .load import MAX_SIZE, Load

__all__ = ["connect", "echo", "receive"]


async def echo(load: Load) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(load.url, max_msg_size=MAX_SIZE) as ws:
        for _ in range(load.depth):
            await ws.send_bytes(load.payload)
        while load.running:
            if await ws.receive_bytes() != load.payload:
                load.wrong()
            load.count += 1
            await ws.send_bytes(load.payload)


async def receive(load: Load) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(load.url, max_msg_size=MAX_SIZE) as ws:
        while load.running:
            await ws.receive_bytes()
            load.count += 1


async def connect(load: Load) -> None:
    async with aiohttp.ClientSession() as session:
        while load.running:
            async with session.ws_connect(load.url):
                load.count += 1
