"""The view of a connection that has ended is freed at once, without a garbage collection."""

import asyncio
import weakref

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView, codec
from duck.contrib.websockets.logging import logger
from duck.server import serve

from ...support.handshake import upgrade
from ...support.views import Echo

HANDSHAKE = upgrade("/a/7?b", {"Host": "test"})


@pytest.mark.usefixtures("no_collector")
async def test_a_closed_connection_is_freed_at_once(connect, until, ssl):
    """Memory that waits for the collector is cold when it is used again, and the collector has work."""
    views = weakref.WeakSet()

    class Echo(WebSocketView):
        async def on_receive(self, message, opcode):
            views.add(self)
            await self.send(message, opcode)

    async with serve(Echo, port=0, ssl=ssl) as server:
        async with connect(server) as client:
            client.send(HANDSHAKE + Frame(OpCode.TEXT, payload=b"Hi!").serialize(mask=True))
            await client.reader.readuntil(b"Hi!")
            assert len(views) == 1
            client.send(Frame(OpCode.CLOSE).serialize(mask=True))
            assert await client.rest() == b"\x88\x00"
        await until(lambda: not server._work.views)
        await until(lambda: not views)


class FailsInOnOpen(Echo):
    async def on_open(self):
        raise RuntimeError("a bug")


class FailsInOnReceive(Echo):
    async def on_receive(self, message, opcode):
        raise RuntimeError("a bug")


class Pulls(Echo):
    async def _receive_loop(self):
        await super()._receive_loop()


class HasAHeartbeat(Echo):
    async def _heartbeat_loop(self):
        await super()._heartbeat_loop()


class SendsByFrame(Echo):
    async def send_frame(self, frame):
        await super().send_frame(frame)


class Waits(Echo):
    async def on_handshake(self, handshake):
        await asyncio.Event().wait()


FREED = [HasAHeartbeat, SendsByFrame, Waits]
if codec.describe()["codec"] == "compiled":  # tracebacks have frames of the twin, which refer to the task of the error
    FREED += [FailsInOnOpen, FailsInOnReceive, Pulls]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("base", FREED)
@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "closes"])
async def test_a_view_that_fails_or_overrides_a_step_is_freed_at_once(connect, until, monkeypatch, base, leaves):
    monkeypatch.setattr(logger, "disabled", True)  # pytest keeps the records, and so the errors
    views, begun = weakref.WeakSet(), asyncio.Event()

    class View(base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            views.add(self)
            begun.set()

    async with serve(View, port=0) as server:
        async with connect(server) as client:
            client.send(HANDSHAKE)
            await begun.wait()
            if base is not Waits:
                await client.reader.readuntil(b"\r\n\r\n")
            if not leaves:
                for frame in (Frame(OpCode.TEXT, payload=b"Hi!"), Frame(OpCode.CLOSE)):
                    client.send(frame.serialize(mask=True))
                if base is not Waits:
                    await client.rest()
        await until(lambda: not server._work.views)
        await until(lambda: not views)
