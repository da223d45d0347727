"""examples/rooms.py, with and without Redis."""

import importlib.util
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from duck.server import serve

ROOMS = Path(__file__).parents[2] / "examples" / "rooms.py"


@pytest.fixture(params=["memory", "redis"])
def rooms(request, monkeypatch):
    """The module."""
    monkeypatch.delenv("DUCK_GROUPS", raising=False)
    if request.param == "redis":
        monkeypatch.setenv("DUCK_GROUPS", request.getfixturevalue("shared_redis").url)
    spec = importlib.util.spec_from_file_location("rooms", ROOMS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_rooms_are_separate_and_show_presence(rooms, dial):
    async with serve(rooms.urlpatterns, port=0) as server, AsyncExitStack() as stack:

        async def enter(room, name, since=""):
            peer = await stack.enter_async_context(dial(server, target=f"/ws/{room}?name={name}&since={since}"))
            await peer.head()
            return peer

        async def told(peer, key):
            """The next of the messages that have something under this key."""
            while not (message := json.loads(await peer.message())).get(key):
                pass
            return message

        async def until_here(peer, *names):
            here = {}
            while sorted(here.values()) != sorted(names):
                message = json.loads(await peer.message())
                here.update(message.get("joined", []))
                for entry, _ in message.get("left", []):
                    del here[entry]

        tea, coffee = (f"{name}-{time.time_ns()}" for name in ("tea", "coffee"))
        alice = await enter(tea, "alice")
        await until_here(alice, "alice")
        bob, carol = await enter(tea, "bob"), await enter(coffee, "carol")
        await until_here(bob, "alice", "bob")
        bob.send("hello")
        assert (await told(bob, "text"))["text"] == "bob: hello"
        place = (await told(alice, "id"))["id"]
        bob.send("again")
        bob.leave()
        assert (await told(alice, "text"))["text"] == "bob: again"
        assert [name for _, name in (await told(alice, "left"))["left"]] == ["bob"]
        bob = await enter(tea, "bob", place)
        assert (await told(bob, "text"))["text"] == "bob: again"
        await until_here(bob, "alice", "bob")
        carol.send("apart")
        assert (await told(carol, "text"))["text"] == "carol: apart"
        stranger = await enter(tea, "x", "nonsense")
        assert await stranger.closing() == (1008, "'nonsense' is not an id of a message")
