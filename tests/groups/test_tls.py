"""Groups over TLS: on one server, on Sentinels and their master, and on a cluster."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.presence import PresenceOptions
from duck.contrib.websockets.groups.redis import RedisBroker
from duck.contrib.websockets.groups.redis.server import connected

from ..support.redis import RedisServer, Sentinel


@pytest.fixture(scope="module")
def options(tls):
    """The options of a server that listens for TLS."""
    certificate = ("--tls-cert-file", tls.certfile, "--tls-key-file", tls.keyfile, "--tls-ca-cert-file", tls.cafile)
    return (*certificate, "--tls-auth-clients", "no")


@pytest.fixture(scope="module")
def master(options, tmp_path_factory):
    return RedisServer(tmp_path_factory.mktemp("master"), *options, tls=True)


@pytest.fixture(scope="module")
def urls(master, options, tls, tmp_path_factory):
    """URLs of each kind; nobody listens without TLS there."""
    bus = ("--cluster-enabled", "yes", "--tls-cluster", "yes")
    node = RedisServer(tmp_path_factory.mktemp("node"), *options, *bus, tls=True)
    sentinel = Sentinel(
        tmp_path_factory.mktemp("sentinel"), "main", master, "", *options, "--tls-replication", "yes", tls=True
    )
    servers = (master, node, sentinel)
    try:
        for server in servers:
            server.start()
        asyncio.run(_take_all_slots(node, tls))
        yield {
            "rediss": f"rediss://127.0.0.1:{master.port}/1",
            "rediss+sentinel": f"rediss+sentinel://127.0.0.1:{sentinel.port}/main/1",
            "rediss+cluster": f"rediss+cluster://127.0.0.1:{node.port}",
        }
    finally:
        for server in servers:
            server.kill()


async def _take_all_slots(node, tls):
    options = {"host": "127.0.0.1", "ssl": True, "ssl_ca_certs": tls.cafile}
    await node.ask("CLUSTER ADDSLOTSRANGE 0 16383", **options)
    while (await node.ask("CLUSTER INFO", **options))["cluster_state"] != "ok":  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["rediss", "rediss+sentinel", "rediss+cluster"])
async def test_messages_pass_with_a_ca_of_ones_own(meet, urls, tls, kind):
    rooms = Groups(f"{urls[kind]}?ssl_ca_certs={tls.cafile}")
    async with meet(rooms, "lobby", 1) as (_, (peer,)):
        await rooms.publish("lobby", "hello")
        assert await peer.message() == "hello"
        await asyncio.to_thread(rooms.publish_sync, "lobby", "from a thread")
        assert await peer.message() == "from a thread"
    await rooms.close()


def test_a_server_with_an_unknown_ca_gets_no_messages(urls):
    causes = {
        "rediss": "certificate verify failed",
        "rediss+sentinel": "No master found",  # redis-py hides why no Sentinel answers
        "rediss+cluster": "certificate verify failed",
    }
    # Synchronous: a loop's connect that is cancelled in the step in which it fails leaves an exception behind.
    with ThreadPoolExecutor() as pool:
        publishing = {kind: pool.submit(Groups(urls[kind], timeout=2).publish_sync, "lobby", "x") for kind in causes}
    for kind, cause in causes.items():
        with pytest.raises(BrokerError, match=rf"was not sent.*{cause}"):
            publishing[kind].result()


@pytest.mark.parametrize("fails", [False, True], ids=["idle", "reading"])
async def test_a_connection_ends_without_an_answer_of_its_server(urls, master, tls, monkeypatch, fails):
    """redis-py forgets a connection at once whose read is cancelled."""
    monkeypatch.setattr("duck.contrib.websockets.groups.redis.server._LAST", 0.05)

    try:
        lost = asyncio.Event()
        url = f"{urls['rediss']}?ssl_ca_certs={tls.cafile}"
        broker = RedisBroker(url, prefix="duck:", timeout=5, history=None, presence=PresenceOptions(30, False))
        async with connected(broker.server) as connection:
            protocol = connection._writer.transport.get_protocol()
            end = protocol.connection_lost
            monkeypatch.setattr(protocol, "connection_lost", lambda error: (end(error), lost.set()))
            master.freeze()
            if fails:
                reading = asyncio.create_task(connection.read_response())
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait([reading])
        async with asyncio.timeout(9):
            await lost.wait()
    finally:
        master.thaw()
