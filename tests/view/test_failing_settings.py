"""Settings that are properties, and fail or become invalid while the connection is open."""

import asyncio

import pytest

from duck.contrib.websockets import OpCode

from ..support.views import Noting


class Failing(Noting):
    """Its setting is valid until `broken` is set, and then gives that value, or raises it."""

    broken = ()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.release = asyncio.Event()

    def _computed(self, valid):
        if self.broken == ():
            return valid
        if isinstance(self.broken, BaseException):
            raise self.broken
        return self.broken

    async def on_receive(self, message, opcode):
        await self.send(message)
        await self.release.wait()
        self.events.append(message)

    async def on_close(self, frame=None):
        self.events.append("closed")


@pytest.mark.parametrize("broken", [ValueError("expected"), SystemExit("expected"), None, "ten"])
@pytest.mark.parametrize("end", ["close", "send_close", "leave", "terminate"])
async def test_a_connection_ends_without_its_close_timeout(connect, log, end, broken):
    class View(Failing):
        CLOSE_TIMEOUT = property(lambda self: self._computed(5))

    async with connect(View) as session:
        view = session.view
        session.peer.send("x")
        assert await session.peer.message() == "x"
        view.broken = broken
        if end == "close":
            session.peer.close()
        elif end == "leave":
            session.peer.leave()
        elif end == "terminate":
            view.terminate()
        else:
            await view.send_close()
            assert await session.peer.closing() == (1000, "")
            session.peer.close()
        view.release.set()
        await session.ended()
        assert view.events[-1] == "closed"
        assert view.events.count("closed") == 1
    assert {type(entry.error) for entry in log() if entry.error} in ({ValueError}, {SystemExit}, {TypeError})


@pytest.mark.parametrize("broken", [ValueError("expected"), SystemExit("expected"), "ten", object()])
@pytest.mark.parametrize("name", ["PING_INTERVAL", "PONG_TIMEOUT", "RECEIVE_TIMEOUT"])
@pytest.mark.in_memory
async def test_a_heartbeat_that_fails_ends_the_connection(connect, log, name, broken):
    class View(Failing):
        RECEIVE_TIMEOUT = None

    setattr(View, name, property(lambda self: self._computed(20)))
    async with connect(View) as session:
        session.view.broken = broken
        frame = await session.peer.frame()
        while frame.opcode == OpCode.PING:
            frame = await session.peer.frame()
        assert (frame.opcode, frame.payload[2:]) == (OpCode.CLOSE, b"internal error")
        session.peer.close(1011)
        await session.ended()
        assert session.view.events == ["closed"]
    assert [type(entry.error) for entry in log() if entry.error] in ([ValueError], [SystemExit], [TypeError])
