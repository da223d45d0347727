"""Connections that have ended in every way leave nothing behind. `churn.py` repeats it ten thousand times."""

import asyncio
from contextlib import suppress

import pytest

from duck.contrib.websockets.client import connect
from duck.server import serve

from ..support.leftovers import left
from . import churn

ROUNDS = 10


async def emptied(server):
    """As `churn.settled`, without the collector."""
    while server._work.views or server._work.protocols:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    for _ in range(10):
        await asyncio.sleep(0)  # the tasks of idle workers end behind their connection


async def leave_nothing(visit):
    """Asserts that further visits leave no object that the first one has not left."""
    await visit()
    _, before = left()
    for _ in range(5):
        await visit()
    _, after = left()
    assert after == before


class Waiting(churn.Echo):
    async def on_receive(self, message, opcode):
        await asyncio.sleep(0)
        await super().on_receive(message, opcode)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("view", [churn.Echo, Waiting])
async def test_the_memory_of_a_connection_is_freed_at_once(dial, view):
    """Cycles would wait for the collector, which runs less often with more connections."""
    async with serve(view, port=0) as server:

        async def visit():
            async with dial(server) as peer:
                await peer.head()
                peer.send("x", "y", "z")  # for each of which there is a task
                assert [await peer.message() for _ in "xyz"] == ["x", "y", "z"]
                (view,) = server.connections
                await view.send(iter(["a", "b"]))  # by the longer way
                assert b"".join([(await peer.frame()).payload for _ in range(3)]) == b"ab"
                del view
                peer.send("x")
                peer.leave()  # so that the answer is sent after the peer has gone
            await emptied(server)

        await leave_nothing(visit)


@pytest.mark.usefixtures("no_collector")
async def test_cancelled_waits_are_freed_at_once():
    """The traceback of a cancellation refers to the frames of coroutines in plain Python."""

    async def timed_out(wait):
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await wait

    class Patient(churn.Echo):
        async def on_receive(self, message, opcode):
            await timed_out(asyncio.Event().wait())
            await super().on_receive(message, opcode)

    async with serve(Patient, port=0) as server:

        async def visit():
            async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                await timed_out(ws.recv())
                await ws.send("x")
                assert await ws.recv() == "x"
            await emptied(server)

        await leave_nothing(visit)


async def test_connections_that_come_and_go_leave_nothing(log, monkeypatch):
    monkeypatch.setattr(churn.Echo, "opened", 0)
    monkeypatch.setattr(churn.Echo, "closed", 0)
    async with serve(churn.Echo, port=0) as server:
        await churn.come_and_go(server.port, len(churn.WAYS))
        await churn.settled(server)
        before = left()
        await churn.come_and_go(server.port, len(churn.WAYS) * ROUNDS)
        await churn.settled(server)
        assert left() == before
        assert churn.Echo.opened == churn.Echo.closed == 5 * (1 + ROUNDS)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert log() == []
