"""Broadcasts that follow each other, beside everything else that a connection sends."""

import asyncio
from contextlib import AsyncExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, broadcast
from duck.contrib.websockets.testing import connect

from ..support.views import Quiet

MEMBERS = 17
KIB = 2**10


members = st.integers(0, MEMBERS - 1)
sizes = st.sampled_from([0, 100, 9 * KIB, 40 * KIB, 70 * KIB])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("broadcast"), sizes),
        st.tuples(st.just("broadcast"), sizes),
        st.tuples(st.just("broadcast to some"), st.sets(members)),
        st.tuples(st.just("send"), members, sizes),
        st.tuples(st.just("stream"), members, sizes),
        st.tuples(st.just("pass"), st.integers(0, 2)),
        st.tuples(st.just("close"), members),
        st.tuples(st.just("terminate"), members),
    ),
    max_size=25,
)


class Program:
    """Performs operations on the members of a room, and notes the messages that each must receive."""

    def __init__(self, views):
        self.views = views
        self.expected = [[] for _ in views]
        self.open = set(range(len(views)))
        self.number = 0
        self.streams = []

    def message(self, size=0):
        self.number += 1
        return f"{self.number} " + "x" * size

    def broadcast(self, size, receivers=range(MEMBERS)):
        message = self.message(size)
        assert broadcast([self.views[member] for member in receivers], message) == len(self.open & set(receivers))
        for member in self.open & set(receivers):
            self.expected[member].append(message)

    async def perform(self, name, argument, size=0):
        if name == "broadcast":
            self.broadcast(argument)
        elif name == "broadcast to some":
            self.broadcast(0, argument)
        elif name == "pass":
            for _ in range(argument):
                await asyncio.sleep(0)
        elif argument not in self.open:
            return
        elif name == "send":
            message = self.message(size)
            _ = self.views[argument].send(message)
            self.expected[argument].append(message)
        elif name == "stream":
            message = self.message(size)
            self.streams.append(asyncio.ensure_future(self.views[argument].send(iter([message, message]))))
            self.expected[argument].append(message * 2)
        elif name == "close":
            await asyncio.gather(*self.streams)
            self.open.discard(argument)
            self.views[argument]._protocol.close()
        else:
            await asyncio.gather(*self.streams)
            self.open.discard(argument)
            self.views[argument]._protocol.terminate()


async def rest_of(client):
    messages = []
    try:
        while True:
            messages.append(await client.recv())
    except ConnectionClosed:
        return messages


async def perform(operations, compression):
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(Quiet, compression=compression, max_size=None))
            for _ in range(MEMBERS)
        ]
        program = Program([client.view for client in clients])
        receiving = [asyncio.ensure_future(rest_of(client)) for client in clients]
        for operation in operations:
            await program.perform(*operation)
        await asyncio.gather(*program.streams)
        for member in program.open:
            program.views[member]._protocol.close()
        assert await asyncio.gather(*receiving) == program.expected


@settings(max_examples=30)
@given(operations, st.booleans())
def test_each_member_gets_everything_in_order(operations, compression):
    asyncio.run(perform(operations, compression))


async def test_all_who_publish_at_once_are_heard_by_all(serving, dial):
    """Real sockets: the first broadcast of an iteration leaves at once, the others together."""
    everyone = set()

    class Chat(Quiet):
        async def on_open(self):
            everyone.add(self)

        async def on_receive(self, message, opcode):
            broadcast(everyone, message)

        async def on_close(self, frame=None):
            everyone.discard(self)

    async with serving(Chat) as server, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(dial(server)) for _ in range(MEMBERS)]
        for peer in peers:
            status, _ = await peer.head()
            assert status == 101
            await server.views.get()
        for number in range(5):
            for sender, peer in enumerate(peers):
                peer.send(f"{sender} {number}")
        for peer in peers:
            heard = {sender: [] for sender in range(MEMBERS)}
            for _ in range(5 * MEMBERS):
                sender, number = map(int, (await peer.message()).split())
                heard[sender].append(number)
            assert heard == {sender: [*range(5)] for sender in range(MEMBERS)}
