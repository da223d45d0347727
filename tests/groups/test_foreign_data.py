"""Data at Redis that something else has written: it is logged or refused, and concerns its own group alone."""

import asyncio

import pytest

from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.redis.presence import MARK

from .sink import Sink

FOREIGN = [
    b"by hand",
    MARK + b"nonsense",
    MARK + b"5",
    MARK + b"[1, 2]",
    MARK + b'[["odd"], []]',
    MARK + b"[[[], []], []]",
    MARK + b"[[], [[]]]",
    MARK + b"[[], [{}]]",
    MARK + b'[[1, "2"], []]',
    MARK + b'[["x.1", 2], []]',
    MARK + b'[["x.1", null], ["x.1"]]',
    MARK + b"[" * 100_000,
]


@pytest.fixture
def rooms(shared_redis, request):
    return Groups(shared_redis.url, prefix=f"{request.node.name}:", announce=lambda change: None, history=10)


@pytest.mark.parametrize("data", FOREIGN, ids=range(len(FOREIGN)))
async def test_a_foreign_message_on_a_channel_is_logged_and_no_group_is_deaf(shared_redis, rooms, until, log, data):
    here, there = Sink(), Sink()
    await rooms.join(here, "here", data=1)
    await rooms.join(there, "there")
    await shared_redis.ask("PUBLISH", rooms._broker.channel("here"), data)
    for name, sink in ("here", here), ("there", there):
        await rooms.publish(name, "hello")
        await until(lambda sink=sink: sink.messages)
    assert here.messages == there.messages == ["hello"]
    assert ["needs another prefix" in entry.message for entry in log()] == [True]
    await rooms.close()


@pytest.mark.parametrize("data", [b"nonsense", b"\xff", b"[" * 100_000], ids=["text", "bytes", "nested"])
async def test_a_foreign_entry_of_presence_is_logged_and_hides_no_other(shared_redis, rooms, log, data):
    channel = rooms._broker.channel("lobby")
    await rooms.join(Sink(), "lobby", data="before")
    await shared_redis.ask("HSET", b"{%b}:presence" % channel, b"foreign.1", data)
    await shared_redis.ask("ZADD", b"{%b}:leases" % channel, "+inf", "foreign")
    assert [one.data for one in await rooms.presence("lobby")] == ["before"]
    assert {"does something else write there?" in entry.message for entry in log()} == {True}
    await rooms.close()


@pytest.mark.parametrize("epoch", [b"\xff", b"a.b"])
async def test_a_foreign_epoch_of_a_history_is_refused(shared_redis, rooms, epoch):
    await rooms.publish("lobby", "before")
    await shared_redis.ask("SET", b"{%b}:epoch" % rooms._broker.channel("lobby"), epoch)
    await rooms.join(Sink(), "lobby")
    with pytest.raises(BrokerError, match="has been written by something else"):
        await rooms.publish("lobby", "after")
    with pytest.raises(BrokerError, match="has been written by something else"):
        await asyncio.to_thread(rooms.publish_sync, "lobby", "after")
    await rooms.close()


@pytest.mark.parametrize("fields", [("m", "nonsense"), ("m", "one", "n", "two")])
async def test_a_history_with_a_foreign_entry_is_not_read(shared_redis, rooms, until, caplog, fields):
    caplog.set_level("INFO", "duck")
    await rooms.publish("lobby", "before")
    await shared_redis.ask("XADD", b"{%b}:history" % rooms._broker.channel("lobby"), "*", *fields)
    sink = Sink()
    assert not await rooms.join(sink, "lobby", since="")
    assert "gets no history" in caplog.text and "has been written by something else" in caplog.text
    await rooms.publish("lobby", "after")
    await until(lambda: sink.messages)
    assert sink.messages == ["after"]
    await rooms.close()
