"""`Metrics` and `Stats`: what connections do is counted, whatever their host and role."""

import asyncio

from duck.contrib.websockets import OpCode, WebSocketView
from duck.contrib.websockets.metrics import Metrics
from duck.contrib.websockets.testing import connect


class Echo(WebSocketView):
    METRICS = None
    CLOSE_TIMEOUT = 0.2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.METRICS = self.kwargs["metrics"]

    async def on_receive(self, message, opcode):
        if message == b"fail":
            raise ZeroDivisionError("as asked for")
        if message == b"wait":
            await asyncio.sleep(0)
        if message == b"close":
            await self.send_close(4000, "bye")
            return
        await self.send(message, opcode)


def counted(counts):
    return {name: number for name, number in counts.items() if number}


def test_messages_and_their_bytes(run):
    async def scenario():
        metrics = Metrics()
        async with connect(Echo, kwargs={"metrics": metrics}) as ws:
            assert metrics.stats().open == 1
            for message, opcode in (("hello", OpCode.TEXT), (b"bytes", OpCode.BINARY), ("wait", OpCode.TEXT)):
                await ws.send(message, opcode)
                assert await ws.recv() == message
            await ws.send("x" * 100_000)
            await ws.recv()
        stats = metrics.stats()
        assert (stats.open, stats.opened) == (0, 1)
        assert counted(stats.received) == counted(stats.sent) == {"text": 3, "binary": 1, "close": 1}
        assert stats.received_bytes["binary"] == stats.sent_bytes["binary"] == 5
        assert stats.received_plain_bytes == stats.sent_plain_bytes == 100_000
        assert 0 < stats.received_compressed_bytes < 1000 > stats.sent_compressed_bytes > 0
        assert stats.received_bytes["text"] == 9 + stats.received_compressed_bytes
        assert stats.sent_bytes["text"] == 9 + stats.sent_compressed_bytes
        assert stats.handlers.count == 4 and 0 < stats.handlers.sum < 30
        assert stats.closed == {"peer": {"1000": 1}}

    run(scenario())
