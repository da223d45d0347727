"""The subscribed connection, on a server whose answers are those of the test."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("redis")

from duck.contrib.websockets.groups.redis.server import Server
from duck.contrib.websockets.groups.redis.subscriber import Subscriber

CONFIRMED = [b"subscribe", b"c", 1]


class Connection:
    """A stand-in for a connection of redis-py, with the members that the subscriber uses."""

    def __init__(self):
        self._reader = asyncio.StreamReader()
        self._writer = SimpleNamespace(transport=SimpleNamespace(is_closing=bool))
        self.sent = asyncio.Queue()
        self.answers = asyncio.Queue()

    async def _connect(self):
        pass

    async def connect(self):
        pass

    async def disconnect(self):
        pass

    def pack_command(self, *words):
        return [words]

    def pack_commands(self, commands):
        return commands

    async def send_packed_command(self, commands, check_health):
        if commands == [("PING",)]:  # asks whether the server can serve
            self.answers.put_nowait(b"PONG")
        else:
            self.sent.put_nowait(commands)

    async def read_response(self, disable_decoding, disconnect_on_error=True):
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_member_that_joins_during_a_reconnection_does_not_delay_the_report_of_the_gap():
    """Messages come from the first confirmation on. Reported after them, the gap would be looked for behind them."""
    connections = asyncio.Queue()
    events = asyncio.Queue()

    def connection():
        connections.put_nowait(new := Connection())
        return new

    subscriber = Subscriber(
        Server(connection, {}, "a test", 30.0),
        lambda channel, data: events.put_nowait(data),
        lambda channel: events.put_nowait("gap"),
    )
    joining = asyncio.create_task(subscriber.subscribe(b"c"))
    before = await connections.get()
    assert await before.sent.get() == [("SUBSCRIBE", b"c")]
    before.answers.put_nowait(CONFIRMED)
    await joining
    before.answers.put_nowait(ConnectionError())
    after = await connections.get()
    assert await after.sent.get() == [("SUBSCRIBE", b"c")]
    joining = asyncio.create_task(subscriber.subscribe(b"c"))
    await asyncio.sleep(0)
    after.answers.put_nowait(CONFIRMED)
    after.answers.put_nowait([b"message", b"c", b"new"])
    assert [await events.get() for _ in range(2)] == ["gap", b"new"]
    await joining
    assert after.sent.empty()
    await subscriber.close()


async def test_a_member_that_leaves_during_its_join_and_joins_again_is_told_of_no_gap():
    connection, gaps = Connection(), []
    subscriber = Subscriber(Server(lambda: connection, {}, "a test", 30.0), lambda channel, data: None, gaps.append)
    first = asyncio.create_task(subscriber.subscribe(b"c"))
    await connection.sent.get()
    subscriber.unsubscribe(b"c")
    second = asyncio.create_task(subscriber.subscribe(b"c"))
    connection.answers.put_nowait(CONFIRMED)
    await first
    connection.answers.put_nowait([b"unsubscribe", b"c", 0])
    connection.answers.put_nowait(CONFIRMED)
    await second
    assert gaps == []
    await subscriber.close()


async def test_a_member_that_joins_while_the_server_is_away_is_told_of_the_gap(until):
    connections = asyncio.Queue()
    gaps = asyncio.Queue()

    def connection():
        connections.put_nowait(new := Connection())
        return new

    subscriber = Subscriber(Server(connection, {}, "a test", 30.0), lambda channel, data: None, gaps.put_nowait)
    joining = asyncio.create_task(subscriber.subscribe(b"c"))
    before = await connections.get()
    await before.sent.get()
    before.answers.put_nowait(CONFIRMED)
    await joining
    before.answers.put_nowait(ConnectionError())
    await until(lambda: subscriber._away)
    await subscriber.subscribe(b"d")
    after = await connections.get()
    sent = await after.sent.get()
    if len(sent) == 1:  # the task that writes has begun eagerly
        sent += await after.sent.get()
    assert sent == [("SUBSCRIBE", b"c"), ("SUBSCRIBE", b"d")]
    for channel in (b"c", b"d"):
        after.answers.put_nowait([b"subscribe", channel, 1])
        assert await gaps.get() == channel
    await subscriber.close()
