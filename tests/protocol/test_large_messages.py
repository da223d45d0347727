"""Large compressed messages: a thread compresses and decompresses them, and the rules of other messages apply."""

import asyncio
import threading
import zlib

import pytest

from duck.contrib.websockets import (
    Compression,
    Frame,
    OpCode,
    broadcast,
)
from duck.contrib.websockets.codec import deflate
from duck.contrib.websockets.protocol import loop
from duck.contrib.websockets.sansio.payloads import parse_close

from ..support.views import Echo, Recorder
from .large import LARGE, MIB, OFFER, Client, broken, compressed, far_end, text

# In order


@pytest.mark.usefixtures("each_backend")
async def test_messages_of_all_sizes_keep_their_order(connect):
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        messages = [LARGE[0], b"small", LARGE[1], LARGE[2], b"", LARGE[0], LARGE[0][:5000], LARGE[3]]
        for _ in range(2):
            client.send(*messages)
            for message in messages:
                assert await client.message() == message


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("alone", [False, True])
async def test_contexts_are_taken_over_or_not(connect, alone):
    class View(Echo):
        COMPRESSION = Compression(server_context_takeover=not alone)

    async with connect(View, headers=OFFER) as session:
        client = Client(session.peer)
        tail = LARGE[0][-2000:]
        client.send(LARGE[0], tail)
        assert await client.message() == LARGE[0]
        first, payload = await session.peer.joined()
        assert first & 0b01000000
        assert (len(payload) < 500) is not alone  # it has been in the message before
        reader = zlib.decompressobj(-12, b"" if alone else LARGE[0][-4096:])
        assert reader.decompress(payload + b"\x00\x00\xff\xff") == tail


async def test_messages_leave_in_the_order_of_calls(connect):
    """Regardless of the order in which the sends are awaited."""

    class View(Echo):
        MAX_FRAME_SIZE = 200_000  # so that some leave in fragments

    async with connect(View, headers=OFFER) as session:
        view, client = session.view, Client(session.peer)
        messages = [LARGE[0], b"one", LARGE[1], LARGE[2][:150_000], b"two", b"three", LARGE[3]]
        sent = [view.send_binary(message) for message in messages]
        stream = asyncio.create_task(view.send_binary(part for part in (b"st", b"ream")))
        sent += [view.send_binary(LARGE[1]), view.send("last")]
        for waiting in reversed(sent):
            await waiting
        await stream
        for message in (*messages, b"stream", LARGE[1], b"last"):
            assert await client.message() == message


@pytest.mark.usefixtures("each_backend")
async def test_large_messages_pass_through_send_frame_and_read_frame(connect):
    class View(Echo):
        async def send_frame(self, frame):
            await super().send_frame(frame)

        async def read_frame(self):
            return await super().read_frame()

    async with connect(View, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0], b"small", LARGE[1])
        for message in (LARGE[0], b"small", LARGE[1]):
            assert await client.message() == message


async def test_no_thread_is_started_for_small_messages(connect, monkeypatch):
    def threads():
        raise AssertionError("a thread is to be started")

    monkeypatch.setattr(loop, "threads", threads)
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        for size in (0, 300, 60_000):
            client.send(LARGE[0][:size])
            assert await client.message() == LARGE[0][:size]
    async with connect(Echo) as session:  # nor for large ones that are not compressed
        session.peer.send(LARGE[0])
        assert await session.peer.message() == LARGE[0]


async def test_a_message_to_many_is_compressed_once_on_the_loop_or_from_1_mib_on_in_threads(connect, monkeypatch):
    class View(Echo):
        MAX_FRAME_SIZE = 2 * MIB

    threads = []
    deflater = deflate.Backend.deflater

    def noted(self, *args):
        threads.append(threading.current_thread())
        return deflater(self, *args)

    monkeypatch.setattr(deflate.Backend, "deflater", noted)
    here = threading.current_thread()
    async with connect(View, headers=OFFER) as one, connect(View, headers=OFFER) as other:
        clients = [Client(one.peer), Client(other.peer)]
        for size, is_shared in (MIB, True), (MIB + 2, False):
            message = text(5, size)
            assert broadcast([one.view, other.view], message) == 2
            for client in clients:
                assert await client.message() == message
            assert (threads == [here]) if is_shared else (len(threads) == 2 and here not in threads)
            threads.clear()


@pytest.fixture
def no_more_threads(monkeypatch):
    """Returns a function after whose call no thread of the pool can start, as at a limit of the system."""
    monkeypatch.setattr(loop, "_local", threading.local())
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("duck-deflate"):
            raise RuntimeError("can't start new thread")
        start(thread)

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("each_backend")
async def test_large_messages_need_no_thread(connect, no_more_threads):
    no_more_threads()
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0], b"small", LARGE[1])
        for message in (LARGE[0], b"small", LARGE[1]):
            assert await client.message() == message


def test_a_job_for_which_no_thread_can_start_runs_once(no_more_threads):
    """The queue of the busy threads keeps the job, and they must not take it later."""
    ran = []

    async def scenario():
        running, busy = asyncio.get_running_loop(), threading.Event()
        first = loop.in_thread(running, busy.wait)
        pool = loop.threads()
        no_more_threads()
        try:
            assert await loop.in_thread(running, ran.append, 1) is None
            with pytest.raises(ZeroDivisionError):
                await loop.in_thread(running, divmod, 1, 0)
        finally:
            busy.set()
        await first
        pool.shutdown()

    asyncio.run(scenario())
    assert ran == [1]


# The loop is free


@pytest.mark.parametrize("method", ["decode", "compress"])
async def test_other_connections_are_served_meanwhile(serving, dial, gate, method):
    held = gate(method)
    async with serving(Echo) as server, dial(server, headers=OFFER) as one, dial(server) as other:
        await one.head()
        await other.head()
        client = Client(one)
        client.send(LARGE[0], b"behind")
        await held.entered.wait()
        other.send("quick")
        assert await other.message() == "quick"
        held.open()
        assert await client.message() == LARGE[0]
        assert await client.message() == b"behind"


async def test_pings_are_answered_while_a_message_is_decompressed(connect, gate):
    held = gate("decode")
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0], b"later", Frame(OpCode.PING, payload=b"there?"))
        await held.entered.wait()
        assert (await client.frame()).payload == b"there?"
        held.open()
        assert await client.message() == LARGE[0]
        assert await client.message() == b"later"


async def test_control_frames_leave_while_a_message_is_compressed(connect, gate):
    held = gate("compress")
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0])
        await held.entered.wait()
        client.send(Frame(OpCode.PING, payload=b"there?"))
        assert (await client.frame()).payload == b"there?"
        await session.view.send_ping(b"and you?")
        assert (await client.frame()).payload == b"and you?"
        with pytest.raises(RuntimeError, match="no message to continue"):
            await session.view.send_frame(Frame(OpCode.CONTINUATION, payload=b"x"))
        held.open()
        assert await client.message() == LARGE[0]


async def test_messages_behind_a_large_one_are_bounded(connect, gate):
    class View(Echo):
        SLOW_CONSUMER = "drop"

    held = gate("compress")
    async with connect(View, headers=OFFER) as session:
        client, view = Client(session.peer), session.view
        sent = [asyncio.create_task(view.send(LARGE[0]))]
        await held.entered.wait()
        message = text(1, 1000)
        sent += [asyncio.create_task(view.send(message)) for _ in range(500)]
        await asyncio.sleep(0)
        passed = view.WRITE_LIMIT // len(message) + 1
        assert view.dropped == 500 - passed
        held.open()
        await asyncio.gather(*sent)
        assert [await client.message() for _ in range(1 + passed)] == [LARGE[0]] + [message] * passed
        await view.send(message)
        assert await client.message() == message
        assert view.dropped == 500 - passed


# Malformed messages


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (broken(), 1002),
        (compressed(far_end(), text(9, 3 * MIB), OpCode.BINARY), 1009),
        (compressed(far_end(), LARGE[0] + b"\xff"), 1007),
    ],
    ids=["garbage", "too large", "not UTF-8"],
)
async def test_a_large_message_that_is_refused_hides_those_behind_it(connect, gate, message, code):
    class View(Recorder):
        MAX_FRAME_SIZE = 2 * MIB

    held = gate("decode")
    async with connect(View, headers=OFFER) as session:
        client = Client(session.peer)
        session.peer.write(compressed(client.end, b"before") + message + compressed(far_end(), LARGE[0]) * 2)
        await held.entered.wait()
        held.open()
        assert await client.message() == b"before"
        assert await client.closing() == code
        session.peer.shut()
        await session.ended()
        assert session.view.events == ["open", b"before", ("close", None)]


@pytest.mark.parametrize("wrong", [b"\x83\x80\0\0\0\0", broken(100)], ids=["a reserved opcode", "garbage"])
async def test_a_breach_is_answered_after_the_large_message_before_it(connect, wrong):
    async with connect(Echo, headers=OFFER) as session:
        client = Client(session.peer)
        session.peer.write(compressed(client.end, LARGE[0]) + wrong + compressed(far_end(), LARGE[1]))
        assert await client.message() == LARGE[0]
        assert await client.closing() == 1002


async def test_a_large_message_behind_a_breach_is_not_decompressed(connect, gate):
    class View(Recorder):
        pass

    held = gate("decode")
    async with connect(View, headers=OFFER) as session:
        client = Client(session.peer)
        session.peer.write(broken(100) + compressed(far_end(), LARGE[1]))
        assert await client.closing() == 1002
        session.peer.shut()
        await session.ended()
        assert not held.entered.is_set()
        assert session.view.events == ["open", ("close", None)]


async def test_the_rate_limit_holds_for_large_messages(connect):
    class View(Echo):
        RATE_LIMIT = 2

    async with connect(View, headers=OFFER) as session:
        client = Client(session.peer)
        client.send(LARGE[0], b"two", *[b"more"] * 20)
        assert await client.message() == LARGE[0]
        assert await client.message() == b"two"
        frame = await client.frame()
        while frame.payload == b"more":  # the bucket fills as time goes by
            frame = await client.frame()
        assert parse_close(frame.payload)[0] == 1008


# ASGI


async def test_an_asgi_application_gets_large_messages_in_order(serving_asgi, dial):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            events.append(event["text"].encode())
            await send({"type": "websocket.send", "text": event["text"]})
        events.append(event["code"])

    async with serving_asgi(app) as server, dial(server, headers=OFFER) as peer:
        await peer.head()
        client = Client(peer)
        client.send(LARGE[0], b"small", LARGE[1])
        for message in (LARGE[0], b"small", LARGE[1]):
            assert await client.message() == message
        peer.close()
        assert await client.closing() == 1000
    assert events == [LARGE[0], b"small", LARGE[1], 1000]
