"""Threads that run at the same time, as they do where Python has no GIL: loops side by side, and views across them.

Builds without a GIL are declared safe (`freethreading_compatible` in the codec) because this passes there.
"""

import asyncio
import itertools
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, WebSocketView

THREADS = 4
TEXT = "hello, wörld, 世界 \U0001f986 " * 40


@pytest.fixture(autouse=True)
def often():
    """Threads exchange the GIL, if there is one, as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def in_threads():
    """Calls a function with 0, 1, ... in THREADS threads, which begin together; returns the results."""

    def run(function, count=THREADS):
        barrier = threading.Barrier(count, timeout=60)

        def begin(number):
            barrier.wait()
            return function(number)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(begin, range(count)))

    return run


@pytest.fixture
def in_loops(in_threads):
    """The same for a coroutine function, on a loop in each thread; raises exceptions that only the loops have seen."""

    def run(scenario, count=THREADS):
        async def main(number):
            unseen = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
            async with asyncio.timeout(60):
                given = await scenario(number)
            assert not unseen
            return given

        return in_threads(lambda number: asyncio.run(main(number)), count)

    return run


def test_a_build_without_a_gil_stays_without():
    """The import of a module that is not declared safe would bring the GIL back."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a GIL")
    assert not sys._is_gil_enabled()


def test_the_codec_may_be_used_in_all_threads_at_once(codec, in_threads):
    data, mask = TEXT.encode() * 20, b"\x02\x81\x21\x3d"
    masked = codec.apply_mask(data, mask)
    frame = codec.serialize(0x81, data, mask)

    def work(number):
        for _ in range(200):
            assert codec.apply_mask(masked, mask) == data
            assert codec.utf8_state(data) == 0
            assert codec.serialize(0x81, data, mask) == frame
            assert codec.parse_header(frame, True, False, 2**20)[2] == len(data)
            reader = codec.MessageReader(2**20, True, False)
            assert reader.receive(frame[:5000]) == []
            assert reader.receive(frame[5000:] + frame) == [(1, data)] * 2

    in_threads(work)


class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        if message.startswith(b"hello"):
            await asyncio.sleep(0)  # a handler that waits has a task of its own
        await self.send(message, opcode)


def test_each_thread_may_have_a_server(in_loops, serving, dial):
    """Connections open, exchange messages and end, in all threads at the same time."""
    small, large = [f"{i}" for i in range(200)], [bytes([i]) * 100_000 for i in range(5)]
    pieces = [Frame(OpCode.TEXT, False, b"1, "), Frame(OpCode.PING, payload=b"?"), Frame(0, True, b"2")]

    async def talk(server):
        async with dial(server) as peer:
            assert (await peer.head())[0] == 101
            peer.send(*small)
            assert [await peer.message() for _ in small] == small
            for message in [TEXT, *large]:
                peer.send(message)
                assert await peer.message() == message
            peer.send(*pieces)
            frames = [await peer.but_pings() for _ in range(2)]
            assert [(frame.opcode, frame.payload) for frame in frames] == [(OpCode.PONG, b"?"), (OpCode.TEXT, b"1, 2")]
            peer.close()
            assert await peer.closing() == (1000, "")

    async def scenario(number):
        async with serving(Echo) as server:
            for _ in range(8):
                async with asyncio.TaskGroup() as group:
                    for _ in range(4):
                        group.create_task(talk(server))

    in_loops(scenario)


def test_views_may_send_to_views_of_other_loops(in_loops, serving, dial):
    """Each view forwards its messages to the view of the next thread, and receives those of the previous one."""
    views = [None] * THREADS
    ready, done = threading.Barrier(THREADS, timeout=60), threading.Barrier(THREADS, timeout=60)
    count = 300

    class Relay(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1  # so that the order is kept

        async def on_receive(self, message, opcode):
            number = int(message.split(b":")[0])
            await views[(number + 1) % THREADS].send(message, opcode)

    def messages(number):
        return [f"{number}:{i}:" + "x" * (70_000 if i % 20 == 0 else i) for i in range(count)]

    async def scenario(number):
        async with serving(Relay) as server, dial(server) as peer:
            assert (await peer.head())[0] == 101
            views[number], end = await server.views.get()
            await asyncio.to_thread(ready.wait)
            before = (number - 1) % THREADS
            for mine, expected in zip(messages(number), messages(before), strict=True):
                peer.send(mine)
                assert await peer.message() == expected
            await asyncio.to_thread(done.wait)  # no view ends while another sends to it
            peer.close()
            assert await peer.closing() == (1000, "")
            await end

    in_loops(scenario)


def test_sending_to_views_of_other_threads_is_refused_after_their_end(in_loops, serving, dial):
    views = []
    ready, done = threading.Barrier(THREADS, timeout=60), threading.Barrier(THREADS, timeout=60)
    home = 4

    async def at_home():
        async with serving(Echo) as server, AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(dial(server)) for _ in range(home)]
            for peer in peers:
                assert (await peer.head())[0] == 101
            pairs = [await server.views.get() for _ in peers]
            views.extend(view for view, _ in pairs)
            await asyncio.to_thread(ready.wait)
            for at, peer in enumerate(peers):
                for _ in range(20):
                    assert (await peer.message()).startswith("from ")
                if at % 2:
                    peer.leave()
                else:
                    peer.close()
                    await peer.rest()
            await asyncio.wait([end for _, end in pairs])
            await asyncio.to_thread(done.wait)  # a closed loop would lose the callback

    async def abroad(number):
        await asyncio.to_thread(ready.wait)
        for view in views:
            with pytest.raises(ConnectionClosed):
                for i in itertools.count():
                    await view.send(f"from {number}: {i}")
        await asyncio.to_thread(done.wait)

    in_loops(lambda number: abroad(number) if number else at_home())
