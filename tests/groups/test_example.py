"""examples/rooms.py, with and without Redis."""

import importlib.util
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from duck.server import serve

ROOMS = Path(__file__).parents[2] / "examples" / "rooms.py"


@pytest.fixture(params=["memory", "redis"])
def rooms(request, monkeypatch):
    """The module."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    if request.param == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("shared_redis").url)
    spec = importlib.util.spec_from_file_location("rooms", ROOMS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rooms_are_apart(run, rooms, dial):
    async def scenario():
        async with serve(rooms.urlpatterns, port=0) as server, AsyncExitStack() as stack:

            async def enter(room):
                peer = await stack.enter_async_context(dial(server, target=f"/ws/{room}"))
                await peer.head()
                return peer

            tea, coffee = (f"{name}-{time.time_ns()}" for name in ("tea", "coffee"))
            alice = await enter(tea)
            assert await alice.message() == '{"text": "somebody has come"}'
            bob, carol = await enter(tea), await enter(coffee)
            assert [await bob.message() for _ in range(2)] == ['{"text": "somebody has come"}'] * 2
            assert await carol.message() == '{"text": "somebody has come"}'
            bob.send("hello")
            assert await bob.message() == '{"text": "hello"}'
            assert [await alice.message() for _ in range(2)] == ['{"text": "somebody has come"}', '{"text": "hello"}']
            carol.send("apart")
            assert await carol.message() == '{"text": "apart"}'
            bob.leave()
            assert await alice.message() == '{"text": "somebody has left"}'

    run(scenario())


def test_it_is_short():
    assert len(ROOMS.read_text().splitlines()) < 100
