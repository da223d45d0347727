"""`on_handshake` under attack: many clients at once that are refused, that leave, or whose hook never ends."""

import asyncio
import gc
import weakref

import pytest

from duck.contrib.websockets import HandshakeError, WebSocketView
from duck.server import Limits, serve

from ..support.leftovers import open_files

CLIENTS = 40
"""Of each kind at a time."""


@pytest.fixture(params=["embedded", "uvicorn"])
def hosting(request, serving_asgi):
    """Serves a view class on one of the hosts: `async with hosting(View) as server`."""
    if request.param == "embedded":
        return lambda view_class: serve(view_class, port=0)
    pytest.importorskip("uvicorn")
    return lambda view_class: serving_asgi(view_class.as_asgi())


class Guarded(WebSocketView):
    """Refuses, accepts or never decides, as the query requests.

    Attributes:
        views: The views that exist.
        waiting: The views whose hook runs.
    """

    HANDSHAKE_TIMEOUT = 0.3
    views: weakref.WeakSet
    waiting: weakref.WeakSet

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.views.add(self)

    async def on_handshake(self, handshake):
        self.waiting.add(self)
        try:
            await asyncio.sleep(0)
            if handshake.request.query_string == "refuse":
                raise HandshakeError(429, "slowly", {"Retry-After": "1"})
            if handshake.request.query_string == "wait":
                await asyncio.Event().wait()
        finally:
            self.waiting.remove(self)

    async def on_open(self):
        await self.send("welcome")


async def test_a_flood_of_handshakes_leaves_nothing(hosting, dial, until):
    class View(Guarded):
        views, waiting = weakref.WeakSet(), weakref.WeakSet()

    async def refused(server):
        async with dial(server, target="/?refuse") as peer:
            status, headers = await peer.head()
            assert (status, headers["retry-after"]) == (429, "1")
            assert await peer.reader.read() == b"slowly\n"

    async def undecided(server):
        async with dial(server, target="/?wait") as peer:
            assert (await peer.head())[0] == 503

    async def shutting(server):
        async with dial(server, target="/?wait") as peer:
            peer.shut()

    async def resetting(server):
        async with dial(server, target="/?wait") as peer:
            peer.reset()

    async def accepted(server):
        async with dial(server, target="/?accept") as peer:
            assert (await peer.head())[0] == 101
            assert await peer.message() == "welcome"
            peer.leave()

    async with hosting(View) as server:
        before = len(asyncio.all_tasks()), open_files()
        kinds = (refused, undecided, shutting, resetting, accepted)
        await asyncio.gather(*(kind(server) for _ in range(CLIENTS) for kind in kinds))
        await until(lambda: (len(asyncio.all_tasks()), open_files()) == before)
        assert not View.waiting
        gc.collect()
        assert not View.views


async def test_endless_hooks_are_bounded_by_the_allowed_connections(dial, until):
    class View(Guarded):
        HANDSHAKE_TIMEOUT = None
        views, waiting = weakref.WeakSet(), weakref.WeakSet()

    statuses = []
    async with serve(View, port=0, limits=Limits(connections_per_address=10, linger_timeout=0.05)) as server:

        async def attack():
            async with dial(server, target="/?wait") as peer:
                status = (await peer.head())[0]
                statuses.append(status)

        attackers = [asyncio.create_task(attack()) for _ in range(CLIENTS)]
        await until(lambda: len(statuses) == CLIENTS - 10)
        assert set(statuses) == {503}
        assert len(View.waiting) == 10
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)
        await until(lambda: not View.waiting and not server._work.protocols and not server._work.views)
        async with dial(server, target="/?accept") as peer:
            assert (await peer.head())[0] == 101
            peer.leave()
