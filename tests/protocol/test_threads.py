"""Sending from other threads and other event loops: the call is scheduled in the thread of the connection."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, State, WebSocketView
from duck.contrib.websockets.protocol.protocol import ConnectionProtocol
from duck.contrib.websockets.protocol.threadsafe import call_threadsafe
from duck.contrib.websockets.sansio.connection import Connection

from ..support.servers import SLOW


class Quiet(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(threading.current_thread().name)


async def elsewhere(function, *args):
    """Calls a function in a thread that has no event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


async def in_another_loop(make):
    """Awaits the result of `make` on the event loop of another thread."""

    async def main():
        return await make()

    return await elsewhere(lambda: asyncio.run(main()))


async def test_every_method_of_sending_works_from_another_loop(connect):
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer
        assert await in_another_loop(lambda: view.send("text")) is None
        await in_another_loop(lambda: view.send_binary(bytearray(b"bytes")))
        await in_another_loop(lambda: view.send_json({"a": 1}))
        await in_another_loop(lambda: view.send_ping(b"?"))
        await in_another_loop(lambda: view.send_pong(b"!"))
        await in_another_loop(lambda: view.send_frame(Frame(OpCode.TEXT, payload=b"frame")))
        await in_another_loop(lambda: view.send(["one", "two"]))
        frames = [await peer.frame() for _ in range(8)]
        assert [frame.payload for frame in frames[:6]] == [b"text", b"bytes", b'{"a": 1}', b"?", b"!", b"frame"]
        assert [frame.payload for frame in frames[6:]] == [b"one", b"two"]


async def test_an_override_is_called_once_for_a_call_from_another_loop(connect):
    called = []

    class View(Quiet):
        def send_frame(self, frame):
            called.append(frame.payload)
            return super().send_frame(frame.replace(payload=frame.payload + b"!"))

        async def ping(self):
            called.append("ping")
            return await super().ping()

        def send_close(self, *args):
            called.append("send_close")
            return super().send_close(*args)

        async def safe_close(self, *args):
            called.append("safe_close")
            await super().safe_close(*args)

    async with connect(View) as session:
        view = session.view
        await in_another_loop(lambda: view.send_frame(Frame(OpCode.TEXT, payload=b"text")))
        assert await session.peer.message() == "text!"
        pinging = asyncio.ensure_future(in_another_loop(view.ping))
        ping = await session.peer.frame()
        session.peer.pong(ping.payload[:-1])
        assert await pinging == view.latency
        closing = asyncio.ensure_future(in_another_loop(lambda: view.close(4000)))
        assert await session.peer.closing() == (4000, "")
        session.peer.close(4000)
        await closing
        assert called == [b"text", "ping", ping.payload[:-1], "send_close", "safe_close"]


async def test_a_thread_without_a_loop_may_send(connect):
    """The call behaves as with `asyncio.run_coroutine_threadsafe`."""
    loop = asyncio.get_running_loop()
    async with connect(Quiet) as session:

        def send():
            asyncio.run_coroutine_threadsafe(session.view.send("from a thread"), loop).result(5)

        await elsewhere(send)
        assert await session.peer.message() == "from a thread"


async def test_another_loop_may_close_the_connection(connect):
    async with connect(Quiet) as session:
        await in_another_loop(lambda: session.view.send_close(4000, "from afar"))
        assert await session.peer.closing() == (4000, "from afar")
        closing = asyncio.create_task(in_another_loop(session.view.safe_close))
        session.peer.close()
        await closing
        await session.ended()
        assert session.view.state is State.CLOSED


async def test_another_thread_may_terminate_the_connection(connect):
    ended = asyncio.Event()

    class Waiting(Quiet):
        async def on_receive(self, message, opcode):
            await self.send("waits")
            await asyncio.get_running_loop().create_future()

        async def on_close(self, frame):
            ended.set()

    asyncio.get_running_loop().set_debug(True)  # the loop refuses calls from other threads
    async with connect(Waiting) as session:
        session.peer.send("a message")
        assert await session.peer.message() == "waits"
        await elsewhere(session.view.terminate)
        assert await session.peer.closing() == (1001, "")
        await ended.wait()


async def cancelled():
    """The parts of a message, which wait for something that is cancelled."""
    waiting = asyncio.get_running_loop().create_future()
    waiting.cancel()
    yield await waiting


async def test_errors_reach_the_calling_thread_and_are_not_logged_too(connect, log):
    async with connect(Quiet) as session:
        view = session.view
        with pytest.raises(TypeError):
            await in_another_loop(lambda: view.send(5))
        with pytest.raises(ValueError, match="125 bytes"):
            await in_another_loop(lambda: view.send_ping(bytes(126)))
        with pytest.raises(ValueError, match="cannot be sent"):
            await in_another_loop(lambda: view.send_close(1005 + 1))
        with pytest.raises(asyncio.CancelledError):  # not ConnectionClosed
            await in_another_loop(lambda: view.send(cancelled()))
        session.peer.close()
        await session.ended()
        with pytest.raises(ConnectionClosed):
            await in_another_loop(lambda: view.send("x"))
        await elsewhere(view.send, "to a closed connection, which is no fault of the sender")
    gc.collect()
    assert not log()


async def test_a_task_that_is_cancelled_before_it_waits_withdraws_no_message(connect):
    """The message was queued by the call, as on the loop of the connection."""
    async with connect(Quiet) as session:

        async def send_and_cancel():
            for data in ("message", ["a ", "stream"]):
                sending = asyncio.ensure_future(session.view.send(data))
                sending.cancel()
                await asyncio.wait([sending])

        await send_and_cancel()
        await in_another_loop(send_and_cancel)
        frames = [await session.peer.frame() for _ in range(8)]
        assert [frame.payload for frame in frames] == [b"message", b"a ", b"stream", b""] * 2


async def test_a_cancellation_in_another_loop_ends_the_sending_of_a_stream(connect):
    begun = threading.Event()
    async with connect(Quiet) as session:
        ended = asyncio.Event()

        async def parts():
            yield "one"
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def send_and_cancel():
            sending = asyncio.ensure_future(session.view.send(parts()))
            await asyncio.sleep(0)  # in which it begins to wait
            await asyncio.to_thread(begun.wait)
            sending.cancel()

        await in_another_loop(send_and_cancel)
        await ended.wait()
        assert (await session.peer.frame()).payload == b"one"
        assert await session.peer.closing() == (1011, "message not finished")


async def test_messages_of_many_threads_arrive_whole_and_in_order(connect):
    threads, count = 8, 50
    async with connect(Quiet) as session:
        view, peer = session.view, session.peer

        def send(name):
            async def main():
                for i in range(count):
                    size = 70_000 if i % 10 == 0 else 10
                    await view.send(f"{name}:{i}:" + "x" * size)

            asyncio.run(main())

        with ThreadPoolExecutor(threads) as pool:
            sending = [asyncio.get_running_loop().run_in_executor(pool, send, name) for name in range(threads)]
            seen = {str(name): [] for name in range(threads)}
            for _ in range(threads * count):
                name, i, rest = (await peer.message()).split(":")
                seen[name].append(int(i))
                assert len(rest) == (70_000 if int(i) % 10 == 0 else 10)
            await asyncio.gather(*sending)
        assert all(numbers == list(range(count)) for numbers in seen.values())


async def test_hooks_run_in_the_thread_of_the_connection(connect):
    async with connect(Quiet) as session:
        session.peer.send("x")
        assert await session.peer.message() == threading.current_thread().name


async def test_back_pressure_reaches_other_threads(connect):
    async with connect(Quiet, **SLOW) as session:
        sent, begun = [], asyncio.Event()
        loop = asyncio.get_running_loop()

        async def flood():
            for i in range(200):
                await session.view.send_binary(bytes(65536))
                sent.append(i)
                loop.call_soon_threadsafe(begun.set)

        sending = asyncio.create_task(in_another_loop(flood))
        await begun.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sending), 0.2)
        assert 0 < len(sent) < 200
        for _ in range(200):
            await session.peer.message()
        await sending


def test_sending_raises_once_the_loop_of_the_connection_is_closed(run, connect):
    """A second close has no effect, and nothing hangs."""

    async def ended():
        async with connect(Quiet) as session:
            session.peer.close()
            await session.ended()
        return session.view

    async def late(view):
        await view.send_close()
        await view.safe_close()
        for data in ("late", ["late"], b"late"):
            with pytest.raises(ConnectionClosed):
                await view.send(data)

    async def reopen(view):
        view._protocol = ConnectionProtocol(view, Connection(), handle=view.on_receive)

    view = run(ended())
    with ThreadPoolExecutor(1) as pool:
        for again in (False, True):
            if again:  # as if the loop had been closed while the connection is open
                pool.submit(asyncio.run, reopen(view)).result()
            asyncio.run(late(view))


async def test_a_sender_learns_that_the_loop_was_closed_meanwhile():
    class Protocol:
        lost = False

        def __init__(self, loop):
            self.loop = loop

        def closed_error(self):
            return ConnectionClosed(1006)

    async def send():
        raise AssertionError("the loop does not run any more")

    loop = asyncio.new_event_loop()
    sending = call_threadsafe(Protocol(loop), send)
    closing = call_threadsafe(Protocol(loop), send, closes=True)
    loop.close()
    with pytest.raises(ConnectionClosed):
        await sending
    await closing


async def test_an_error_without_a_waiter_is_logged_at_once(connect, log, until):
    gc.disable()  # a garbage collection may come late
    try:
        async with connect(Quiet) as session:

            def send():  # returns nothing, because the future of a thread's result is in a cycle
                _ = session.view.send_ping(bytes(126))

            await elsewhere(send)
            await until(log)
    finally:
        gc.enable()
    (entry,) = log()
    assert "125 bytes" in str(entry.error)
