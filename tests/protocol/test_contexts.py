"""Context variables: a connection has a context of its own, and nothing leaks from message to message."""

import asyncio
from contextvars import ContextVar

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.groups import Groups
from duck.contrib.websockets.testing import connect as in_memory

user = ContextVar("user", default="nobody")


@pytest.mark.parametrize("waits", [False, True])
async def test_variables_of_on_open_hold_for_every_later_hook(connect, waits):
    seen = []

    class View(WebSocketView):
        async def on_open(self):
            if waits:
                await asyncio.sleep(0)
            user.set("alice")

        async def on_receive(self, message, opcode):
            seen.append(user.get())
            if message == b"slow":
                await asyncio.sleep(0)
            await self.send(user.get())

        async def on_close(self, frame=None):
            seen.append(user.get())

    async with connect(View) as session:
        session.peer.send("fast", "slow", "slow", "fast", "fast")
        assert [await session.peer.message() for _ in range(5)] == ["alice"] * 5
        session.peer.close()
        await session.ended()
    assert seen == ["alice"] * 6


async def test_a_receive_loop_of_the_views_own_opens_in_the_connections_context(connect):
    class View(WebSocketView):
        async def on_open(self):
            user.set("alice")

        async def read_frame(self):
            return await super().read_frame()

        async def on_receive(self, message, opcode):
            await self.send(user.get())

        async def on_close(self, frame=None):
            seen.append(user.get())

    seen = []
    async with connect(View) as session:
        session.peer.send("x", "y")
        assert [await session.peer.message() for _ in range(2)] == ["alice"] * 2
        session.peer.close()
        await session.ended()
    assert seen == ["alice"]


async def test_a_handler_sees_variables_of_an_overridden_read_frame(connect):
    """`read_frame` runs in the context of the connection, which each handler copies at its start."""
    number = ContextVar("number", default=0)

    class View(WebSocketView):
        async def read_frame(self):
            frame = await super().read_frame()
            number.set(number.get() + 1)
            return frame

        async def on_receive(self, message, opcode):
            await self.send(str(number.get()))

    async with connect(View) as session:
        for count in range(1, 5):
            session.peer.send("x")
            assert await session.peer.message() == str(count)


@pytest.mark.parametrize("opened", [None, "alice"])
@pytest.mark.parametrize("how", ["set", "set an equal", "set and reset", "wait"])
async def test_variables_of_a_handler_are_invisible_to_others(connect, how, opened):
    """This holds for a value that equals the previous one, too."""
    box = ContextVar("box")

    class View(WebSocketView):
        async def on_open(self):
            box.set([])
            if opened:
                user.set(opened)
            self.own = box.get()

        async def on_receive(self, message, opcode):
            await self.send(f"{user.get()} {box.get() is self.own}")
            token = user.set(message.decode())
            if how == "set and reset":
                user.reset(token)
            if how == "set an equal":
                box.set([])
            if how == "wait":
                await asyncio.sleep(0)

    async with connect(View) as session:
        for group in range(3):
            session.peer.send(*[f"{group} {number}" for number in range(3)])
            assert [await session.peer.message() for _ in range(3)] == [f"{opened or 'nobody'} True"] * 3


@pytest.mark.parametrize("waits", [False, True])
async def test_a_callback_of_a_handlers_task_sees_the_variables_of_its_creation(connect, waits):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            user.set("alice")
            asyncio.current_task().add_done_callback(lambda task: seen.append(user.get()))
            user.set("bob")
            if waits:
                await asyncio.sleep(0)

    seen = []
    async with connect(View) as session:
        session.peer.send("x")
        await session.peer.settled()
    assert seen == ["alice"]


async def test_a_token_of_another_handler_resets_nothing(connect):
    """The token belongs to the context of the first handler, which has changed nothing else."""
    tokens = []

    class View(WebSocketView):
        async def on_open(self):
            user.set("alice")

        async def on_receive(self, message, opcode):
            if message == b"keep":
                tokens.append(user.set("alice"))
            else:
                with pytest.raises(ValueError, match="different Context"):
                    user.reset(tokens[0])
            await self.send(user.get())

    async with connect(View) as session:
        session.peer.send("keep", "reset")
        assert [await session.peer.message() for _ in range(2)] == ["alice"] * 2


async def test_variables_of_a_connection_are_invisible_to_another_that_it_wakes(serving, dial, until):
    """Reading is on hold at a connection whose peer does not read; the handler of another one sends to it."""

    class View(WebSocketView):
        COMPRESSION = False

        async def on_receive(self, message, opcode):
            if message == b"flood":
                user.set("alice")
                for _ in range(100):
                    _ = victim.send(bytes(200_000), 2)
            seen.append((message, user.get()))
            await asyncio.sleep(0)

    seen = []
    async with serving(View) as server, dial(server) as silent:
        victim, _ = await server.views.get()
        await silent.head()
        async with dial(server) as other:
            await other.head()
            silent.writer.transport.pause_reading()
            other.send("flood")
            await until(lambda: seen)
            silent.send("1", "2", "3")
            silent.writer.transport.resume_reading()
            for _ in range(100):
                await silent.message()
            silent.send("4", "5", "6")
            await until(lambda: len(seen) == 7)
    assert [name for message, name in seen if message != b"flood"] == ["nobody"] * 6


@pytest.mark.in_memory
async def test_a_stream_that_waits_for_its_turn_keeps_the_variables_of_its_sender():
    """The end of one stream starts the next, but not in its own context."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            user.set(message.decode())

            async def parts():
                yield user.get()
                await go_on.wait()
                yield user.get()

            if message == b"bob":
                go_on.set()
            await self.send(parts())

    go_on = asyncio.Event()
    async with in_memory(View) as ws:
        for name in ("alice", "bob"):
            await ws.send(name)
        assert [await ws.recv(), await ws.recv()] == ["alicealice", "bobbob"]


@pytest.mark.in_memory
async def test_variables_of_a_publisher_are_invisible_to_the_members_of_a_group():
    seen = []

    class View(WebSocketView):
        async def on_open(self):
            user.set("member")
            await groups.join(self, "ducks")

        async def on_receive(self, message, opcode):
            user.set("publisher")
            await groups.publish("ducks", message)

        async def send_frame(self, frame):
            seen.append(user.get())
            await super().send_frame(frame)

    groups = Groups()
    async with in_memory(View) as one, in_memory(View) as other:
        await one.send("x")
        assert [await one.recv(), await other.recv()] == ["x", "x"]
    assert seen == ["member", "member"]
