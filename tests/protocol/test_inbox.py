"""Messages that tasks ask for, one at a time."""

import asyncio
import os
import zlib
from types import SimpleNamespace

import pytest

from duck.contrib.websockets import ConnectionClosed, ExtensionError, OpCode, PerMessageDeflate
from duck.contrib.websockets.codec import NextMessage
from duck.contrib.websockets.protocol.decoding import Decoding
from duck.contrib.websockets.protocol.flow_control import Hold
from duck.contrib.websockets.protocol.inbox import Inbox
from duck.contrib.websockets.sansio.connection import Connection

from ..support.waiting import begun

COMPRESSED = 0b01000000 | OpCode.BINARY


class Source:
    """A connection without a source of bytes."""

    counters = None

    def __init__(self, connection):
        self.connection = connection
        self.endpoint = SimpleNamespace(_label="/ducks")
        self.holds = Hold(0)
        self.refused = []

    def hold(self, reason):
        self.holds |= reason

    def release(self, reason):
        self.holds &= ~reason

    def refuse(self, error):
        self.refused.append(error)


def inbox_of(most=16, most_bytes=65536, *, compressed=False):
    """Within a loop: an inbox, and its connection."""
    inbox = Inbox(asyncio.get_running_loop(), most, most_bytes)
    deflate = PerMessageDeflate("permessage-deflate", client_no_context_takeover=True)
    source = Source(Connection(extensions=[deflate] if compressed else ()))
    inbox.attach(source)
    return inbox, source


def text(*payloads):
    return [(1, payload) for payload in payloads]


async def delivered(inbox, messages):
    """Delivers as a connection does: from a callback."""
    asyncio.get_running_loop().call_soon(inbox.deliver, messages)
    await asyncio.sleep(0)


def compressed(payload):
    compressor = zlib.compressobj(wbits=-15)
    return COMPRESSED, (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def test_messages_are_taken_in_order():
    inbox, _ = inbox_of()
    await delivered(inbox, text(b"1", b"2"))
    await delivered(inbox, text(b"3"))
    assert [await inbox.get() for _ in range(3)] == text(b"1", b"2", b"3")
    assert not inbox.messages
    assert inbox.take() is None


async def test_a_task_that_waits_is_stepped_within_the_delivery():
    inbox, _ = inbox_of()
    got = []

    async def take_two():
        got.append(await inbox.get())
        got.append(await inbox.get())

    (task,) = await begun(take_two())
    done = []

    def deliver():
        inbox.deliver(text(b"1"))
        done.append(list(got))
        inbox.deliver(text(b"2"))
        done.append(list(got))

    asyncio.get_running_loop().call_soon(deliver)
    await task
    assert done == [text(b"1"), text(b"1", b"2")]


async def test_each_message_goes_to_one_waiter():
    inbox, _ = inbox_of()
    tasks = await begun(*(inbox.get() for _ in range(3)))
    await delivered(inbox, text(b"1", b"2"))
    await delivered(inbox, text(b"3", b"4"))
    assert await asyncio.gather(*tasks) == text(b"1", b"2", b"3")
    assert await inbox.get() == (1, b"4")


async def test_cancelling_loses_no_message():
    inbox, _ = inbox_of()
    first, second = await begun(inbox.get(), inbox.get())
    first.cancel()
    await delivered(inbox, text(b"1"))
    assert await second == (1, b"1")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await inbox.get()
    (last,) = await begun(inbox.get())
    await delivered(inbox, text(b"2"))
    assert await last == (1, b"2")


async def test_deadlines_of_several_tasks_share_a_timer():
    inbox, _ = inbox_of()
    last, first, second = await begun(*(NextMessage(inbox, seconds) for seconds in (60, 0.001, 0.01)))
    for task, seconds in ((first, 0.001), (second, 0.01)):
        with pytest.raises(TimeoutError, match=f"no message from /ducks within {seconds} seconds"):
            await task
    await delivered(inbox, text(b"1"))
    assert await last == "1"
    with pytest.raises(TimeoutError, match="no message from /ducks within 0 seconds"):
        await NextMessage(inbox, 0)
    for task in await begun(NextMessage(inbox, 0), NextMessage(inbox, 0)):  # for which uvloop makes no timer
        with pytest.raises(TimeoutError):
            await task
    inbox.end()
    assert inbox._timer is None


async def test_remaining_messages_may_be_taken_after_the_end():
    inbox, source = inbox_of()
    await delivered(inbox, text(b"1"))
    source.connection.receive_eof()
    inbox.end()
    inbox.forget()
    assert await inbox.get() == (1, b"1")
    for _ in range(2):
        with pytest.raises(ConnectionClosed):
            await inbox.get()


async def test_all_waiters_learn_of_the_end():
    inbox, _ = inbox_of()
    tasks = await begun(inbox.get(), inbox.get())
    inbox.end()
    for task in tasks:
        with pytest.raises(ConnectionClosed):
            await task


@pytest.mark.parametrize(("most", "most_bytes"), [(4, 1000), (1000, 4)])
async def test_reading_pauses_beyond_the_limits(most, most_bytes):
    inbox, source = inbox_of(most, most_bytes)
    for _ in range(4):
        await delivered(inbox, text(b"x"))
    assert not source.holds
    await delivered(inbox, text(b"x"))
    assert source.holds == Hold.FRAMES
    for left in range(4, -1, -1):
        inbox.take()
        assert bool(source.holds) == (left > 2)


async def test_dropped_messages_wait_no_more():
    inbox, _ = inbox_of()
    await delivered(inbox, [(1, b"text"), (9, b"ping"), (2, b"binary")])
    inbox.drop_messages()
    assert await inbox.get() == (9, b"ping")
    assert not inbox.messages


async def test_a_message_dropped_while_a_thread_decodes_it_is_not_returned():
    inbox, _ = inbox_of(compressed=True)
    await delivered(inbox, [compressed(os.urandom(200_000)), (9, b"ping")])
    (task,) = await begun(inbox.get())
    inbox.drop_messages()
    assert await task == (9, b"ping")


async def test_compressed_messages_are_decoded_when_they_are_taken():
    """Small ones at once, large ones by a thread; several tasks wait for the same one."""
    noise = os.urandom(200_000)
    inbox, source = inbox_of(most_bytes=1 << 20, compressed=True)
    await delivered(inbox, [compressed(b"small"), (9, b""), compressed(noise), compressed(b"last")])
    assert [inbox.take(), inbox.take(), inbox.take()] == [(2, b"small"), (9, b""), None]
    tasks = await begun(inbox.get(), inbox.get())
    assert set(await asyncio.gather(*tasks)) == {(2, noise), (2, b"last")}
    assert not (inbox.messages or inbox.waiting_bytes)
    assert not source.holds


async def test_cancelling_a_thread_that_decodes_loses_no_message():
    noise = os.urandom(200_000)
    inbox, _ = inbox_of(compressed=True)
    await delivered(inbox, [compressed(noise)])
    (task,) = await begun(inbox.get())
    task.cancel()
    assert await inbox.get() == (2, noise)


@pytest.mark.in_memory
async def test_a_thread_that_decodes_does_not_prolong_the_wait_for_a_message(monkeypatch):
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Decoding, "start", lambda *_: loop.create_future())
    inbox, _ = inbox_of(compressed=True)
    (task,) = await begun(inbox.next(10))
    await asyncio.sleep(6)
    await delivered(inbox, [compressed(os.urandom(200_000))])
    with pytest.raises(TimeoutError, match="within 10 seconds"):
        await task
    assert loop.time() == pytest.approx(10)


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_message_that_cannot_be_decoded_ends_the_connection(size):
    """No later message is returned."""
    inbox, source = inbox_of(compressed=True)
    await delivered(inbox, [(COMPRESSED, b"\xff" * size), (2, b"next"), (9, b"ping")])
    assert await inbox.get() == (9, b"ping")
    (task,) = await begun(inbox.get())
    inbox.end()
    with pytest.raises(ConnectionClosed):
        await task
    (error,) = source.refused
    assert isinstance(error, ExtensionError)
