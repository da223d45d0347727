"""Groups on a real Redis server: its connections and subscriptions, its absence, and several processes."""

import asyncio
import random
import subprocess
import sys
import time
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis import Redis

from duck.contrib.websockets import OpCode, WebSocketView
from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.redis.server import Backoff
from duck.contrib.websockets.groups.redis.subscriber import Subscriber

from ..support.waiting import begun, within
from .sink import Sink

KIB = 2**10


async def test_two_connections_for_a_loop_one_for_a_thread_and_one_subscription_for_a_group(shared_redis, meet):
    rooms = Groups(shared_redis.url, prefix="few:")
    before = (await shared_redis.ask("INFO"))["connected_clients"]
    async with meet(rooms, "lobby", 10) as (views, _):
        for view in views:
            await rooms.join(view, "second")
        await rooms.publish("lobby", "hello")
        assert await shared_redis.ask("PUBSUB", "NUMSUB", "few:lobby", "few:second") == [
            b"few:lobby",
            1,
            b"few:second",
            1,
        ]
        assert (await shared_redis.ask("INFO"))["connected_clients"] == before + 2
        await asyncio.to_thread(rooms.publish_sync, "lobby", "from a thread")
        assert (await shared_redis.ask("INFO"))["connected_clients"] == before + 3
    while await shared_redis.ask("PUBSUB", "CHANNELS", "few:*"):
        pass
    await rooms.close()


async def test_a_member_that_leaves_during_its_join_and_joins_again_gets_messages(shared_redis, until):
    rooms = Groups(shared_redis.url, prefix="again:")
    await rooms.join(Sink(), "other")
    sink = Sink()
    joining = await begun(rooms.join(sink, "lobby"))
    await rooms.leave(sink, "lobby")
    await asyncio.gather(rooms.join(sink, "lobby"), *joining)
    await rooms.publish("lobby", "hello")
    await until(lambda: sink.messages)
    assert not sink.gaps
    await rooms.close()


async def test_members_of_a_server_that_is_away_at_the_start_are_told_once_it_is_there(own_redis, meet, log):
    """Members join, and get `on_gap` once the server is there; the log has one line, for any duration."""
    rooms, hasty = Groups(own_redis.url), Groups(own_redis.url, timeout=0.3)
    async with meet(rooms, "lobby", 2) as (_, peers):
        for publishing in (
            hasty.publish("lobby", "to nobody"),
            asyncio.to_thread(hasty.publish_sync, "lobby", "to nobody"),
        ):
            with pytest.raises(BrokerError, match="was not sent") as caught:
                await publishing
            assert caught.value.not_published
        own_redis.start()
        for peer in peers:
            assert await peer.message() == "gap in lobby"
        await rooms.publish("lobby", "hello")
        await asyncio.to_thread(rooms.publish_sync, "lobby", "again")
        for peer in peers:
            assert [await peer.message() for _ in range(2)] == ["hello", "again"]
        (entry,) = log()
        assert entry.message.startswith(f"Redis at {own_redis.url} is unavailable")
    await hasty.close()
    await rooms.close()


async def test_a_server_that_refuses_subscriptions_is_away(own_redis, meet, log, monkeypatch):
    """The server accepts connections; the pauses grow nevertheless, and the log has one line."""
    backoffs = []

    def next_pause(backoff):
        backoffs.append(backoff)
        if len(backoffs) == 5:
            client.config_set("requirepass", "")
        return 0.01

    own_redis.start()
    rooms = Groups(own_redis.url)
    with Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "secret")
        monkeypatch.setattr(Backoff, "next", next_pause)
        async with meet(rooms, "lobby", 1) as (_, (peer,)):
            assert await peer.message() == "gap in lobby"
            await rooms.publish("lobby", "hello")
            assert await peer.message() == "hello"
        await rooms.close()
    assert len({*map(id, backoffs)}) == 1
    (entry,) = log()
    assert "is unavailable" in entry.message and "Authentication required" in entry.message


async def test_each_kind_of_error_of_a_server_is_logged_once(own_redis, log, until, monkeypatch):
    attempts = 0

    def next_pause(backoff):
        nonlocal attempts
        attempts += 1
        return 0.01

    monkeypatch.setattr(Backoff, "next", next_pause)
    rooms = Groups(own_redis.url.replace("//", "//:wrong@"))
    await rooms.join(Sink(), "lobby")
    await until(lambda: attempts >= 3)
    own_redis.start()
    await until(lambda: len(log()) == 2)
    seen = attempts
    await until(lambda: attempts >= seen + 3)
    await rooms.close()
    down, refused = (entry.message for entry in log())
    assert "Connect" in down
    assert "AUTH" in refused


async def test_a_server_that_is_killed_and_comes_back_costs_a_gap_and_no_connection(own_redis, meet, log, until):
    """Connections stay open, every member gets `on_gap`, and messages are delivered again within three seconds."""
    own_redis.start()
    rooms = Groups(own_redis.url, timeout=5)
    async with meet(rooms, "lobby", 2) as (_, one), meet(rooms, "other", 1) as (_, two):
        await rooms.publish("lobby", "before")
        assert [await peer.message() for peer in one] == ["before"] * 2
        for _ in range(2):
            own_redis.kill()
            waiting = asyncio.ensure_future(rooms.publish("lobby", "meanwhile"))
            await asyncio.sleep(0.2)
            own_redis.start()
            async with within(seconds=3):
                assert [await peer.message() for peer in one] == ["gap in lobby"] * 2
                assert [await peer.message() for peer in two] == ["gap in other"]
            # Either it has been published, or the outcome is unknown and it may be published again.
            (result,) = await asyncio.gather(waiting, return_exceptions=True)
            assert result is None or isinstance(result, BrokerError)
            await rooms.publish("lobby", "after")
            for peer in one:
                while (message := await peer.message()) != "after":
                    assert message == "meanwhile"
        late = Sink()
        await rooms.join(late, "a group that is new")
        await rooms.publish("a group that is new", "hello")
        await until(lambda: late.messages)
        assert not late.gaps
        named = [entry.message.partition(" is unavailable")[0] for entry in log()]
        assert named == [f"Redis at {own_redis.url}"] * 2
    await rooms.close()


async def test_no_call_waits_beyond_the_timeout_for_a_server_that_does_not_answer(own_redis, meet, monkeypatch, log):
    """A handler waits for at most the timeout."""
    monkeypatch.setattr(Subscriber, "IDLE_TIMEOUT", 0.1)
    for module in ("publisher", "sync"):  # a slow machine would check first
        monkeypatch.setattr(f"duck.contrib.websockets.groups.redis.{module}.SURE", 60)
    own_redis.start()
    rooms = Groups(own_redis.url, timeout=1)
    async with meet(rooms, "lobby", 1) as (views, (peer,)):
        await asyncio.to_thread(rooms.publish_sync, "lobby", "before")
        await rooms.publish("lobby", "before")
        assert [await peer.message() for _ in range(2)] == ["before", "before"]
        own_redis.freeze()
        *published, present, one, other = await asyncio.gather(
            rooms.publish("lobby", "then"),
            asyncio.to_thread(rooms.publish_sync, "lobby", "then"),
            rooms.presence("lobby"),
            rooms.join(views[0], "second"),
            rooms.join(views[0], "third", data="there"),
            return_exceptions=True,
        )
        for error in published:
            assert isinstance(error, BrokerError) and "may or may not have reached" in str(error)
            assert not error.not_published
        assert isinstance(present, BrokerError)
        assert [one, other] == [True, True]  # members join nevertheless
        await rooms.leave(views[0], "second")
        while not log():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        own_redis.thaw()
        while await peer.message() != "gap in lobby":
            pass
        is_published = False
        while not is_published:
            with suppress(BrokerError):  # a busy machine needs more than the timeout
                await rooms.publish("lobby", "after")
                is_published = True
        while await peer.message() != "after":
            pass
    await rooms.close()


async def test_a_busy_loop_does_not_give_up_a_server_that_answers(own_redis, meet, monkeypatch):
    monkeypatch.setattr(Subscriber, "IDLE_TIMEOUT", 0.1)
    send, stalled, over = Subscriber._send, asyncio.Event(), asyncio.Event()

    def stall():
        own_redis.thaw()
        time.sleep(1)

    def send_and_stall(self, *words):
        if words == ("PING",) and not stalled.is_set():
            stalled.set()
            own_redis.freeze()  # so that the answer comes during the stall
            asyncio.get_running_loop().call_soon(stall)
        elif words == ("PING",):
            over.set()
        send(self, *words)

    monkeypatch.setattr(Subscriber, "_send", send_and_stall)
    own_redis.start()
    rooms = Groups(own_redis.url, timeout=0.5)
    async with meet(rooms, "lobby", 1) as (_, (peer,)):
        await over.wait()
        await rooms.publish("lobby", "hello")
        assert await peer.message() == "hello"
    await rooms.close()


async def test_a_slow_member_delays_no_other(shared_redis, meet, serving, dial):
    rooms = Groups(shared_redis.url, prefix="slow:")

    class Slow(WebSocketView):
        SLOW_CONSUMER = "drop"

        async def on_open(self):
            await rooms.join(self, "lobby")

    async with (
        meet(rooms, "lobby", 2) as (_, peers),
        serving(Slow) as server,
        dial(server, receive_buffer=4 * KIB, read_limit=4 * KIB) as slow,
    ):
        await slow.head()
        view, _ = await server.views.get()
        for number in range(200):
            await rooms.publish("lobby", bytes([number]) * 64 * KIB, OpCode.BINARY)
            for peer in peers:
                assert await peer.message() == bytes([number]) * 64 * KIB
        assert view.dropped > 0


async def test_an_error_in_on_gap_ends_that_connection_alone(own_redis, meet, log):
    class Broken(WebSocketView):
        async def on_gap(self, group):
            raise ArithmeticError("on purpose")

    rooms = Groups(own_redis.url)
    async with meet(rooms, "lobby", 1, base=Broken) as (_, (bad,)), meet(rooms, "lobby", 1) as (_, (good,)):
        own_redis.start()
        assert await bad.closing() == (1011, "internal error")
        bad.close()
        await rooms.publish("lobby", "hello")
        assert [await good.message() for _ in range(2)] == ["gap in lobby", "hello"]
        assert [type(entry.error) for entry in log()] == [type(None), ArithmeticError]
    await rooms.close()


# Several processes


async def end_leases(server, key):
    """Ends the leases of all owners, as the server's clock would; those that live renew theirs."""
    for owner in await server.ask("ZRANGE", key, 0, -1):
        await server.ask("ZADD", key, "XX", 0, owner)


@contextmanager
def member_processes(server, prefix, count=2):
    program = Path(__file__).parent / "member_process.py"
    processes = [
        subprocess.Popen([sys.executable, str(program), server.url, prefix], stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield [SimpleNamespace(port=int(process.stdout.readline()), process=process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


async def join_all(stack, dial, servers, rooms, count):
    """`count` peers, in turn in the processes and the rooms."""
    peers = []
    for number in range(count):
        peer = await stack.enter_async_context(
            dial(servers[number % len(servers)], target=f"/{rooms[number // len(servers) % len(rooms)]}")
        )
        await peer.head()
        peers.append(peer)
    for peer in peers:
        await message_of(peer, "joined")
    return peers


async def message_of(peer, *words):
    """The next message, which is one of these; changes of presence go by."""
    while (message := await peer.message()) not in words:
        assert message.endswith("left"), message
    return message


async def test_members_of_two_processes_get_each_message_once_but_for_a_killed_redis(own_redis, dial):
    """Every message comes once to each member, in each publisher's order; a kill of Redis is told to all.

    The members of a process that is killed leave, and are told to have left, once.
    """
    rooms, count, each = ["a", "b", "c"], 24, 20
    own_redis.start()

    async def round_of(peers, tag):
        async def receive(peer):
            received = []
            while len(received) < each * len(peers) // len(rooms):
                message = await peer.message()
                if message.startswith(tag):
                    received.append(message)
            return received

        receiving = [asyncio.ensure_future(receive(peer)) for peer in peers]
        for number in range(each):
            for name, peer in enumerate(peers):
                peer.send(f"{tag} {name} {number}")
            if random.random() < 0.5:
                await asyncio.sleep(0)
        for at, received in enumerate(await asyncio.gather(*receiving)):
            assert len(set(received)) == len(received)
            for name in range(len(peers)):
                own = [message for message in received if message.split()[1] == str(name)]
                same_room = at // 2 % len(rooms) == name // 2 % len(rooms)
                assert own == ([f"{tag} {name} {number}" for number in range(each)] if same_room else [])

    with member_processes(own_redis, "processes:") as servers:
        async with AsyncExitStack() as stack:
            peers = await join_all(stack, dial, servers, rooms, count)
            await round_of(peers, "one")
            own_redis.kill()
            own_redis.start()
            for at, peer in enumerate(peers):
                await message_of(peer, f"gap in {rooms[at // 2 % len(rooms)]}")
            await round_of(peers, "two")
            writer = Groups(own_redis.url, prefix="processes:")  # a process that serves nothing
            assert len(await writer.presence("a")) == count // len(rooms)
            servers[0].process.kill()
            servers[0].process.wait()
            peers[1].send("still here")
            await end_leases(own_redis, "{processes:a}:leases")  # the next renewal of the other process tells who left
            left, is_heard = 0, False
            while left < count // len(rooms) // 2 or not is_heard:
                message = await peers[1].message()
                if message == "still here":
                    is_heard = True
                else:
                    left += int(message.split()[-2])
            assert len(await writer.presence("a")) == count // len(rooms) - left
            await asyncio.to_thread(writer.publish_sync, "a", "from a job")
            assert await peers[1].message() == "from a job"
            await writer.close()


@pytest.mark.parametrize("delay", [0, 0.001])
async def test_groups_that_are_closed_while_a_view_joins_leave_no_task(shared_redis, delay):
    before = asyncio.all_tasks()
    for history in (0, 5):
        rooms = Groups(shared_redis.url, history=history, announce=lambda change: None)
        joining = asyncio.ensure_future(rooms.join(Sink(), "lobby", data="x"))
        await asyncio.sleep(delay)
        await rooms.close()
        await joining
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("history", [0, 10])
async def test_a_forbidden_channel_fails_its_own_group_alone(own_redis, meet, until, log, history):
    """The rights to a single channel may be missing, at a join or after a reconnection (ACL of Redis)."""

    own_redis.start()
    with Redis.from_url(own_redis.url) as client:
        client.execute_command("ACL SETUSER user on >secret ~* +@all resetchannels &duck:lobby &duck:other")
        rooms = Groups(own_redis.url.replace("//", "//user:secret@"), history=history)
        since = {"since": ""} if history else {}
        async with meet(rooms, "lobby", 2) as (views, peers):
            for _ in range(2):
                with pytest.raises(BrokerError, match=r"has refused the subscription to b'duck:secret'.*channel"):
                    await rooms.join(views[0], "secret", data={"name": "a"}, **since)
            await rooms.join(views[1], "other", **since)
            await rooms.publish("lobby", "hello")
            await rooms.publish("other", "there")
            assert [await peers[0].message(), await peers[1].message()] == ["hello"] * 2
            assert await peers[1].message() == "there"
            client.execute_command("ACL SETUSER user resetchannels &duck:lobby")  # ends the connection
            await until(lambda: any("b'duck:other'" in entry.message for entry in log()))
            assert "its members get no messages" in log()[-1].message
            if not history:
                assert await peers[0].message() == "gap in lobby"
            await rooms.publish("lobby", "again")
            assert await peers[0].message() == "again"
        await rooms.close()


async def test_an_older_copy_of_the_server_brings_back_nobody_who_has_left(shared_redis):
    here, there = (Groups(shared_redis.url, prefix="older:") for _ in range(2))
    anne, bert = Sink(), Sink()
    await here.join(anne, "lobby", data="anne")
    keys = [key.decode() for key in await shared_redis.ask("KEYS", "*older:*")]
    copy = {key: await shared_redis.ask("DUMP", key) for key in keys}
    assert copy
    await here.leave(anne, "lobby")
    for key, value in copy.items():
        await shared_redis.ask("RESTORE", key, 0, value, "REPLACE")
    assert [one.data for one in await there.presence("lobby")] == ["anne"]
    await here.join(bert, "lobby", data="bert")
    assert [one.data for one in await there.presence("lobby")] == ["bert"]
    await here.close()
    await there.close()
