"""`safe_close`: closes from anywhere, and waits until the connection is gone."""

import asyncio

import pytest

from duck.contrib.websockets import ConnectionClosed, State

from ..support.views import Recorder

pytestmark = pytest.mark.in_memory


@pytest.mark.parametrize("place", ["on_open", "on_receive", "on_close", "outside"])
async def test_safe_close_may_be_called_anywhere_and_repeatedly(connect, place):
    class View(Recorder):
        async def close_in(self, where):
            if where == place:
                await self.safe_close()
                await self.safe_close()
                self.events.append(self.state.name)

        async def on_open(self):
            await super().on_open()
            await self.close_in("on_open")

        async def on_receive(self, message, opcode):
            self.events.append(message)
            await self.close_in("on_receive")

        async def on_close(self, frame=None):
            await super().on_close(frame)
            await self.close_in("on_close")

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("x")
        if place == "on_close":
            peer.close()
        closing = asyncio.create_task(view.close_in("outside"))
        assert await peer.closing() == (1000, "")
        if place != "on_close":
            peer.close()
        assert await peer.rest() == []
        await session.ended()
        await closing
        assert view.events.count(("close", b"\x03\xe8")) == 1
        assert view.events[0] == "open"


async def test_close_has_a_code_and_waits(connect):
    class View(Recorder):
        async def on_receive(self, message, opcode):
            await self.close(4000, "bye")
            await self.close()
            self.events.append("closed")

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.closing() == (4000, "bye")
        assert session.view.events == ["open"]
        session.peer.close(4000)
        await session.ended()
        assert session.view.events == ["open", "closed", ("close", b"\x0f\xa0")]


@pytest.mark.parametrize("how", ["send_close", "safe_close", "error"])
async def test_on_open_closes_and_the_peer_does_not_answer(connect, how):
    class View(Recorder):
        CLOSE_TIMEOUT = 0.1
        PING_INTERVAL = None

        async def on_open(self):
            if how == "send_close":
                await self.send_close()
            elif how == "safe_close":
                await self.safe_close()
            else:
                raise ValueError

    async with connect(View) as session:
        assert (await session.peer.closing())[0] == (1011 if how == "error" else 1000)
        await session.ended()
        assert session.view.events == [("close", None)]


@pytest.mark.parametrize(("call", "expected"), [(True, [("close", b"\x03\xe8")]), (False, [])])
async def test_safe_close_calls_on_close_unless_told_otherwise(connect, call, expected):
    async with connect(Recorder) as session:
        closing = asyncio.create_task(session.view.safe_close(call_on_close_handler=call))
        assert await session.peer.closing() == (1000, "")
        assert not closing.done()
        session.peer.close()
        await closing
        await session.ended()
        assert session.view.events == ["open", *expected]
        assert session.view.state is State.CLOSED


@pytest.mark.parametrize("quiet", [True, False])
async def test_safe_close_logs_the_end_unless_told_otherwise(connect, quiet, caplog):
    caplog.set_level("INFO", "duck.contrib.websockets")
    async with connect(Recorder) as session:
        closing = asyncio.create_task(session.view.safe_close(quiet))
        await session.peer.closing()
        session.peer.leave()
        await closing
        await session.ended()
    assert [("[CLOSE]" in record.getMessage()) for record in caplog.records] == [False, True][: 2 - quiet]


async def test_send_fails_while_safe_close_waits(connect):
    async with connect(Recorder) as session:
        closing = asyncio.create_task(session.view.safe_close())
        await asyncio.sleep(0)
        with pytest.raises(ConnectionClosed):
            await session.view.send("x")
        session.peer.close()
        await closing
