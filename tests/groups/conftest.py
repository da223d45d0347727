"""Fixtures for the tests of groups: a Redis server, views that join, and the peers of several of them."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.groups import Groups

from ..support.redis import RedisServer


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Attempts to connect follow one another soon, however long the server has been away."""
    monkeypatch.setattr("duck.contrib.websockets.groups.redis.server._MOST_DELAY", 0.1)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory):
    """A Redis server that no test may kill."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path):
    """A Redis server of the test's own, which has not been started."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
def new_groups(request):
    """Makes groups on each of the brokers; those of one test share a broker."""
    if request.param == "memory":
        groups = Groups()
        return lambda: groups
    server = request.getfixturevalue("shared_redis")
    prefix = f"{request.node.name}:"
    return lambda: Groups(server.url, prefix=prefix)


@pytest.fixture
def rooms(new_groups):
    return new_groups()


class Told(WebSocketView):
    async def on_gap(self, group):
        await self.send(f"gap in {group}")


@pytest.fixture
def meet(serving, dial):
    """Connects peers whose views join a group, and tell of gaps.

    `async with meet(rooms, "lobby", 3) as (views, peers)`
    """

    @asynccontextmanager
    async def meet(rooms, group, count=2, *, base=Told):
        class Member(base):
            PING_INTERVAL = None

            async def on_open(self):
                await rooms.join(self, group)
                await self.send("joined")

        async with serving(Member) as server, AsyncExitStack() as stack:
            views, peers = [], []
            for _ in range(count):
                peer = await stack.enter_async_context(dial(server))
                await peer.head()
                assert await peer.message() == "joined"
                views.append((await server.views.get())[0])
                peers.append(peer)
            yield views, peers

    return meet
