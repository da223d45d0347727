"""Histories on each of the brokers: members catch up on missed messages, without losses or duplicates."""

import asyncio
import random
import sys
from contextvars import ContextVar
from functools import partial

import pytest

from duck.contrib.websockets import OpCode, WebSocketView
from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.history import History
from duck.contrib.websockets.groups.memory import MemoryBroker
from duck.contrib.websockets.testing import connect

from ..support.redis import RedisServer
from ..support.waiting import begun
from .sink import Sink


@pytest.fixture(params=["memory", "redis"])
def new_rooms(request):
    """Makes groups with a history; those of one test share a broker."""
    if request.param == "memory":
        made = []
        return lambda **options: made[0] if made else made.append(Groups(**{"history": 1000} | options)) or made[0]
    server = request.getfixturevalue("shared_redis")
    prefix = f"{request.node.name}:"
    return lambda **options: Groups(server.url, prefix=prefix, **{"history": 1000} | options)


async def test_members_get_missed_messages(new_rooms, until):
    rooms = new_rooms()
    ids = [await rooms.publish("lobby", f"{number}") for number in range(5)]
    ids.append(await asyncio.to_thread(rooms.publish_sync, "lobby", "5"))
    assert len(set(ids)) == 6
    some, all_, new = Sink(), Sink(), Sink()
    assert await rooms.join(some, "lobby", since=ids[2])
    assert await rooms.join(all_, "lobby", since="")
    assert await rooms.join(new, "lobby")
    assert rooms.count("lobby") == 3
    ids.append(await rooms.publish("lobby", "live", exclude=new))
    await rooms.publish("lobby", "last")
    await until(lambda: new.messages)
    late = Sink()
    assert await rooms.join(late, "lobby", since=ids[-1])
    assert late.messages == ["last"]
    assert some.messages == ["3", "4", "5", "live", "last"]
    assert all_.messages == ["0", "1", "2", "3", "4", "5", "live", "last"]
    assert new.messages == ["last"]
    assert await rooms.join(some, "lobby", since=ids[0]), "it is a member already"
    assert some.messages[-1] == "last"
    await rooms.close()


async def test_a_join_within_a_process_ends_in_the_step_of_its_call():
    """Otherwise a test that publishes after `connect` would lose the message, with a history only."""
    rooms = Groups(history=10)

    class Room(WebSocketView):
        async def on_open(self):
            await rooms.join(self, "lobby")

    async with connect(Room) as ws:
        await rooms.publish("lobby", "quack")
        assert await ws.recv() == "quack"


class Slow(MemoryBroker):
    """Answers a subscription, or the request for a history, once it is told to."""

    def __init__(self, outcome=None):
        super().__init__(History(100, 60))
        self.outcome = outcome
        self.go_on = asyncio.Event()

    def connect(self, handler, loop):
        connection = super().connect(handler, loop)
        connection.subscribe, connection.after = self.subscribe, partial(self.after, connection.after)
        return connection

    async def subscribe(self, group):
        if self.outcome is not None:
            raise self.outcome

    async def after(self, after, *args):
        await self.go_on.wait()
        return await after(*args)


async def test_a_member_that_leaves_before_its_history_comes_gets_nothing():
    broker = Slow()
    rooms, member = Groups(broker, history=100), Sink()
    await rooms.publish("lobby", "early")
    (joining,) = await begun(rooms.join(member, "lobby", since=""))
    await rooms.leave(member, "lobby")
    broker.go_on.set()
    await joining
    assert not member.messages
    assert rooms.count("lobby") == 0


@pytest.mark.parametrize("since", [None, ""])
async def test_a_member_that_the_broker_refuses_is_not_added(since):
    rooms, member = Groups(Slow(BrokerError("not allowed")), history=100), Sink()
    with pytest.raises(BrokerError, match="not allowed"):
        await rooms.join(member, "lobby", since=since)
    assert rooms.count("lobby") == 0


async def test_a_join_whose_history_does_not_reach_back_is_incomplete(new_rooms):
    rooms = new_rooms(history=1)
    first = await rooms.publish("lobby", "first")
    for number in range(300):
        last = await rooms.publish("lobby", f"{number}")
    late, other = Sink(), Sink()
    assert not await rooms.join(late, "lobby", since=first)
    epoch, place = last.split(".")
    assert not await rooms.join(other, "lobby", since=f"{epoch[::-1]}.{place}")
    assert late.messages == other.messages == []
    await rooms.close()


async def test_a_member_that_has_missed_as_many_messages_as_are_kept_gets_them_all(new_rooms):
    """Redis drops messages from a history by the hundred."""
    rooms = new_rooms(history=100)
    ids = []
    for number in range(301):
        ids.append(await rooms.publish("lobby", f"{number}"))
        if number in (100, 199, 200, 299, 300):
            late = Sink()
            assert await rooms.join(late, "lobby", since=ids[-101])
            assert late.messages == [str(missed) for missed in range(number - 99, number + 1)]
            await rooms.leave(late, "lobby")
    await rooms.close()


async def test_a_history_expires(new_rooms):
    rooms = new_rooms(history_ttl=0.05)
    await rooms.join(Sink(), "lobby")
    first = await rooms.publish("lobby", "first")
    await asyncio.sleep(0.2)
    late, whole = Sink(), Sink()
    assert await rooms.join(whole, "lobby", since="")
    assert not await rooms.join(late, "lobby", since=first)
    assert late.messages == whole.messages == []
    second = await rooms.publish("lobby", "second")
    assert second.split(".")[0] != first.split(".")[0]
    await rooms.close()


async def test_every_message_arrives_exactly_once(new_rooms):
    """Members that join in the midst of publishing, each with an id that it may have."""
    rooms, writer = new_rooms(), new_rooms()
    count = 400
    ids = []
    sinks = []

    async def publish():
        for number in range(count):
            ids.append(await writer.publish("lobby", f"{number}"))
            if number % 7 == 0:
                await asyncio.sleep(0)

    async def join():
        while len(ids) < count:
            if ids:
                start = random.randrange(len(ids))
                sink = Sink()
                sinks.append((start, sink))
                assert await rooms.join(sink, "lobby", since=ids[start])
            await asyncio.sleep(random.random() * 0.005)

    await asyncio.gather(publish(), join(), join())
    async with asyncio.timeout(10):
        while any(not sink.messages or sink.messages[-1] != f"{count - 1}" for _, sink in sinks):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert sinks
    for start, sink in sinks:
        assert sink.messages == [str(number) for number in range(start + 1, count)]
    await rooms.close()
    await writer.close()


async def test_a_history_larger_than_the_buffers_is_sent_as_fast_as_it_is_read():
    rooms = Groups(history=100)
    for number in range(100):
        await rooms.publish("lobby", number.to_bytes(2) + bytes(65534), OpCode.BINARY)

    class Member(WebSocketView):
        COMPRESSION = False

        async def on_open(self):
            assert await rooms.join(self, "lobby", since="")

    async with connect(Member) as ws:
        for number in range(100):
            if number == 50:
                await rooms.publish("lobby", "live")
            assert int.from_bytes((await ws.recv())[:2]) == number
        assert await ws.recv() == "live"


async def test_a_message_that_stamp_cannot_take_is_missing_alone(new_rooms, until, log):
    def stamp(payload, place):
        return sys.exit(2) if payload == b"exit" else str(int(payload))

    rooms = new_rooms(stamp=stamp)
    live, late = Sink(), Sink()
    await rooms.join(live, "lobby")
    for text in ("1", "two", "exit", "3"):
        await rooms.publish("lobby", text)
    assert await rooms.join(late, "lobby", since="")
    await until(lambda: live.messages == late.messages == ["1", "3"])
    assert log()[0].message == "group 'lobby': a message is not delivered, because stamp has failed"
    await rooms.close()


async def test_stamp_sees_the_context_variables_of_the_creator(new_rooms, until):
    """A broker's tasks start in the context of the first member."""
    user = ContextVar("user", default="the creator")
    rooms, sink = new_rooms(stamp=lambda payload, place: user.get()), Sink()
    user.set("a member")
    await rooms.join(sink, "lobby")
    await rooms.publish("lobby", "x")
    await until(lambda: sink.messages == ["the creator"])
    await rooms.close()


async def test_stamp_adds_ids_to_messages(new_rooms, serving, dial):
    """A client that returns sends the last id that it has received."""

    def stamp(payload, place):
        return f"{place} {payload.decode()}"

    rooms = new_rooms(stamp=stamp)

    class Member(WebSocketView):
        async def on_receive(self, message, opcode):
            complete = await rooms.join(self, "lobby", since=message.decode())
            await self.send(f"{complete}")

    async with serving(Member) as server:
        async with dial(server) as peer:
            await peer.head()
            peer.send("")
            assert await peer.message() == "True"
            place = await rooms.publish("lobby", "one")
            assert await peer.message() == f"{place} one"
        await rooms.publish("lobby", "two")
        async with dial(server) as peer:
            await peer.head()
            peer.send(place)
            assert (await peer.message()).endswith(" two")
            assert await peer.message() == "True"
            await rooms.publish("lobby", b"three", OpCode.TEXT)
            assert (await peer.message()).endswith(" three")
    await rooms.close()


async def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="keep no history"):
        await Groups().join(Sink(), "lobby", since="")
    with pytest.raises(ValueError, match="not an id"):
        await Groups(history=1).join(Sink(), "lobby", since="nonsense")


def has(sink, count):
    return len(sink.messages) >= count


def expected(count):
    return [str(number) for number in range(count)]


async def test_members_catch_up_by_themselves(own_redis, until):
    """Messages of an absence of the subscriber are delivered later, so `on_gap` is not called."""
    own_redis.start()
    rooms, writer = Groups(own_redis.url, history=1000), Groups(own_redis.url, history=1000)
    one, two = Sink(), Sink()
    await rooms.join(one, "lobby")
    await rooms.join(two, "lobby")
    count = 0
    for _ in range(3):
        await writer.publish("lobby", f"{count}")
        await own_redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
        for _ in range(30):
            count += 1
            await writer.publish("lobby", f"{count}", exclude=None)
        count += 1
        await until(partial(has, one, count))
    assert one.messages == two.messages == expected(count)
    assert one.gaps == two.gaps == []
    await rooms.close()
    await writer.close()


async def test_a_gap_is_reported_where_the_server_has_lost_the_history(own_redis, until):
    own_redis.start()
    rooms = Groups(own_redis.url, history=1000)
    one = Sink()
    await rooms.join(one, "lobby")
    await rooms.publish("lobby", "before")
    await until(lambda: one.messages)
    own_redis.kill()
    own_redis.start()
    await until(lambda: one.gaps)
    await rooms.publish("lobby", "after")
    await until(lambda: len(one.messages) == 2)
    assert one.messages == ["before", "after"]
    await rooms.close()


async def test_members_catch_up_where_the_server_has_kept_the_history(tmp_path, until):
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    try:
        server.start()
        rooms = Groups(server.url, history=1000)
        one = Sink()
        await rooms.join(one, "lobby")
        await rooms.publish("lobby", "before")
        await until(lambda: one.messages)
        server.kill()
        server.start()
        writer = Groups(server.url, history=1000)
        await writer.publish("lobby", "meanwhile")
        await until(lambda: len(one.messages) == 2)
        assert one.messages == ["before", "meanwhile"]
        assert one.gaps == []
        await rooms.close()
        await writer.close()
    finally:
        server.kill()
