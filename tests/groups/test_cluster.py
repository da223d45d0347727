"""Groups on a real Redis cluster of three masters, by sharded pub/sub."""

import asyncio
import gc
import itertools
import json
import socket
from contextlib import asynccontextmanager

import pytest

from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.redis.publisher import Publisher
from duck.contrib.websockets.groups.redis.server import has_moved

from ..support.redis import RedisServer, answering
from ..support.waiting import begun, within
from .sink import Sink

pytestmark = pytest.mark.parametrize("loop_name", ["asyncio"], indirect=True)  # the tests of one server run on both

NAMES = [f"room {number}" for number in range(12)]  # in slots of all masters


@pytest.fixture(scope="module")
def masters(tmp_path_factory):
    """Three masters that know each other, with a third of the slots each."""
    servers = []
    try:
        for _ in range(3):
            options = (
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            )
            server = RedisServer(tmp_path_factory.mktemp("master"), *options)
            server.start()
            servers.append(server)
        asyncio.run(_introduce(servers))
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def cluster(masters, runner):
    """The masters, without data; a test may kill, freeze and rearrange them."""
    yield masters
    for server in masters:
        server.thaw()
    runner.run(_clear(masters))


async def _clear(servers):
    await _agreed(servers)
    for server in servers:
        await server.ask("FLUSHALL")


async def _introduce(servers):
    for number, server in enumerate(servers):
        await server.ask("CLUSTER", "ADDSLOTSRANGE", number * 5461, 16383 if number == 2 else number * 5461 + 5460)
        if number:
            await server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await server.ask("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    await _agreed(servers)


async def _agreed(servers):
    """Waits until all servers have the same map of all slots."""
    while True:
        states = [await server.ask("CLUSTER", "INFO") for server in servers]
        maps = [sorted(owned[:3] for owned in await server.ask("CLUSTER", "SLOTS")) for server in servers]
        served = sum(last - first + 1 for first, last, _ in maps[0])
        serving = all(b"cluster_state:ok" in state for state in states)
        if serving and served == 16384 and all(known == maps[0] for known in maps):
            return
        await asyncio.sleep(0.05)


async def move(cluster, slot, meanwhile=None):
    """Moves a slot to the next master, as `redis-cli --cluster reshard` does.

    Without IMPORTING the new owner would keep its epoch, and yield the slot to an old one with a later epoch.

    Args:
        meanwhile: Called once the keys have gone.
    """
    owner = await owner_of(cluster, slot)
    source, target, other = (cluster[(owner + number) % 3] for number in range(3))
    there = await target.ask("CLUSTER", "MYID")
    await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await source.ask("CLUSTER", "MYID"))
    await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
    keys = await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
    if keys:
        await source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    if meanwhile is not None:
        await meanwhile()
    for server in (target, source, other):
        await server.ask("CLUSTER", "SETSLOT", slot, "NODE", there)


async def test_groups_are_spread_over_the_masters(cluster, meet):
    url = f"redis+cluster://127.0.0.1:{cluster[1].port}"
    rooms, writer = Groups(url), Groups(url)
    async with meet(rooms, NAMES[0], 2) as (views, peers):
        for view in views:
            for name in NAMES[1:]:
                await rooms.join(view, name)
        shares = [await server.ask("PUBSUB", "SHARDCHANNELS") for server in cluster]
        owner = cluster[await owner_of(cluster, slot_of(NAMES[3]))]
        assert all(shares)
        assert sorted(itertools.chain(*shares)) == sorted(f"duck:{name}".encode() for name in NAMES)
        for name in NAMES:
            await writer.publish(name, f"to {name}")
            assert [await peer.message() for peer in peers] == [f"to {name}"] * 2
        await asyncio.to_thread(writer.publish_sync, NAMES[0], "from a job")
        assert [await peer.message() for peer in peers] == ["from a job"] * 2
        await rooms.leave(views[0], NAMES[3])
        await rooms.leave(views[1], NAMES[3])
        while f"duck:{NAMES[3]}".encode() in await owner.ask("PUBSUB", "SHARDCHANNELS"):
            pass
        await writer.publish(NAMES[3], "to nobody")
        await writer.publish(NAMES[4], "last", exclude=views[0])
    await writer.close()
    await rooms.close()
    for server in cluster:
        while len((await server.ask("CLIENT", "LIST")).splitlines()) > 1:
            pass


async def test_members_are_told_of_a_slot_that_moves_to_another_master(cluster, meet, until, log, caplog):
    """Members get `on_gap`, and publishers are not affected. The old master is not asked for the channel any more."""
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    rooms, writer = Groups(url), Groups(url)
    async with meet(rooms, NAMES[0], 1) as (_, (peer,)):
        await writer.publish(NAMES[0], "before")
        assert await peer.message() == "before"
        await move(cluster, slot_of(NAMES[0]))
        while await peer.message() != f"gap in {NAMES[0]}":
            pass
        await writer.publish(NAMES[0], "after")
        assert await peer.message() == "after"
        await until(lambda: "is available again" in caplog.text)
    await writer.close()
    await rooms.close()


async def test_groups_of_a_killed_master_wait_for_it_and_others_are_served(cluster, meet):
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    rooms, writer, hasty = Groups(url, timeout=20), Groups(url, timeout=20), Groups(url, timeout=0.3)
    await asyncio.to_thread(writer.publish_sync, NAMES[0], "connected before")
    async with meet(rooms, NAMES[0], 1) as (views, (peer,)):
        for name in NAMES[1:]:
            await rooms.join(views[0], name)
        lost = {channel.decode().removeprefix("duck:") for channel in await cluster[2].ask("PUBSUB", "SHARDCHANNELS")}
        cluster[2].kill()
        for name in NAMES:
            if name not in lost:
                await rooms.publish(name, name)
                assert await peer.message() == name
        with pytest.raises(BrokerError):
            await hasty.publish(min(lost), "to nobody")
        empty = next(name for name in map(str, itertools.count()) if slot_of(name) > 10922)
        publishing = asyncio.create_task(asyncio.to_thread(writer.publish_sync, empty, "to nobody"))
        await asyncio.sleep(0.1)
        assert not publishing.done()
        cluster[2].start()
        await publishing
        assert {await peer.message() for _ in lost} == {f"gap in {name}" for name in lost}
        for name in lost:
            await rooms.publish(name, "again")
            assert await peer.message() == "again"
    await hasty.close()
    await writer.close()
    await rooms.close()


async def test_publishing_to_a_cluster_that_is_away_is_an_error(meet, log):
    pytest.importorskip("redis")
    rooms = Groups("redis+cluster://127.0.0.1:1", timeout=0.3)
    async with meet(rooms, "lobby", 1) as (_, (peer,)):
        with pytest.raises(BrokerError, match="no node of the cluster"):
            await rooms.publish("lobby", "to nobody")
        peer.send("stays connected")
    await rooms.close()
    assert log()


async def test_a_member_that_gives_up_on_a_silent_cluster_leaves_no_error_behind():
    """The slot map is still being asked for, in vain. asyncio would log an error that nobody retrieves."""
    pytest.importorskip("redis")
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        rooms = Groups(f"redis+cluster://127.0.0.1:{port}", timeout=0.1)
        await rooms.join(Sink(), "lobby")
        await asyncio.wait([rooms._hub(asyncio.get_running_loop()).connection._channels._reading])
        with pytest.raises(BrokerError):
            await rooms.publish("lobby", "to nobody")  # asks for another map, which replaces the last
        gc.collect()
        assert told == []
        await rooms.close()


def slot_of(name):
    from redis.crc import key_slot

    return key_slot(f"duck:{name}".encode())


async def owner_of(cluster, slot):
    """The index of the master that has a slot."""
    for first, last, (_, port, *_), *_ in await cluster[0].ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return [server.port for server in cluster].index(port)
    raise AssertionError(f"no master has slot {slot}")


def announce(change):
    return json.dumps([len(change.joined), -len(change.left)])


async def test_history_and_presence_are_kept_on_all_masters(cluster, until):
    """Members catch up after all subscribers were killed, so `on_gap` is not called."""
    names = [*NAMES[:9], "{tag} of their own", "a}b", "50% of {"]
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    rooms, other = (Groups(url, history=100, announce=announce) for _ in range(2))
    sinks = {name: Sink() for name in names}
    for name, sink in sinks.items():
        first = await other.publish(name, "missed")
        await other.publish(name, f"history of {name}")
        assert await rooms.join(sink, name, since=first, data=name)
    assert all([await server.ask("DBSIZE") for server in cluster])
    for server in cluster:
        await server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    for name in names:
        await asyncio.to_thread(other.publish_sync, name, f"meanwhile in {name}")
    guests = [Sink() for _ in names]
    for name, guest in zip(names, guests, strict=True):
        await other.join(guest, name, data="guest")
    for name, sink in sinks.items():
        await until(lambda sink=sink: len(sink.messages) == 4 and "[1, 0]" in sink.messages[1:])
        messages = [message for message in sink.messages if not message.startswith("[")]
        assert messages == [f"history of {name}", f"meanwhile in {name}"]
        assert not sink.gaps
        assert sorted(one.data for one in await other.presence(name)) == sorted([name, "guest"])
    for guest in guests:
        guest.end()
    for name, sink in sinks.items():
        await until(lambda sink=sink: sink.messages[-1] == "[0, -1]")
        assert [one.data for one in await rooms.presence(name)] == [name]
    await rooms.close()
    assert [await other.presence(name) for name in names] == [[]] * len(names)
    await other.close()


async def test_no_message_is_lost_while_a_slot_moves_with_its_history(cluster, until):
    """Publishers wait for the end of the move; members get all messages once and in order, without a gap."""
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    rooms, writer = Groups(url, history=100), Groups(url, history=100)
    sink, waiting = Sink(), []
    await rooms.join(sink, NAMES[0], data="here")
    await writer.publish(NAMES[0], "before")

    async def meanwhile():
        waiting.extend(asyncio.ensure_future(writer.publish(NAMES[0], str(number))) for number in range(9))
        waiting.append(asyncio.ensure_future(asyncio.to_thread(writer.publish_sync, NAMES[0], "meanwhile")))
        await asyncio.sleep(0.1)
        assert not any(publishing.done() for publishing in waiting)

    await move(cluster, slot_of(NAMES[0]), meanwhile)
    assert len(set(await asyncio.gather(*waiting))) == 10
    await writer.publish(NAMES[0], "after")
    await until(lambda: len(sink.messages) == 12)
    sink.messages.remove("meanwhile")
    assert sink.messages == ["before", *map(str, range(9)), "after"]
    assert not sink.gaps
    assert [one.data for one in await writer.presence(NAMES[0])] == ["here"]
    await writer.close()
    await rooms.close()


async def test_silent_masters_delay_no_call_beyond_the_timeout(cluster, until):
    """All calls end after the timeout, for any number of calls that need the map of the slots."""
    rooms = Groups(f"redis+cluster://127.0.0.1:{cluster[0].port}", timeout=1, history=10, announce=announce)
    sink = Sink()
    await rooms.join(sink, NAMES[0], data="here")
    for server in cluster:
        server.freeze()
    for calls in (
        (
            rooms.join(sink, NAMES[1], since="", data="there"),
            rooms.publish(NAMES[0], "to nobody"),
            rooms.publish(NAMES[2], "to nobody"),
            rooms.presence(NAMES[0]),
        ),
        (rooms.publish(NAMES[3], "to nobody"), rooms.leave(sink, NAMES[0])),
    ):
        async with within(seconds=3):  # three times the timeout of a call
            results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(result in (None, False) or isinstance(result, BrokerError) for result in results)
    for server in cluster:
        server.thaw()
    await until(lambda: sink.gaps == [NAMES[1]])
    await rooms.publish(NAMES[1], "hello")
    await until(lambda: "hello" in sink.messages)
    await rooms.close()


def usual_answer(words, port):
    """The answer of a node to a command, if the node at a port has all slots."""
    answers = {
        b"CLIENT": b"+OK\r\n",
        b"CLUSTER": b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % port,
        b"EVAL": b"*2\r\n$0\r\n\r\n*0\r\n",
        b"PING": b"+PONG\r\n",
        b"SPUBLISH": b":0\r\n",
        b"SSUBSCRIBE": b"*3\r\n$10\r\nssubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(words[-1]), words[-1]),
    }
    return answers.get(words[0], b"")


@asynccontextmanager
async def lone_node(answer_to):
    """A node of the test, which has all slots: the URL of its cluster, and the writers of its connections."""
    async with answering(lambda words: answer_to(words, usual_answer(words, port))) as (port, writers):
        yield f"redis+cluster://127.0.0.1:{port}", writers


@pytest.mark.parametrize("silent", [b"CLUSTER", b"SSUBSCRIBE"])
@pytest.mark.parametrize(("history", "options"), [(0, {}), (5, {}), (5, {"since": ""})])
async def test_groups_that_are_closed_while_a_view_joins_end_the_join_and_all_tasks(silent, history, options, until):
    is_asked = asyncio.Event()

    def answer_to(words, answer):
        if words[0] != silent:
            return answer
        is_asked.set()
        return b""

    async with lone_node(answer_to) as (url, _):
        before = asyncio.all_tasks()
        rooms = Groups(url, history=history)
        joining = asyncio.ensure_future(rooms.join(Sink(), "lobby", **options))
        await is_asked.wait()
        await rooms.close()
        assert await joining == (not options)
        await until(lambda: asyncio.all_tasks() == before)


async def test_messages_that_a_moved_slot_refuses_as_the_groups_are_closed_are_not_sent(until, monkeypatch):
    """The other answers of their pipeline are not there yet."""
    is_refused = asyncio.Event()
    answers = iter([b":0\r\n", b"-MOVED 0 127.0.0.1:1\r\n"])

    def note_refusal(answer):
        is_refused.set()
        return has_moved(answer)

    monkeypatch.setattr("duck.contrib.websockets.groups.redis.publisher.has_moved", note_refusal)
    async with lone_node(lambda words, answer: next(answers, b"") if words[0] == b"SPUBLISH" else answer) as (url, _):
        before = asyncio.all_tasks()
        rooms = Groups(url)
        await rooms.publish("lobby", "before")
        publishing = [asyncio.ensure_future(rooms.publish("lobby", "x")) for _ in range(2)]
        await is_refused.wait()
        await rooms.close()
        errors = await asyncio.gather(*publishing, return_exceptions=True)
        assert [error.not_published for error in errors] == [True, False]
        await until(lambda: asyncio.all_tasks() == before)


async def test_a_message_that_a_moved_slot_refuses_is_published_though_its_connection_breaks():
    """The next message of the same pipeline has no answer: its outcome is unknown."""
    refusals = [b"-MOVED 0 127.0.0.1:1\r\n"]

    def answer_to(words, answer):
        if words[:2] == [b"SPUBLISH", b"duck:broken"]:
            for writer in writers:
                writer.close()
        elif words[:2] == [b"SPUBLISH", b"duck:moved"] and refusals:
            return refusals.pop()
        return answer

    async with lone_node(answer_to) as (url, writers):
        rooms = Groups(url)
        await rooms.publish("lobby", "before")
        publishing = [rooms.publish(group, "x") for group in ("moved", "broken")]
        moved, broken = await asyncio.gather(*publishing, return_exceptions=True)
        assert moved is None
        assert isinstance(broken, BrokerError) and not broken.not_published
        await rooms.close()
    assert not refusals


async def test_the_messages_that_wait_for_a_cluster_are_bounded(monkeypatch):
    monkeypatch.setattr(Publisher, "QUEUE_LIMIT", 1000)
    rooms = Groups("redis+cluster://127.0.0.1:1", timeout=20)
    waiting = await begun(*(rooms.publish(f"group {number}", "x" * 200) for number in range(2)))
    with pytest.raises(BrokerError, match=r"not sent.* bytes wait") as caught:
        await rooms.publish("group 2", "x" * 200)
    assert caught.value.not_published
    await rooms.close()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert str(error).endswith("the connection has been closed")


async def test_messages_behind_one_that_a_moved_slot_refuses_leave_room_in_the_queue(monkeypatch):
    monkeypatch.setattr(Publisher, "QUEUE_LIMIT", 1000)
    is_asked = asyncio.Event()

    def answer_to(words, answer):
        if words[-1].endswith(b"refused") and not is_asked.is_set():
            is_asked.set()
            return b""
        return answer

    async with lone_node(answer_to) as (url, writers):
        rooms = Groups(url)
        await rooms.publish("lobby", "before")
        publishing = await begun(rooms.publish("lobby", "refused"))
        await is_asked.wait()
        publishing += await begun(rooms.publish("lobby", "x" * 600))
        writers[-1].write(b"-MOVED 0 127.0.0.1:1\r\n")  # the connection for messages was opened last
        await asyncio.gather(*publishing)
        await rooms.publish("lobby", "x" * 600)
        await rooms.close()


async def test_a_node_that_has_left_the_cluster_is_forgotten(until):
    """Its channels have moved. Attempts to connect to it would go on for ever."""
    sink = Sink()
    async with answering(lambda words: usual_answer(words, port)) as (here, _):
        rooms = Groups(f"redis+cluster://127.0.0.1:{here}")
        async with answering(lambda words: usual_answer(words, port)) as (port, _):
            await rooms.join(sink, "lobby")
            await rooms.publish("lobby", "before")
            port = here
        await until(lambda: sink.gaps == ["lobby"])
        nodes = rooms._hub(asyncio.get_running_loop()).connection._channels._nodes
        await until(lambda: [*nodes] == [("127.0.0.1", here)])
        await rooms.publish("lobby", "after")
        await rooms.close()
