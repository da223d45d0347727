"""Sends side by side: each leaves whole, in the order of calls, whether it is awaited or how."""

import asyncio
import random

import pytest

from duck.contrib.websockets import Frame, OpCode, WebSocketView

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


class Quiet(WebSocketView):
    """Is told by the test what to send."""

    async def on_receive(self, message, opcode):
        raise AssertionError("nothing is sent to this view")


# Awaiting


def test_it_is_sent_whether_it_is_awaited_or_not(run, connect):
    async def scenario():
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

    run(scenario())


def test_a_send_takes_no_pass_of_the_loop(run, connect):
    async def scenario():
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

    run(scenario())


# Order


@pytest.mark.parametrize("max_frame_size", [1000, None])
def test_concurrent_sends_leave_whole_and_in_order(run, connect, max_frame_size):
    """Small ones, fragmented ones and streams, in 100 tasks; pings go between as they like."""

    class View(Quiet):
        MAX_FRAME_SIZE = max_frame_size

    chance = random.Random(2)

    async def stream(parts, delays):
        for part, delay in zip(parts, delays, strict=True):
            for _ in range(delay):
                await asyncio.sleep(0)
            yield part

    async def scenario():
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

    run(scenario())


def test_control_frames_leave_inside_a_fragmented_message(run, connect):
    async def scenario():
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

    run(scenario())


def test_a_stream_that_nobody_awaits_holds_up_nobody(run, connect):
    async def scenario():
        async with connect(Quiet) as session:
            view = session.view
            await view.send_frame(Frame(TEXT, False, b"Hel"))
            stream = view.send(["str", "eam"])
            later = asyncio.create_task(view.send("later"))
            await asyncio.sleep(0)
            await view.send_frame(Frame(CONTINUATION, True, b"lo"))
            await later
            await stream
            frames = [await session.peer.frame() for _ in range(6)]
            assert [frame.payload for frame in frames] == [b"Hel", b"lo", b"later", b"str", b"eam", b""]

    run(scenario())


def test_whoever_waits_for_a_turn_may_give_up(run, connect):
    async def scenario():
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

    run(scenario())
