"""Groups on a real Redis cluster of three masters, by sharded pub/sub."""

import asyncio
import itertools

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.groups import BrokerError, Groups

from ..support.redis import RedisServer

NAMES = [f"room {number}" for number in range(12)]  # in slots of all masters


async def ask(server, *words):
    from redis.asyncio import Redis

    async with Redis(port=server.port, socket_timeout=10) as client:
        return await client.execute_command(*words)


@pytest.fixture
def cluster(tmp_path, runner):
    """Three masters that know each other, with a third of the slots each."""
    servers = []
    try:
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            options = (
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            )
            server = RedisServer(tmp_path / str(number), *options)
            server.start()
            servers.append(server)
        runner.run(_introduce(servers))
        yield servers
    finally:
        for server in servers:
            server.kill()


async def _introduce(servers):
    for number, server in enumerate(servers):
        await ask(server, "CLUSTER", "ADDSLOTSRANGE", number * 5461, 16383 if number == 2 else number * 5461 + 5460)
        if number:
            await ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await ask(server, "CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    for server in servers:
        while not await _is_ready(server):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _is_ready(server):
    state = await ask(server, "CLUSTER", "INFO")
    return b"cluster_state:ok" in state and len(await ask(server, "CLUSTER", "SLOTS")) == 3


class Told(WebSocketView):
    async def on_gap(self, group):
        await self.send(f"gap in {group}")


def test_groups_are_spread_over_the_masters(run, cluster, meet):
    async def scenario():
        url = f"redis+cluster://127.0.0.1:{cluster[1].port}"
        rooms, writer = Groups(url), Groups(url)
        async with meet(rooms, NAMES[0], 2) as (views, peers):
            for view in views:
                for name in NAMES[1:]:
                    await rooms.join(view, name)
            shares = [await ask(server, "PUBSUB", "SHARDCHANNELS") for server in cluster]
            assert all(shares)
            assert sorted(itertools.chain(*shares)) == sorted(f"duck:{name}".encode() for name in NAMES)
            for name in NAMES:
                await writer.publish(name, f"to {name}")
                assert [await peer.message() for peer in peers] == [f"to {name}"] * 2
            await asyncio.to_thread(writer.publish_sync, NAMES[0], "from a job")
            assert [await peer.message() for peer in peers] == ["from a job"] * 2
            await rooms.leave(views[0], NAMES[3])
            await rooms.leave(views[1], NAMES[3])
            await writer.publish(NAMES[3], "to nobody")
            await writer.publish(NAMES[4], "last", exclude=views[0])
        await writer.close()
        await rooms.close()

    run(scenario())


def test_a_slot_that_moves_to_another_master(run, cluster, meet):
    """Members are told of the gap, and publishers do not notice."""
    from redis.crc import key_slot

    async def scenario():
        url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
        rooms, writer = Groups(url), Groups(url)
        slot = key_slot(f"duck:{NAMES[0]}".encode())
        owner = slot // 5461 if slot < 2 * 5461 else 2
        target = (owner + 1) % 3
        async with meet(rooms, NAMES[0], 1, base=Told) as (_, (peer,)):
            await writer.publish(NAMES[0], "before")
            assert await peer.message() == "before"
            identity = await ask(cluster[target], "CLUSTER", "MYID")
            for server in (cluster[target], cluster[owner], cluster[3 - owner - target]):
                await ask(server, "CLUSTER", "SETSLOT", slot, "NODE", identity)
            while await peer.message() != f"gap in {NAMES[0]}":
                pass
            await writer.publish(NAMES[0], "after")
            assert await peer.message() == "after"
        await writer.close()
        await rooms.close()

    run(scenario())


def test_a_master_that_is_killed_and_comes_back(run, cluster, meet):
    async def scenario():
        rooms = Groups(f"redis+cluster://127.0.0.1:{cluster[0].port}", timeout=2)
        async with meet(rooms, NAMES[0], 1, base=Told) as (views, (peer,)):
            for name in NAMES[1:]:
                await rooms.join(views[0], name)
            lost = {
                channel.decode().removeprefix("duck:") for channel in await ask(cluster[2], "PUBSUB", "SHARDCHANNELS")
            }
            cluster[2].kill()
            for name in NAMES:
                if name not in lost:
                    await rooms.publish(name, name)
                    assert await peer.message() == name
            with pytest.raises(BrokerError):
                await rooms.publish(min(lost), "to nobody")
            cluster[2].start()
            assert {await peer.message() for _ in lost} == {f"gap in {name}" for name in lost}
            for name in lost:
                await rooms.publish(name, "again")
                assert await peer.message() == "again"
        await rooms.close()

    run(scenario())


def test_a_cluster_that_is_away(run, meet, log):
    pytest.importorskip("redis")

    async def scenario():
        rooms = Groups("redis+cluster://127.0.0.1:1", timeout=0.3)
        async with meet(rooms, "lobby", 1) as (_, (peer,)):
            with pytest.raises(BrokerError, match="no node of the cluster"):
                await rooms.publish("lobby", "to nobody")
            peer.send("stays connected")
        await rooms.close()
        assert log()

    run(scenario())
