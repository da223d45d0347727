"""`recv` at the reads of a connection: the task that gets a message, its context, and messages left over."""

import asyncio
import os
from contextlib import suppress
from contextvars import ContextVar

import pytest

from duck.contrib.websockets import ConnectionClosed, WebSocketView, client
from duck.contrib.websockets.metrics import Metrics
from duck.contrib.websockets.testing import connect

from ..support.waiting import begun

KIB = 2**10
MINE = ContextVar("mine")


class Quiet(WebSocketView):
    async def on_receive(self, message, opcode):
        pass


def receive(ws, frame):
    """One read of the client's transport."""
    ws._protocol.get_buffer(-1)[: len(frame)] = frame
    ws._protocol.buffer_updated(len(frame))


async def called(function, *args):
    """Calls a function from a callback of the loop."""
    asyncio.get_running_loop().call_soon(function, *args)
    await asyncio.sleep(0)


async def test_a_task_cancelled_during_a_read_leaves_the_message_to_the_next():
    async with connect(Quiet) as ws:
        first, second, third = await begun(*(ws._inbox.next() for _ in range(3)))

        def read():
            first.cancel("a reason")
            receive(ws, b"\x81\x01a")
            assert second.done()
            third.cancel()
            receive(ws, b"\x81\x01b")

        await called(read)
        assert second.result() == "a"
        with pytest.raises(asyncio.CancelledError, match="a reason"):
            await first
        with pytest.raises(asyncio.CancelledError):
            await third
        assert await ws.recv() == "b"
        assert not ws._inbox.waiters


async def test_tasks_in_turn_keep_their_contexts_and_are_stepped_within_the_read():
    async with connect(Quiet) as ws:
        seen = []

        async def reader(number):
            MINE.set(number)
            while (message := await ws.recv()) != b"end":
                assert MINE.get() == number
                assert asyncio.current_task() is tasks[number]
                seen.append((number, message))
                if message == b"pause":
                    await asyncio.sleep(0)

        tasks = await begun(reader(0), reader(1))

        def read():
            for payload in (b"a", b"b", b"c"):
                receive(ws, b"\x82\x01" + payload)
            assert seen == [(0, b"a"), (1, b"b"), (0, b"c")]
            receive(ws, b"\x82\x05pause")
            receive(ws, b"\x82\x01d")
            receive(ws, b"\x82\x01e")
            receive(ws, b"\x82\x03end\x82\x03end")

        await called(read)
        await asyncio.gather(*tasks)
        assert seen[3:] == [(1, b"pause"), (0, b"d"), (0, b"e")]


async def test_ended_waits_leave_nothing():
    """A wait uses the future of the previous one, which an earlier timeout or cancellation must not affect."""
    async with connect(Quiet) as ws:
        gone = ws._inbox.next()
        (task,) = await begun(gone)
        await called(receive, ws, b"\x81\x01a")
        assert await task == "a"
        (task,) = await begun(ws._inbox.next())
        gone.fail(TimeoutError("late"))
        gone.close()
        await called(receive, ws, b"\x81\x01b")
        assert await task == "b"
        with pytest.raises(TimeoutError):
            await ws.recv(timeout=0)
        (task,) = await begun(ws._inbox.next())
        await called(receive, ws, b"\x81\x01c")
        assert await task == "c"


async def push(end):
    for _ in range(20):
        await end.send_binary(bytes(32 * KIB))


async def test_both_ends_may_send_more_than_their_transports_take():
    """A client reads while its own messages wait, or both ends would wait for each other."""

    class Pushing(WebSocketView):
        async def on_open(self):
            self.pushing = asyncio.create_task(push(self))

        async def on_receive(self, message, opcode):
            assert len(message) == 32 * KIB

    async with connect(Pushing, compression=False) as ws:
        pushing = asyncio.create_task(push(ws))
        for _ in range(20):
            assert len(await ws.recv()) == 32 * KIB
        await asyncio.gather(pushing, ws.view.pushing)


async def test_the_last_ping_of_a_server_that_does_not_read_is_answered_later(until):
    go_on = asyncio.Event()

    class Busy(WebSocketView):
        METRICS = Metrics()
        MAX_CONCURRENT_MESSAGES = 1
        MAX_WAITING_MESSAGES = 0

        async def on_receive(self, message, opcode):
            await go_on.wait()

    async with connect(Busy, compression=False) as ws:
        pushing = asyncio.create_task(push(ws))
        await until(lambda: ws.view._protocol.flow_control.holds and ws._protocol.writes_paused)
        pings = await begun(*(ws.view.ping() for _ in range(5)))
        await ws.view.send("read on")
        assert await ws.recv() == "read on"
        assert not pushing.done()
        go_on.set()
        await asyncio.gather(pushing, *pings)
        assert Busy.METRICS.stats().received["pong"] == 1


class Large(WebSocketView):
    """Sends a message that a thread decompresses."""

    data = os.urandom(400_000)

    async def on_open(self):
        await self.send_binary(self.data)


async def test_a_task_that_polls_gets_a_message_that_a_thread_decompresses(serving, until):
    async with serving(Large) as server, client.connect(server.addresses[0]) as ws:
        await until(lambda: ws._inbox.messages)
        received = None
        while received is None:
            with suppress(TimeoutError):
                received = await ws.recv(0)
            await asyncio.sleep(0.001)
        assert received == Large.data


async def test_a_large_message_that_waits_is_received_within_a_timeout(serving, until):
    async with serving(Large) as server, client.connect(server.addresses[0]) as ws:
        await until(lambda: ws._inbox.messages)
        assert await ws.recv(60) == Large.data


async def test_a_client_that_receives_nothing_notices_a_close_frame_with_the_loss(serving, until):
    class Flood(Quiet):
        async def on_open(self):
            for _ in range(client.ClientConnection.MAX_WAITING_MESSAGES + 1):
                _ = self.send("x")

    async with serving(Flood) as server, client.connect(f"ws://127.0.0.1:{server.port}/") as ws:
        view, _ = await server.views.get()
        await until(lambda: ws._protocol.flow_control.holds)
        (pinging,) = await begun(view.ping())
        await view.send_close(4000)
        for _ in range(10):
            await asyncio.sleep(0)
        assert ws.close_code is None
        view.terminate()
        assert await ws.wait_closed() == 4000
        with pytest.raises(ConnectionClosed):
            await pinging


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.in_memory
async def test_a_timeout_is_a_number_or_none(stream):
    """Checked at the call, whether or not a message waits; infinity is no limit, which a virtual clock cannot reach."""
    async with connect(Quiet, stream=stream, timeout=None) as ws:
        for receive in (ws.recv, ws.recv_json, ws.recv_stream, ws.wait_closed, super(type(ws), ws).recv):
            for wrong in ("5", True, [], 2j):
                with pytest.raises(TypeError, match="timeout is a number of seconds, or None for no limit"):
                    await receive(wrong)
            for wrong in (float("nan"), 10**400):
                with pytest.raises(ValueError, match="timeout is a number of seconds, or None for no limit"):
                    await receive(wrong)
            for passed in (0, -1, float("-inf"), 0.001):
                with pytest.raises(TimeoutError):
                    await receive(passed)
        for receive in (ws.recv, super(type(ws), ws).recv):
            (receiving,) = await begun(receive(float("inf")))
            await ws.view.send("a")
            assert await receiving == "a"
        with pytest.raises(ValueError, match="1 byte or more"):
            ws.slow_down(0)
        await ws.view.send("abc")
        with pytest.raises(TypeError, match="limit is a number of bytes"):
            await (await ws.recv_stream()).read("5")
        await ws.view.send("abc")
        with pytest.raises(ValueError, match="limit is 0 bytes or more"):
            await (await ws.recv_stream()).read(-1)
