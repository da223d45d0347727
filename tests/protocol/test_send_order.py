"""Concurrent sends: each leaves whole, in the order of calls, awaited or not."""

import asyncio
import random
import time

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView

from ..support.sending import buffered, fill
from ..support.servers import SLOW
from ..support.views import Quiet

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


# Awaiting


async def test_a_message_is_sent_with_or_without_await(connect):
    async with connect(Quiet) as session:
        view = session.view
        view.send("not awaited")
        await view.send("awaited")
        await asyncio.create_task(view.send("in a task"))
        await asyncio.ensure_future(view.send("as a future"))
        await asyncio.wait_for(view.send("in time"), 1)
        await asyncio.shield(view.send("shielded"))
        assert await asyncio.gather(view.send("one"), view.send("two"), view.send("three")) == [None] * 3
        async with asyncio.TaskGroup() as group:
            for i in range(3):
                group.create_task(view.send(str(i)))
        expected = ["not awaited", "awaited", "in a task", "as a future", "in time", "shielded"]
        expected += ["one", "two", "three", "0", "1", "2"]
        assert [await session.peer.message() for _ in expected] == expected
        sending = view.send("twice awaited")
        await sending
        assert asyncio.iscoroutine(sending)
        assert await session.peer.message() == "twice awaited"


async def test_a_send_takes_no_pass_of_the_loop(connect):
    async with connect(Quiet) as session:
        passes = 0

        def count():
            nonlocal passes
            passes += 1
            asyncio.get_running_loop().call_soon(count)

        count()
        for _ in range(100):
            await session.view.send("x")
        assert passes == 1


# Order


@pytest.mark.parametrize("max_frame_size", [1000, None])
async def test_concurrent_sends_leave_whole_and_in_order(connect, max_frame_size):
    """Small and fragmented messages and streams, in 100 tasks; pings may leave between them."""

    class View(Quiet):
        MAX_FRAME_SIZE = max_frame_size

    chance = random.Random(2)

    async def stream(parts, delays):
        for part, delay in zip(parts, delays, strict=True):
            for _ in range(delay):
                await asyncio.sleep(0)
            yield part

    async with connect(View) as session:
        view, peer = session.view, session.peer
        expected, order = [], []

        async def send(i):
            kind = chance.choice(["small", "large", "stream", "generator", "ping"])
            if kind == "ping":
                await view.send_ping(b"%d" % i)
                return
            parts = [b"%d:" % i, *(chance.randbytes(chance.randrange(3000)) for _ in range(3))]
            if kind == "small":
                parts = parts[:1]
            expected.append(b"".join(parts))
            order.append(i)
            if kind == "stream":
                await view.send_binary(stream(parts, [chance.randrange(4) for _ in parts]))
            elif kind == "generator":
                await view.send_binary(part for part in parts)
            else:
                await view.send_binary(b"".join(parts))

        async def receive():
            messages, fragments = [], None
            while len(messages) < len(tasks) - pings:
                frame = await peer.frame()
                if frame.opcode == PING:
                    continue
                assert (frame.opcode == CONTINUATION) is (fragments is not None)
                fragments = (fragments or b"") + frame.payload
                if frame.fin:
                    messages.append(fragments)
                    fragments = None
            return messages

        tasks = [asyncio.create_task(send(i)) for i in range(100)]
        await asyncio.sleep(0)
        pings = 100 - len(expected)
        assert 5 < pings < 50
        messages = await receive()
        await asyncio.gather(*tasks)
        assert messages == expected
        assert order == sorted(order)


async def test_control_frames_leave_inside_a_fragmented_message(connect):
    async with connect(Quiet) as session:
        view = session.view
        await view.send_frame(Frame(TEXT, False, b"Hel"))
        later = asyncio.create_task(view.send("later"))
        await view.send_ping(b"between")
        await asyncio.sleep(0)
        await view.send_frame(Frame(CONTINUATION, True, b"lo"))
        await later
        frames = [await session.peer.frame() for _ in range(4)]
        assert [frame.payload for frame in frames] == [b"Hel", b"between", b"lo", b"later"]


async def test_an_ignored_stream_leaves_in_its_turn(connect):
    async with connect(Quiet) as session:
        view = session.view
        await view.send_frame(Frame(TEXT, False, b"Hel"))
        stream = view.send(["str", "eam"])
        later = asyncio.create_task(view.send("later"))
        await asyncio.sleep(0)
        await view.send_frame(Frame(CONTINUATION, True, b"lo"))
        await later
        frames = [await session.peer.frame() for _ in range(6)]
        assert [frame.payload for frame in frames] == [b"Hel", b"lo", b"str", b"eam", b"", b"later"]
        await stream


async def test_a_sender_may_give_up_its_turn(connect):
    async with connect(Quiet) as session:
        view = session.view
        await view.send_frame(Frame(TEXT, False, b"Hel"))
        waiting = [asyncio.create_task(view.send(name)) for name in ("one", "two", "three")]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        await view.send_frame(Frame(CONTINUATION, True, b"lo"))
        waiting[0].cancel()  # its turn has come, and the message has left
        await asyncio.wait(waiting)
        assert [task.cancelled() for task in waiting] == [True, True, False]
        frames = [await session.peer.frame() for _ in range(4)]
        assert [frame.payload for frame in frames] == [b"Hel", b"lo", b"one", b"three"]


async def test_a_stream_in_a_task_leaves_before_later_messages(connect):
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        stream = asyncio.create_task(view.send(iter(["one, ", "two"])))
        await view.send("three")
        frames = [await peer.frame() for _ in range(4)]
        assert [frame.payload for frame in frames] == [b"one, ", b"two", b"", b"three"]
        await stream


async def test_streams_that_are_ignored_leave_in_the_order_of_calls(connect):
    async def asynchronous(parts):
        for part in parts:
            await asyncio.sleep(0)
            yield part

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            self.send(asynchronous(["a", "b"]))
            self.send(["c"])
            self.send("d")
            self.send(asynchronous("e"))
            await self.send("f")

    async with connect(View) as session:
        session.peer.send("go")
        frames = []
        while not frames or frames[-1].payload != b"f":
            frames.append(await session.peer.frame())
        assert b"".join(frame.payload for frame in frames) == b"abcdef"


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("kind", ["stream", "by frame", "in line", "slow peer", "thread"])
async def test_the_result_of_send_may_be_ignored_or_become_a_task(connect, kind, ignored):
    """On every path; a warning that it was never awaited would fail the test."""

    class ByFrame(Quiet):
        async def send_frame(self, frame):
            await asyncio.sleep(0)
            await super().send_frame(frame)

    view_class = ByFrame if kind == "by frame" else Quiet
    async with connect(view_class, **SLOW) as session:
        view, peer = session.view, session.peer
        loop = asyncio.get_running_loop()
        if kind == "in line":
            await view.send_frame(Frame(TEXT, False))
        elif kind == "slow peer":
            before, _ = await fill(view)
            assert before
        if kind == "thread":
            await loop.run_in_executor(None, view.send, "message")
        else:
            sending = view.send(["message"] if kind == "stream" else "message")
            assert asyncio.iscoroutine(sending)
            tasks = [] if ignored else [asyncio.create_task(sending), asyncio.ensure_future(view.send("and one"))]
            del sending
        if kind == "in line":
            await view.send_frame(Frame(CONTINUATION, True))
        payload = b""
        while payload != b"message":
            payload = (await peer.frame()).payload
        if kind != "thread":
            await asyncio.gather(*tasks)


async def test_the_result_of_send_may_be_awaited_twice(connect):
    async with connect(Quiet, **SLOW) as session:
        view, peer = session.view, session.peer
        while buffered(view) <= view.WRITE_LIMIT:
            sending = view.send_binary(bytes(65536))
        waiting = [asyncio.ensure_future(sending), asyncio.create_task(view.send("last"))]
        while await peer.message() != "last":
            pass
        await asyncio.gather(*waiting)
        await sending


@pytest.mark.parametrize("way", ["close", "their close"])
async def test_a_close_frame_leaves_behind_an_ignored_stream(connect, way):
    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            self.send(iter(["one, ", "two"]))
            if way == "close":
                await self.send_close(4000)

    async with connect(View) as session:
        session.peer.send("go", *([] if way == "close" else [Frame(CLOSE, payload=b"\x0f\xa0")]))
        frames = [await session.peer.frame() for _ in range(4)]
        assert [frame.payload for frame in frames] == [b"one, ", b"two", b"", b"\x0f\xa0"]


async def test_a_close_frame_cuts_off_a_message_in_frames_of_the_view(connect):
    """Further frames depend on code of the view, which may take any time."""
    go_on = asyncio.Event()

    class View(WebSocketView):
        MAX_FRAME_SIZE = 3

        async def on_receive(self, message, opcode):
            await self.send(message * 6)

        async def send_frame(self, frame):
            await super().send_frame(frame)
            if not frame.fin:
                await go_on.wait()

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("x")
        frame = await peer.frame()
        assert (frame.opcode, frame.fin, frame.payload) == (TEXT, False, b"xxx")
        await view.send_close(4000)
        go_on.set()
        assert (await peer.frame()).payload == b"\x0f\xa0"


# The loop goes on


class Nowhere:
    """A transport that is never full."""

    def is_closing(self):
        return False

    def write(self, data):
        pass

    def get_write_buffer_size(self):
        return 0


@pytest.mark.parametrize("kind", ["messages", "parts", "compressed"])
async def test_a_sender_without_pause_lets_others_proceed(connect, kind):
    """The peer reads so fast that the sender never has to wait."""
    turns, enough = 0, 3
    loop = asyncio.get_running_loop()
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"} if kind == "compressed" else {}
    async with connect(Quiet, headers=headers) as session:
        view, protocol = session.view, session.view._protocol
        transport, protocol.transport, protocol.fd = protocol.transport, Nowhere(), -1
        end = time.monotonic() + 10

        def count():
            nonlocal turns
            turns += 1
            loop.call_soon(count)

        def parts():
            while turns < enough and time.monotonic() < end:
                yield "x" * 100

        loop.call_soon(count)
        if kind == "parts":
            await view.send(parts())
        while turns < enough and time.monotonic() < end:
            await view.send("x" * 1000)
        protocol.transport = transport
        transport.abort()
        assert turns >= enough
