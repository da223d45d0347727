"""The state shared by the connections of one loop."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from duck.contrib.websockets.protocol.loop import clock, receive_buffer, threads


def test_each_loop_has_a_clock_of_its_own():
    async def own():
        loop = asyncio.get_running_loop()
        assert clock(loop) is clock(loop)
        return clock(loop)

    assert asyncio.run(own()) is not asyncio.run(own())


def test_a_loop_keeps_its_clock_while_another_one_runs_in_its_thread():
    async def own():
        return clock(asyncio.get_running_loop())

    with asyncio.Runner() as one, asyncio.Runner() as other:
        first = one.run(own())
        assert other.run(own()) is not first
        assert one.run(own()) is first


def test_connections_of_a_thread_share_their_buffer():
    async def scenario():
        loop = asyncio.get_running_loop()
        assert receive_buffer(loop) is receive_buffer(loop)
        assert receive_buffer(loop).window.obj is receive_buffer(loop).data

        def other_thread():
            return receive_buffer(loop)

        assert await asyncio.to_thread(other_thread) is not receive_buffer(loop)

    asyncio.run(scenario())


def test_threads_end_with_the_thread_of_their_loop():
    workers = []

    def work():
        assert threads() is threads()
        workers.append(threads().submit(threading.current_thread).result())

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert workers[0] is not workers[1]
    for worker in workers:
        worker.join()


LARGE_MESSAGE = """
import asyncio, random
from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing import connect

DATA = random.randbytes(300_000)  # so large that threads compress and decompress it

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

async def echo():
    async with connect(Echo, compression=True) as ws:
        await ws.send_binary(DATA)
        assert await ws.recv() == DATA
"""

FORK = """
import multiprocessing
from duck.contrib.websockets.protocol.loop import receive_buffer

class Forking(WebSocketView):
    async def on_receive(self, message, opcode):
        assert receive_buffer(asyncio.get_running_loop()).in_use
        child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(in_child()))
        child.start()
        await asyncio.to_thread(child.join)
        await self.send(str(child.exitcode))

async def in_child():
    assert not receive_buffer(asyncio.get_running_loop()).in_use
    await echo()

async def fork():
    async with connect(Forking, timeout=None) as ws:
        await ws.send("now")
        assert await ws.recv() == "0"

asyncio.run(echo())
asyncio.run(fork())
"""

AFTER_THE_MAIN_THREAD = """
import threading

def serve():
    threading.main_thread().join()
    asyncio.run(echo())
    print("the end")

threading.Thread(target=serve).start()
"""


def run_program(code):
    """Runs a program in a process of its own; returns its output."""
    command = [sys.executable, "-P", "-W", "ignore:This process:DeprecationWarning", "-c", LARGE_MESSAGE + code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_buffer_and_threads_of_its_own():
    """Those of the parent are in use, or do not run there."""
    run_program(FORK)


def test_large_messages_are_compressed_after_the_end_of_the_main_thread():
    """Python starts no thread then, but a server in another thread goes on."""
    assert run_program(AFTER_THE_MAIN_THREAD) == "the end\n"
