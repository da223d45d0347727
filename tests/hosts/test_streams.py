"""`on_stream` under uvicorn: received parts from our protocol, and gathered messages from another."""

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.client import connect


class Counting(WebSocketView):
    async def on_stream(self, message):
        parts = [part async for part in message]
        await self.send(f"{message.opcode.name} {sum(map(len, parts))} {len(parts)}")


async def test_on_stream_gets_messages_part_by_part_on_asgi_servers(serving_asgi, ws):
    async with (
        serving_asgi(Counting.as_asgi(), ws=ws) as server,
        connect(f"ws://127.0.0.1:{server.port}/") as client,
    ):
        await client.send("\u00e4" * 10)
        assert await client.recv() == "TEXT 10 1"
        await client.send(iter(["\u00e4" * 100_000] * 5))
        kind, size, parts = (await client.recv()).split()
        assert (kind, size) == ("TEXT", "500000")
        assert int(parts) > 1
