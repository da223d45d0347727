"""Frames that wait for those that follow within one iteration of a loop, on both codecs."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from duck.contrib.websockets.protocol.broadcast import Prepared

MANY = 16
ENOUGH = 2**20
PATIENCE = 60_000  # milliseconds; a busy machine does not exceed it


class Transport:
    """Its buffer is always empty."""

    def get_write_buffer_size(self):
        return 0

    aborts = 0

    def abort(self):
        self.aborts += 1


@pytest.fixture
def members(codec):
    """Makes connections of a loop, by default of the running one, whose writes are noted."""

    class Connection(codec.HotPath):
        def __init__(self, burst):
            self.writes = []
            self.fails = False
            self.reader, self.writer = codec.MessageReader(ENOUGH, False, False), codec.FrameWriter()
            self.buffer, self.burst = codec.ReceiveBuffer(ENOUGH), burst
            self.transport, self.fd, self.deflate, self.threshold = Transport(), -1, None, 0
            self.thread, self.max_size = threading.get_ident(), ENOUGH
            self.direct_in = self.direct_out = True

        def write_chunks(self, chunks):
            if self.fails:
                raise OSError("this connection takes nothing")
            self.writes.append(b"".join(chunks))

    def make(count=MANY, loop=None, patience=PATIENCE):
        burst = codec.Burst(loop or asyncio.get_running_loop(), patience)
        return [SimpleNamespace(_protocol=Connection(burst), number=number) for number in range(count)]

    return make


def frames(*texts):
    return b"".join(Prepared(text).frame for text in texts)


def writes_of(members):
    """The writes of each member, which must be the same."""
    first, *others = [member._protocol.writes for member in members]
    assert all(writes == first for writes in others)
    return first


def fan_out(codec, members, *texts):
    for text in texts:
        assert codec.fan_out(members, Prepared(text)) == (len(members), [])


async def test_a_lone_broadcast_is_written_at_once(codec, members):
    for number in range(3):
        everyone = members()
        fan_out(codec, everyone, "lone")
        assert writes_of(everyone) == [frames("lone")], number
        await asyncio.sleep(0)


async def test_broadcasts_behind_the_first_leave_together_in_the_next_iteration(codec, members):
    everyone = members()
    for _ in range(2):
        fan_out(codec, everyone, "a", "b", "c")
        assert writes_of(everyone) == [frames("a")]
        await asyncio.sleep(0)
        assert writes_of(everyone) == [frames("a"), frames("b", "c")]
        for member in everyone:
            member._protocol.writes.clear()


async def test_broadcasts_to_few_are_written_at_once(codec, members):
    everyone = members(MANY - 1)
    fan_out(codec, everyone, "a", "b")
    assert writes_of(everyone) == [frames("a"), frames("b")]


async def test_bursts_become_rare_after_lone_broadcasts_and_begin_again(codec, members):
    everyone = members()
    begun = []
    for number in range(100):
        fan_out(codec, everyone, "lone")
        if everyone[0]._protocol.burst.gathering:
            begun.append(number)
        await asyncio.sleep(0)
    assert begun == [0, 2, 6, 14, 30, 62, 94]
    for _ in range(codec.BURST_PAUSE + 1):
        for member in everyone:
            member._protocol.writes.clear()
        fan_out(codec, everyone, "a", "b")
        if writes_of(everyone) == [frames("a")]:
            break
        await asyncio.sleep(0)
    else:
        pytest.fail("no burst has begun")
    await asyncio.sleep(0)
    assert writes_of(everyone) == [frames("a"), frames("b")]


def test_nothing_waits_for_a_loop_that_does_not_run(codec, members):
    loop = asyncio.new_event_loop()
    everyone = members(loop=loop)
    fan_out(codec, everyone, "a", "b")
    loop.close()
    fan_out(codec, everyone, "c")
    assert writes_of(everyone) == [frames("a"), frames("b"), frames("c")]


async def test_the_first_waits_too_if_the_read_has_several_messages(codec, members):
    """The publisher is a member too, and gathers its messages until its read has been handled."""
    publisher, *others = everyone = members(MANY)
    path = publisher._protocol

    class Dispatcher:
        def deliver(self, messages):
            for _, text in messages:
                fan_out(codec, everyone, text)

    path.consumer = Dispatcher()
    read = frames("a", "b")
    path.buffer.data[: len(read)] = read
    path.buffer_updated(len(read))
    assert path.writes == [read]
    assert not path.burst.several
    assert writes_of(others) == []
    await asyncio.sleep(0)
    fan_out(codec, everyone, "c", "d")
    assert writes_of(everyone) == [read, frames("c")]
    await asyncio.sleep(0)
    assert writes_of(everyone) == [read, frames("c"), frames("d")]


async def test_a_send_keeps_its_place_among_the_waiting_frames(codec, members):
    everyone = members()
    fan_out(codec, everyone, "a", "b")
    one = everyone[3]._protocol
    await one.send("own", 1)
    fan_out(codec, everyone, "c")
    one.flush()
    assert one.writes == [frames("a"), frames("b", "own", "c")]
    fan_out(codec, everyone, "d")
    await asyncio.sleep(0)
    assert one.writes == [frames("a"), frames("b", "own", "c"), frames("d")]
    assert writes_of(everyone[4:]) == [frames("a"), frames("b", "c", "d")]


async def test_waiting_bytes_are_bounded(codec, members):
    everyone = members()
    half = "x" * (codec.BURST_LIMIT // 2)
    fan_out(codec, everyone, "first", half)
    assert writes_of(everyone) == [frames("first")]
    fan_out(codec, everyone, half)
    assert writes_of(everyone) == [frames("first"), frames(half, half)]
    fan_out(codec, everyone, half * 2, "last")
    assert writes_of(everyone)[2:] == [frames(half * 2)]
    await asyncio.sleep(0)
    assert writes_of(everyone)[3:] == [frames("last")]


async def test_the_time_of_waiting_is_bounded(codec, members):
    everyone = members(patience=codec.CORK_TIME)
    fan_out(codec, everyone, "a", "b")
    time.sleep(0.004 * codec.CORK_TIME)  # noqa: ASYNC251  a handler that blocks
    fan_out(codec, everyone, "c")
    assert b"".join(writes_of(everyone)) == frames("a", "b", "c")


async def test_a_connection_that_fails_keeps_nothing_from_the_others(codec, members):
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    everyone = members()
    fan_out(codec, everyone, "a", "b")
    failing = everyone.pop(5)._protocol
    failing.fails = True
    await asyncio.sleep(0)
    assert writes_of(everyone) == [frames("a"), frames("b")]
    assert failing.broken
    assert [str(error) for error in errors] == ["this connection takes nothing"]


async def test_a_connection_that_could_not_be_aborted_is_aborted_at_its_next_send(members):
    """Near the limit of recursion both may fail, and the later messages would be dropped without an end."""

    def abort():
        raise RecursionError

    (member,) = members(1)
    failing, transport = member._protocol, member._protocol.transport
    failing.fails, transport.abort = True, abort
    with pytest.raises(RecursionError):
        failing.send("lost", 1)
    del transport.abort
    failing.writer.write(0x81, b"dropped")
    failing.flush()
    assert (failing.writes, failing.writer.size, transport.aborts) == ([], 0, 1)


async def test_sends_of_a_read_with_several_messages_leave_together_too(members):
    """A view that forwards its messages to the view of another connection."""
    source, target = (member._protocol for member in members(2))

    class Dispatcher:
        def deliver(self, messages):
            for opcode, payload in messages:
                _ = target.send(payload, opcode)

    source.consumer = Dispatcher()
    read = frames("a", "b", "c")
    source.buffer.data[: len(read)] = read
    source.buffer_updated(len(read))
    assert target.writes == []
    await asyncio.sleep(0)
    assert target.writes == [read]
    await target.send("later", 1)
    assert target.writes == [read, frames("later")]


async def test_a_full_transport_or_the_read_of_its_own_holds_frames_longer(codec, members):
    everyone = members()
    fan_out(codec, everyone, "a")
    paused, corked, *others = everyone
    corked._protocol.cork()
    paused._protocol.writes_paused = True
    fan_out(codec, [corked, *others], "b")
    paused._protocol.write_prepared(Prepared("b"))
    await asyncio.sleep(0)
    assert writes_of(others) == [frames("a"), frames("b")]
    assert writes_of([paused, corked]) == [frames("a")]
    corked._protocol.uncork()
    paused._protocol.writes_paused = False
    paused._protocol.flush()
    assert writes_of(everyone) == [frames("a"), frames("b")]
