"""Publishing to a Redis server: its errors, its queue, and the messages that are published for certain."""

import asyncio
import gc
import re
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from redis import Redis
from redis.exceptions import MovedError, ResponseError

from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.redis.cluster import Cluster
from duck.contrib.websockets.groups.redis.publisher import Publisher
from duck.contrib.websockets.groups.redis.server import Server, has_moved
from duck.contrib.websockets.groups.redis.subscriber import Subscriber

from ..support.fixtures import SECONDS
from ..support.redis import answering
from .sink import Sink

KIB = 2**10


async def test_publishes_that_come_together_leave_in_few_pipelines(shared_redis, meet):
    rooms = Groups(shared_redis.url, prefix="pipelines:")
    async with meet(rooms, "lobby", 1) as (_, (peer,)):
        await rooms.publish("lobby", "first")
        with Redis(port=shared_redis.port) as admin:
            before = admin.info("stats")["total_reads_processed"]
            await asyncio.gather(*(rooms.publish("lobby", f"{number}") for number in range(500)))
            assert admin.info("stats")["total_reads_processed"] - before < 50
        assert await peer.message() == "first"
        assert [await peer.message() for _ in range(500)] == [str(number) for number in range(500)]


async def test_an_idle_publisher_reconnects(own_redis, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.groups.redis.publisher.SURE", 0.05)
    own_redis.start()
    rooms = Groups(own_redis.url)
    await rooms.publish("lobby", "one")
    own_redis.kill()
    own_redis.start()
    await asyncio.sleep(0.1)
    await rooms.publish("lobby", "two")
    await rooms.close()


async def test_groups_that_are_dropped_without_close_are_freed_with_one_warning(own_redis, monkeypatch):
    """Nothing can wait in a garbage collection, such as for the end of the connection."""
    monkeypatch.setattr("duck.contrib.websockets.groups.redis.publisher.SURE", 0)
    ignored, reported = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(unraisable.exc_value))
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    own_redis.start()
    await Groups(own_redis.url).publish("lobby", "one")
    with Redis(port=own_redis.port) as admin, pytest.warns(ResourceWarning, match="unclosed Connection"):
        async with asyncio.timeout(SECONDS):
            while admin.info("clients")["connected_clients"] > 1:
                gc.collect()
                await asyncio.sleep(0)
    assert (ignored, reported) == ([], ["Task was destroyed but it is pending!"])


async def test_a_message_to_an_idle_server_that_does_not_answer_any_more_is_not_sent(own_redis, monkeypatch):
    monkeypatch.setattr("duck.contrib.websockets.groups.redis.publisher.SURE", 0.05)
    own_redis.start()
    rooms = Groups(own_redis.url)
    await rooms.publish("lobby", "one")
    rooms._broker.server.timeout = 0.5
    own_redis.freeze()
    await asyncio.sleep(0.1)
    with pytest.raises(BrokerError, match="was not sent") as caught:
        await rooms.publish("lobby", "two")
    assert caught.value.not_published
    own_redis.thaw()
    await rooms.close()


async def test_the_error_of_a_server_that_accepts_and_is_silent_has_a_reason():
    """The second message meets a server that is known to be away, by a TimeoutError without a text."""

    async def errors_of(url):
        rooms = Groups(url, timeout=0.1)
        caught = []
        for _ in range(2):
            with pytest.raises(BrokerError) as error:
                await rooms.publish("lobby", "hello")
            caught.append(error.value)
        await rooms.close()
        return caught

    schemes = {"redis": "", "redis+sentinel": "/main", "redis+cluster": ""}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        errors = await asyncio.gather(
            *(errors_of(f"{scheme}://127.0.0.1:{port}{path}") for scheme, path in schemes.items())
        )
    for error in (error for pair in errors for error in pair):
        assert re.fullmatch(r"a message was not sent to Redis at \S+: \S.*", str(error))
        assert str(error).count("Redis") == 1
        assert error.not_published


async def test_a_full_queue_is_an_error_at_once(own_redis, monkeypatch):
    monkeypatch.setattr(Publisher, "QUEUE_LIMIT", 64 * KIB)
    rooms = Groups(own_redis.url, timeout=20)
    tasks = [asyncio.ensure_future(rooms.publish("lobby", "x" * 10 * KIB)) for _ in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(BrokerError, match=r"not sent.* bytes wait"):
        await rooms.publish("lobby", "x" * 10 * KIB)
    own_redis.start()
    assert await asyncio.gather(*tasks) == [None] * 6
    await rooms.publish("lobby", "again")
    await rooms.close()


async def test_messages_that_were_given_up_leave_room_in_the_queue(own_redis, monkeypatch):
    """The next attempt to connect notices that they were given up."""
    monkeypatch.setattr(Publisher, "QUEUE_LIMIT", 1000)
    rooms = Groups(own_redis.url, timeout=0.2)
    with pytest.raises(BrokerError):
        await rooms.publish("lobby", "x" * 600)
    error = "bytes wait"
    while "bytes wait" in error:
        await asyncio.sleep(0.01)
        with pytest.raises(BrokerError) as caught:
            await rooms.publish("lobby", "x" * 600)
        error = str(caught.value)
    await rooms.close()


async def test_a_publisher_that_gives_up_has_not_published(own_redis, meet):
    rooms = Groups(own_redis.url)
    task = asyncio.ensure_future(rooms.publish("lobby", "never"))
    await asyncio.sleep(0.01)
    task.cancel()
    own_redis.start()
    async with meet(rooms, "lobby", 1) as (_, (peer,)):
        await rooms.publish("lobby", "hello")
        assert await peer.message() == "hello"
    await rooms.close()


def test_publish_sync_raises_an_error_where_no_server_is():
    urls = ["redis://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/main", "redis+cluster://127.0.0.1:1"]
    with ThreadPoolExecutor() as pool:
        publishing = [pool.submit(Groups(url, timeout=0.3).publish_sync, "lobby", "to nobody") for url in urls]
    for published in publishing:
        with pytest.raises(BrokerError, match=r"^a message was not sent to Redis at \S+: [^<]*$") as caught:
            published.result()
        assert caught.value.not_published


def test_an_answer_of_a_moved_slot_is_known_by_its_code():
    """redis-py 5.2 makes no MovedError of it."""
    assert has_moved(ResponseError("MOVED 4326 127.0.0.1:7000"))
    assert has_moved(MovedError("4326 127.0.0.1:7000"))
    assert not has_moved(ResponseError("unknown command 'MOVED'"))


def test_publish_sync_waits_for_a_server_that_is_away(own_redis):
    rooms = Groups(own_redis.url, timeout=20, history=5)
    with ThreadPoolExecutor() as pool:
        publishing = pool.submit(rooms.publish_sync, "lobby", "x")
        own_redis.start()
        assert publishing.result()
    rooms._broker.close_sync()


def test_the_options_of_a_url_do_not_change_what_publish_sync_needs(own_redis):
    own_redis.start()
    rooms = Groups(f"{own_redis.url}?decode_responses=yes&socket_timeout=1000", timeout=1, history=5)
    assert rooms.publish_sync("lobby", "x")
    own_redis.freeze()
    with pytest.raises(BrokerError):
        rooms.publish_sync("lobby", "x")
    rooms._broker.close_sync()


def test_a_refusal_by_the_server_publishes_nothing(run, own_redis):
    """The error has the server's words for a missing right, a wrong key, no memory and a replica."""

    def refused(words, history=0):
        async def scenario():
            rooms = Groups(url, timeout=5, history=history)
            with pytest.raises(BrokerError, match=f"has refused a message: .*{words}"):
                await rooms.publish("lobby", "hello")
            await rooms.close()

        run(scenario())
        rooms = Groups(url, timeout=5, history=history)
        with pytest.raises(BrokerError, match=f"has refused a message: .*{words}"):
            rooms.publish_sync("lobby", "hello")
        rooms._broker.close_sync()

    async def demoted(admin):
        """The next message goes by another connection: the name of the server may lead to the new master by then."""
        rooms = Groups(url, history=5)
        for publish in (rooms.publish, partial(asyncio.to_thread, rooms.publish_sync)):
            with pytest.raises(BrokerError, match="read only replica"):
                await publish("lobby", "hello")
            connected = admin.info("stats")["total_connections_received"]
            admin.replicaof("NO", "ONE")
            assert await publish("lobby", "hello")
            assert admin.info("stats")["total_connections_received"] == connected + 1
            admin.replicaof("127.0.0.1", 1)
        await rooms.close()

    async def beside_others():
        rooms = Groups(url, timeout=5, history=5)
        publishing = [rooms.publish(group, "hello") for group in ("lobby", "other", "lobby")]
        refused = [
            isinstance(result, BrokerError) for result in await asyncio.gather(*publishing, return_exceptions=True)
        ]
        assert refused == [True, False, True]
        await rooms.close()

    own_redis.start()
    url = own_redis.url
    with Redis(port=own_redis.port) as admin:
        admin.acl_setuser("reader", enabled=True, passwords=["+x"], commands=["+@all", "-publish"], keys=["*"])
        url = own_redis.url.replace("//", "//reader:x@")
        refused("permission")
        refused("(can't run this command|no permissions to run the 'publish' command)", history=5)  # Redis, Valkey
        assert admin.xlen("{duck:lobby}:history") == 0
        url = own_redis.url
        admin.set("{duck:lobby}:history", "text")
        refused("wrong kind of value", history=5)
        run(beside_others())
        admin.flushall()
        admin.config_set("maxmemory", 1)
        refused("maxmemory", history=5)
        admin.config_set("maxmemory", 0)
        admin.replicaof("127.0.0.1", 1)
        refused("read only replica", history=5)
        run(demoted(admin))


@pytest.mark.parametrize("announce", [None, lambda change: None], ids=["alone", "announced"])
async def test_a_user_with_few_rights_publishes_and_receives(own_redis, monkeypatch, log, until, announce):
    """A PING that is refused to an idle connection does not end it; the log has a refusal of presence, once."""
    monkeypatch.setattr(Subscriber, "IDLE_TIMEOUT", 0.05)
    monkeypatch.setattr("duck.contrib.websockets.groups.redis.publisher.SURE", 0.05)
    rights = ["-@all", "+publish", "+subscribe", "+unsubscribe"]
    own_redis.start()
    with Redis(port=own_redis.port) as admin:
        admin.acl_setuser("writer", enabled=True, passwords=["+x"], commands=rights, channels=["*"])
    rooms = Groups(own_redis.url.replace("//", "//writer:x@"), presence_ttl=0.1, announce=announce)
    sink = Sink()
    await rooms.join(sink, "lobby", data="here")
    await asyncio.sleep(0.2)
    await rooms.publish("lobby", "hello")
    await asyncio.to_thread(rooms.publish_sync, "lobby", "hello")
    await until(lambda: len(sink.messages) == 2)
    assert not sink.gaps
    (entry,) = log()
    assert "do not see the members" in entry.message and "no permissions to run the 'eval'" in entry.message
    await rooms.close()


async def test_a_connection_that_lost_its_password_publishes_nothing(own_redis):
    own_redis.start()
    rooms = Groups(own_redis.url, timeout=5)
    await rooms.publish("lobby", "hello")
    with Redis(port=own_redis.port) as admin:
        # Connected clients stay authenticated as the default user until the user loses its rights.
        admin.acl_setuser("default", enabled=True, passwords=["+x"], commands=["-publish"])
    results = await asyncio.gather(*(rooms.publish("lobby", "x") for _ in range(3)), return_exceptions=True)
    assert all("has refused a message" in str(result) for result in results)
    await rooms.close()


@pytest.mark.parametrize("new_channels", [Publisher, lambda server: Cluster(server, print, print)])
async def test_a_call_that_comes_behind_the_end_of_the_groups_publishes_nothing(new_channels):
    """It had got the connection before."""
    before = asyncio.all_tasks()
    channels = new_channels(Server(None, {}, "redis://test", 5))
    await channels.close()
    with pytest.raises(BrokerError, match="the groups have been closed") as caught:
        await channels.execute(b"lobby", "PUBLISH", "lobby", "x")
    assert caught.value.not_published
    assert asyncio.all_tasks() == before


async def test_a_timeout_in_the_step_of_a_failing_connect_has_not_published(monkeypatch):
    """The queue no longer has the command when its caller resumes. The command itself knows whether it has left."""

    async def fail_behind_the_timeout(self):
        while not self._queue[0].answer.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        self.error = ConnectionError("refused")
        self._drop_given_up()

    monkeypatch.setattr(Publisher, "_run", fail_behind_the_timeout)
    publisher = Publisher(Server(None, {}, "redis://test", 0))
    with pytest.raises(BrokerError, match=r"was not sent to .*redis://test: refused") as caught:
        await publisher.execute(b"lobby", "PUBLISH", "lobby", "x")
    assert caught.value.not_published


def usual_answer(words):
    return {b"PING": b"+PONG\r\n", b"PUBLISH": b":1\r\n"}.get(words[0], b"+OK\r\n")


@pytest.mark.parametrize("is_sync", [False, True])
async def test_a_message_waits_for_a_server_that_loads_its_data(is_sync):
    """A real one has loaded a small set of data before it answers, or not."""
    loading = [b"-LOADING Redis is loading the dataset in memory\r\n"]

    def answer_to(words):
        return loading.pop() if loading and words == [b"PING"] else usual_answer(words)

    async with answering(answer_to) as (port, _):
        rooms = Groups(f"redis://127.0.0.1:{port}")
        await (asyncio.to_thread(rooms.publish_sync, "lobby", "x") if is_sync else rooms.publish("lobby", "x"))
        await rooms.close()
    assert not loading


async def test_a_publisher_whose_connection_was_reset_connects_again():
    """A killed server resets connections with unread data."""
    async with answering(usual_answer) as (port, writers):
        rooms = Groups(f"redis://127.0.0.1:{port}")
        await rooms.publish("lobby", "one")
        (writer,) = writers
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await asyncio.sleep(0.05)
        await rooms.publish("lobby", "two")
        await rooms.close()
