"""`VirtualTimeLoop`: timers take no time, and sockets and threads take theirs."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing import VirtualTimeLoop, connect, virtual_time
from duck.server import serve

from ..support.views import Echo


class Ticker(WebSocketView):
    """Sends a tick each minute, and needs an hour for a message."""

    async def on_open(self):
        self.ticking = asyncio.create_task(self.tick())

    async def tick(self):
        while True:
            await asyncio.sleep(60)
            await self.send("tick")

    async def on_receive(self, message, opcode):
        await asyncio.sleep(3590)
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        self.ticking.cancel()


@pytest.mark.in_memory
async def test_hours_take_no_time():
    loop, start = asyncio.get_running_loop(), time.monotonic()
    async with connect(Ticker, timeout=7200) as ws:
        assert [await ws.recv() for _ in range(3)] == ["tick"] * 3
        assert loop.time() == pytest.approx(180)
        await ws.send("hello")
        while await ws.recv() != "hello":
            pass
        assert loop.time() == pytest.approx(3770)
        assert await ws.recv() == "tick"
        await asyncio.sleep(10)
        with pytest.raises(TimeoutError, match=r"timeout after 40 seconds, waiting for a message: .*no hook of Ticker"):
            await ws.recv(timeout=40)
    assert time.monotonic() - start < 60


def test_a_timeout_ends_the_test_of_a_view_that_polls_without_end(monkeypatch):
    monkeypatch.setattr(virtual_time, "_MOST_BUSY", 0.01)

    class Polling(WebSocketView):
        async def on_receive(self, message, opcode):
            while True:  # noqa: ASYNC110
                await asyncio.sleep(0)

    with connect(Polling, timeout=0.05, loop_factory=VirtualTimeLoop) as ws:
        ws.send("")
        with pytest.raises(TimeoutError, match=r"Polling\.on_receive is at line"):
            ws.recv()


def test_a_busy_loop_stands_still_for_a_while():
    async def scenario():
        for _ in range(1000):
            await asyncio.sleep(0)
        assert asyncio.get_running_loop().time() == 0

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario())


def test_years_take_no_time():
    async def scenario():
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10 * 365 * 86_400)
        await asyncio.sleep(0.25)
        assert loop.time() == pytest.approx(315_360_000.25, abs=1e-5)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario())


@pytest.mark.in_memory
async def test_a_silent_client_is_closed_after_two_virtual_minutes():
    async with connect(Ticker, timeout=600) as ws:
        ws.stop_reading()
        assert await ws.wait_closed() == 1006
        assert (ws.view.close_code, ws.view.close_reason) == (1001, "nothing received for too long")
        assert 120 <= asyncio.get_running_loop().time() <= 145


def test_a_synchronous_test_may_have_virtual_time():
    with connect(Ticker, timeout=600, loop_factory=VirtualTimeLoop) as ws:
        assert [ws.recv(), ws.recv()] == ["tick", "tick"]
        with pytest.raises(TimeoutError, match="timeout after 40 seconds"):
            ws.recv(timeout=40)
        ws.stop_reading()
        assert ws.wait_closed() == 1006
        assert ws.view.close_code == 1001


@pytest.mark.in_memory
async def test_a_thread_takes_its_time():
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        await loop.run_in_executor(None, time.sleep, 0.01)
    assert 0.005 < loop.time() < 30
    ended = ThreadPoolExecutor()
    ended.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(ended, time.sleep, 0)
    await asyncio.sleep(3600)
    async with connect(Echo, timeout=30, compression=True) as ws:  # which threads compress and decompress
        await ws.send_binary(bytes(2**20))
        assert await ws.recv() == bytes(2**20)


def test_the_end_of_the_loop_waits_for_the_thread_of_a_cancelled_job():
    """It has a timeout of minutes, at which asyncio warns."""
    ended = []

    def work():
        time.sleep(0.05)
        ended.append(True)

    async def scenario():
        job = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.sleep(0)
        job.cancel()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(scenario())
    assert ended


@pytest.mark.in_memory
async def test_a_socket_takes_its_time(dial):
    """Time passes there as on other loops, as a peer may be anywhere."""
    loop = asyncio.get_running_loop()
    async with serve(Ticker, port=0) as server, dial(server) as peer:
        assert (await peer.head())[0] == 101
        start, before = time.monotonic(), loop.time()
        await asyncio.sleep(0.05)
        assert time.monotonic() - start >= 0.04
        assert loop.time() - before >= 0.04
        peer.leave()
