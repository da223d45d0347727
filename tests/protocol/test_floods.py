"""A peer that floods: its messages are handled in turns, so that it does not starve other connections."""

import asyncio
import time

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.codec import serialize
from duck.contrib.websockets.codec.numbers import FAIR_SHARE, FLOOD_READ
from duck.contrib.websockets.testing import connect

FRAME = serialize(0x81, b"x" * 26, b"mask")
FLOOD = 2**20 // len(FRAME)


class Busy(WebSocketView):
    """Works for FAIR_SHARE on its first message."""

    count = 0

    async def on_receive(self, message, opcode):
        self.count += 1
        if self.count == 1:
            time.sleep(2 * FAIR_SHARE / 1000)  # noqa: ASYNC251  # work on the loop


async def flood(transport):
    """Feeds bytes in a callback, as a loop does."""
    asyncio.get_running_loop().call_soon(transport.feed, FRAME * FLOOD)
    await asyncio.sleep(0)


async def test_a_flood_is_handled_in_turns():
    async with connect(Busy) as ws:
        view, transport = ws.view, ws.view.request.transport
        await flood(transport)
        assert 0 < view.count <= FLOOD // 4
        turns = []
        while view.count < FLOOD:
            before = view.count
            await asyncio.sleep(0)
            turns.append(view.count - before)
        assert max(turns) <= FLOOD_READ // len(FRAME) + 1
        await ws.send("a")
        await ws.ping()
        assert view.count == FLOOD + 1


async def test_a_peer_that_has_flooded_is_read_as_any_other(until):
    async with connect(Busy) as ws:
        view, transport = ws.view, ws.view.request.transport
        await flood(transport)
        await until(lambda: view.count == FLOOD)
        await ws.send("a")
        await ws.ping()
        assert len(transport.get_protocol().get_buffer(-1)) > FLOOD_READ


async def test_a_flood_that_ends_with_the_connection_is_handled_to_its_end(until):
    async with connect(Busy) as ws:
        view, transport = ws.view, ws.view.request.transport
        await flood(transport)
        asyncio.get_running_loop().call_soon(transport.feed_eof)
        await until(lambda: view.count == FLOOD)
