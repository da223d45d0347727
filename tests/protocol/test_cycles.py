"""The end of a connection frees its objects at once, without a garbage collection."""

import asyncio
import gc
import weakref

import pytest

from duck.contrib.websockets import ConnectionClosed, OpCode

from ..support.servers import SLOW
from ..support.views import Quiet

pytestmark = pytest.mark.in_memory


@pytest.fixture(autouse=True)
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def generator(ended):
    try:
        while True:
            yield bytes(65536)
    finally:
        ended.set()


async def async_generator(ended):
    try:
        while True:
            yield bytes(65536)
    finally:
        ended.set()


@pytest.mark.parametrize("by_frame", [True, False], ids=["by frame", "directly"])
@pytest.mark.parametrize("waits", [True, False], ids=["awaited", "ignored"])
@pytest.mark.parametrize("end", ["our close", "gone", "cancelled"])
@pytest.mark.parametrize("kind", [generator, async_generator])
async def test_the_source_of_a_message_that_is_given_up_ends(connect, kind, end, waits, by_frame):
    """It may have a file open."""
    ended = asyncio.Event()

    class View(Quiet):
        async def on_receive(self, message, opcode):
            source = kind(ended)
            sent = self.send(source)
            if end == "cancelled":
                asyncio.get_running_loop().call_later(1, asyncio.current_task().cancel)
            if waits or end == "cancelled":
                await sent

        if by_frame:

            async def send_frame(self, frame):
                await super().send_frame(frame)

    async with connect(View, **SLOW) as session:
        session.peer.send("begin")
        assert not (await session.peer.frame()).fin
        if end == "our close":
            await session.view.send_close()
        elif end == "gone":
            session.peer.leave()
        async with asyncio.timeout(60):
            await ended.wait()


async def sending(view):
    while True:
        await view.send("x" * 65536)


async def sending_behind_a_stream(view):
    _ = view.send(generator(asyncio.Event()), OpCode.BINARY)
    await view.send("behind")


async def pinging(view):
    await view.ping()


async def pinging_in_a_task(view):
    await view.create_task(view.ping())


@pytest.mark.parametrize("wait", [sending, sending_behind_a_stream, pinging, pinging_in_a_task])
async def test_a_handler_that_waits_for_a_peer_which_leaves_is_freed(connect, wait):
    class Held:
        pass

    class View(Quiet):
        async def on_receive(self, message, opcode):
            held = Held()
            kept.append(weakref.ref(held, lambda _: freed.set()))
            await wait(self)
            raise AssertionError(held)

    kept, freed = [], asyncio.Event()
    async with connect(View, **SLOW) as session:
        session.peer.send("begin")
        await session.peer.frame()
        session.peer.leave()
        async with asyncio.timeout(60):
            await freed.wait()


async def test_each_wait_for_a_message_that_is_given_up_raises(connect):
    async with connect(Quiet, **SLOW) as session:
        sent = session.view.send(generator(asyncio.Event()))
        session.peer.leave()
        for _ in range(2):
            with pytest.raises(ConnectionClosed, match="1006"):
                await sent
