"""The dispatch of messages to `on_receive`: in order, concurrently where handlers wait, and within the limit."""

import asyncio
import asyncio.sslproto
import contextvars
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.server import serve

from ..support.handshake import UPGRADE
from ..support.views import Gates

pytestmark = pytest.mark.in_memory


# Order


async def test_handlers_start_in_order_and_wait_side_by_side(connect):
    async with connect(Gates) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b", "c")
        await view.until(lambda: len(view.events) == 3)
        assert view.events == ["a starts", "b starts", "c starts"]
        for name in "cab":
            view.gate(name).set()
            assert await peer.message() == name
        assert view.events[3:] == ["c ends", "a ends", "b ends"]


async def test_a_handler_may_wait_for_a_later_message(connect):
    """The later handler may wait for an even later message."""

    class View(Gates):
        async def on_receive(self, message, opcode):
            if message.startswith(b"go "):
                self.gate(message[3:].decode()).set()
            await super().on_receive(message, opcode)

    async with connect(View) as session:
        view, peer = session.view, session.peer
        view.gate("go go a").set()
        peer.send("a", "go a", "go go a")
        assert {await peer.message() for _ in range(3)} == {"a", "go a", "go go a"}
        assert view.events[:3] == ["a starts", "go a starts", "go go a starts"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_holds_whoever_waits(loop_name, run, data):
    """Any mix of handlers that wait or do not wait, and of messages in one read or in several."""
    waits = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=30))
    groups = data.draw(st.lists(st.integers(1, 10), min_size=1, max_size=30))
    limit = data.draw(st.sampled_from([1, 2, 5, 128]))

    class View(WebSocketView):
        MAX_CONCURRENT_MESSAGES = limit
        running = most = 0

        async def on_receive(self, message, opcode):
            self.running += 1
            self.most = max(self.most, self.running)
            started.append(int(message))
            for _ in range(waits[int(message)]):
                await asyncio.sleep(0)
            self.running -= 1
            await self.send(message)

        async def on_close(self, frame=None):
            started.append("close")
            assert self.most <= limit

    started = []

    async def scenario():
        async with serve(View, port=0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            frames = [Frame(OpCode.TEXT, payload=b"%d" % i).serialize(mask=True) for i in range(len(waits))]
            for size in groups:
                writer.write(b"".join(frames[:size]))
                del frames[:size]
                await asyncio.sleep(0)
            writer.write(b"".join(frames))
            replies = [(await Frame.parse(reader.readexactly, mask_required=False)).payload for _ in waits]
            assert sorted(map(int, replies)) == list(range(len(waits)))
            writer.close()
            await writer.wait_closed()
        assert started == [*range(len(waits)), "close"]

    run(scenario())


@pytest.mark.parametrize("seconds", [0, 0.0002])
async def test_replies_of_handlers_that_do_not_wait_are_in_order(connect, seconds):
    """The order holds although the handlers together block the loop for long."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message)
            time.sleep(seconds)  # noqa: ASYNC251
            await self.send(message + b"!")

    async with connect(View) as session:
        session.peer.send(*map(str, range(500)))
        for i in range(500):
            assert await session.peer.message() == str(i)
            assert await session.peer.message() == f"{i}!"


# Tasks and contexts


variable = contextvars.ContextVar("variable", default=None)


async def test_handlers_that_wait_have_tasks_and_contexts_of_their_own(connect):
    class View(Gates):
        async def on_receive(self, message, opcode):
            before = asyncio.current_task()
            variable.set(message)
            await super().on_receive(message, opcode)
            assert variable.get() == message
            assert asyncio.current_task() is before
            self.tasks.append(before)

    async with connect(View) as session:
        view, peer = session.view, session.peer
        view.tasks = []
        names = [str(i) for i in range(10)]
        peer.send(*names)
        await view.until(lambda: len(view.events) == 10)
        for name in names:
            view.gate(name).set()
        assert [await peer.message() for _ in names] == names
        assert len(set(view.tasks)) == 10
        assert None not in view.tasks
        assert session.end not in view.tasks


async def test_timeouts_groups_and_shields_work_in_a_handler(connect):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.send("from a group"))
                group.create_task(asyncio.sleep(0))
            await asyncio.wait_for(self.send("in time"), 1)
            await asyncio.gather(self.send("one"), self.send("two"))
            await asyncio.shield(asyncio.ensure_future(asyncio.sleep(0)))
            assert await asyncio.to_thread(lambda: 5) == 5
            await self.send("done")

    async with connect(View) as session:
        session.peer.send("x")
        expected = ["from a group", "in time", "one", "two", "done"]
        assert [await session.peer.message() for _ in expected] == expected


async def test_an_error_in_the_last_waiting_message_ends_a_lost_connection_at_once(connect, log, until):
    """Not after CLOSE_TIMEOUT."""

    class View(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1
        CLOSE_TIMEOUT = 1000

        async def on_open(self):
            self.gate = asyncio.Event()

        async def on_receive(self, message, opcode):
            if message == b"fail":
                raise ZeroDivisionError
            await self.gate.wait()

    async with connect(View) as session:
        session.peer.send("wait", "fail")
        await session.peer.settled()
        session.peer.leave()
        await until(lambda: session.view.close_code)
        session.view.gate.set()
        await session.ended()
    assert len(log()) == 1


@pytest.mark.parametrize("hook", ["on_receive", "on_stream"])
async def test_terminate_ends_a_lost_connection_soon_whatever_waits(connect, hook, log, until):
    """Neither a waiting message nor `on_close` is granted CLOSE_TIMEOUT."""

    async def wait(self, *args):
        await asyncio.Event().wait()

    members = {hook: wait, "on_close": wait, "MAX_CONCURRENT_MESSAGES": 1, "CLOSE_TIMEOUT": 1000}
    view_class = type("View", (WebSocketView,), members)
    async with connect(view_class) as session:
        session.peer.send("a", "b")
        await session.peer.settled()
        session.peer.leave()
        await until(lambda: session.view.close_code)
        session.view.terminate()
        await session.ended()
    assert log()
