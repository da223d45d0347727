"""Groups on a master and a replica that a real Sentinel watches."""

import asyncio

import pytest

from duck.contrib.websockets.groups import BrokerError, Groups

from ..support.processes import free_port
from ..support.redis import RedisServer, Sentinel

pytestmark = pytest.mark.parametrize("loop_name", ["asyncio"], indirect=True)  # a failover takes seconds

PASSWORD = "secret"


@pytest.fixture
def servers(tmp_path_factory):
    """A master, its replica, and a Sentinel that knows of both."""
    folders = [tmp_path_factory.mktemp(name) for name in ("master", "replica", "sentinel")]
    secret = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    master = RedisServer(folders[0], *secret, "--repl-diskless-sync-delay", "0")
    replica = RedisServer(folders[1], *secret, "--replicaof", "127.0.0.1", str(master.port))
    sentinel = Sentinel(folders[2], "main", master, PASSWORD)
    servers = (master, replica, sentinel)

    async def know_each_other():
        while (await replica.ask("INFO", "replication", password=PASSWORD))["master_link_status"] != "up":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        sentinel.start()
        while not await sentinel.ask("SENTINEL", "REPLICAS", "main"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    try:
        master.start()
        replica.start()
        asyncio.run(know_each_other())
        yield servers
    finally:
        for server in servers:
            server.kill()


async def test_a_replica_is_not_taken_for_the_master(servers):
    """After a failover a Sentinel may still name a server that has become a replica."""
    _, replica, sentinel = servers
    await sentinel.ask("SENTINEL", "MONITOR", "other", "127.0.0.1", replica.port, "1")
    rooms = Groups(f"redis+sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/other", timeout=2)
    nowhere = Groups(f"redis+sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/nowhere", timeout=2)
    publishing = [
        rooms.publish("lobby", "to nobody"),
        asyncio.to_thread(rooms.publish_sync, "lobby", "to nobody"),
        nowhere.publish("lobby", "to nobody"),
    ]
    *demoted, unknown = await asyncio.gather(*publishing, return_exceptions=True)
    for error in demoted:
        assert isinstance(error, BrokerError) and "is no longer a master" in str(error)
    assert isinstance(unknown, BrokerError) and "no Sentinel knows a master 'nowhere'" in str(unknown)
    await rooms.close()
    await nowhere.close()


async def test_members_and_publishers_follow_a_failover(servers, meet):
    """Connections stay, members are told of the gap, and messages pass through the new master, from threads too."""
    master, _, sentinel = servers
    url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/1"
    rooms = Groups(url, timeout=20)
    async with meet(rooms, "lobby", 2) as (_, peers):
        await rooms.publish("lobby", "before")
        await asyncio.to_thread(rooms.publish_sync, "lobby", "from a thread")
        for peer in peers:
            assert [await peer.message(), await peer.message()] == ["before", "from a thread"]
        # From here on it does not matter when the failover begins.
        await sentinel.ask("SENTINEL", "SET", "main", "down-after-milliseconds", "100")
        master.kill()
        assert [await peer.message() for peer in peers] == ["gap in lobby"] * 2
        await rooms.publish("lobby", "after")
        await asyncio.to_thread(rooms.publish_sync, "lobby", "from a thread")
        for peer in peers:
            assert [await peer.message(), await peer.message()] == ["after", "from a thread"]
    await rooms.close()
