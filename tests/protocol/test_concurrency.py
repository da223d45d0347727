"""The number of concurrent handlers, the wait at the limit, and the gathering of replies."""

import asyncio
import asyncio.sslproto
import os
import socket
import sys
import time

import pytest

from duck.contrib.websockets import OpCode, WebSocketView, codec
from duck.contrib.websockets.codec.numbers import CORK_TIME
from duck.contrib.websockets.protocol.protocol import ConnectionProtocol

from ..support.views import Gates

MIB = 2**20


# The limit


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_no_more_handlers_run_than_allowed(connect, limit):
    class View(Gates):
        MAX_CONCURRENT_MESSAGES = limit

    async with connect(View) as session:
        view, peer = session.view, session.peer
        names = [str(i) for i in range(30)]
        peer.send(*names)
        await view.until(lambda: view.running == limit)
        for i, name in enumerate(names):
            # Every one that ends makes room for exactly one.
            await view.until(lambda i=i: view.running == min(limit, 30 - i))
            await asyncio.sleep(0)
            assert view.running == min(limit, 30 - i)
            view.gate(name).set()
            assert await peer.message() == name
        assert view.most == limit
        starts = [event for event in view.events if event.endswith("starts")]
        assert starts == [f"{name} starts" for name in names]


async def test_one_handler_at_a_time_keeps_strict_order(connect):
    class View(Gates):
        MAX_CONCURRENT_MESSAGES = 1

    async with connect(View) as session:
        names = [str(i) for i in range(20)]
        for name in names:
            session.view.gate(name)
        for name in names[::2]:
            session.view.gate(name).set()
        session.peer.send(*names)
        for name in names:
            session.view.gate(name).set()
            assert await session.peer.message() == name
        expected = [f"{name} {step}" for name in names for step in ("starts", "ends")]
        assert session.view.events == expected


async def test_reading_is_on_hold_at_the_limit_and_all_is_handled_in_the_end(connect):
    """While no handler can start, reading stops, and the peer has to wait."""

    class View(Gates):
        MAX_CONCURRENT_MESSAGES = 2

        async def on_receive(self, message, opcode):
            await super().on_receive(message[:1], opcode)

    async with connect(View) as session:
        view, peer = session.view, session.peer
        count = await peer.flood(peer.serialize("a" + "x" * 65_000))
        assert view.running == 2
        view.gate("a").set()
        assert [await peer.message() for _ in range(count)] == ["a"] * count


async def test_a_connection_on_hold_sees_its_peer_go_in_the_end(connect):
    class View(Gates):
        MAX_CONCURRENT_MESSAGES = 1

    async with connect(View) as session:
        view, peer = session.view, session.peer
        peer.send("a", "b")
        await view.until(lambda: view.events)
        peer.close()
        peer.shut()
        view.gate("b").set()
        view.gate("a").set()
        await session.ended()
        assert view.events[-1] == "close"
        assert view.events[:3] == ["a starts", "a ends", "b starts"]


async def test_on_open_counts_as_a_handler(connect):
    class View(Gates):
        MAX_CONCURRENT_MESSAGES = 1

        async def on_open(self):
            self.note("opening")
            await self.gate("open").wait()
            self.note("open")

    async with connect(View) as session:
        session.view.gate("a").set()
        session.peer.send("a")
        await session.view.until(lambda: session.view.events)
        session.view.gate("open").set()
        assert await session.peer.message() == "a"
        assert session.view.events == ["opening", "open", "a starts", "a ends"]


# Writing


def test_replies_to_one_read_leave_in_one_write(connect, tls, monkeypatch):
    """Each 8 ms of handling may add a write ("corking"). Writes can be counted only on asyncio's transport for TLS."""
    writes = []
    write = asyncio.sslproto._SSLProtocolTransport.write

    def counting(self, data):
        if isinstance(self.get_protocol(), ConnectionProtocol):
            writes.append(data)
        return write(self, data)

    monkeypatch.setattr(asyncio.sslproto._SSLProtocolTransport, "write", counting)

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message)

    async def scenario():
        async with asyncio.timeout(10), connect(View, tls=tls) as session:
            for _ in range(3):
                writes.clear()
                begin = time.perf_counter()
                session.peer.send(*["x"] * 100)
                for _ in range(100):
                    assert await session.peer.message() == "x"
                assert 1 <= len(writes) <= 1 + (time.perf_counter() - begin) / 0.008

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a descriptor of the socket")
@pytest.mark.skipif(codec.describe()["codec"] != "compiled", reason="the twin gathers all replies to a read")
@pytest.mark.parametrize("alone", [True, False])
async def test_a_lone_sender_gets_the_first_replies_while_the_rest_is_handled(connect, alone):
    """Among other connections, all leave together: the peer has to wait anyway, and one write costs less."""
    readable, times = [], []

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            if message != b"something else":
                readable.append(self.kwargs["count"]())
                times.append(time.monotonic())
            await self.send(message)

    async with connect(View) as session, connect(View) as other:
        with socket.socket(fileno=os.dup(session.peer.writer.get_extra_info("socket").fileno())) as sock:
            sock.setblocking(False)

            def count():
                try:
                    return len(sock.recv(65536, socket.MSG_PEEK))
                except BlockingIOError:
                    return 0

            session.view.kwargs["count"] = count
            session.peer.send("x")
            assert await session.peer.message() == "x"
            rounds = 0
            while rounds < 3:
                if not alone:
                    other.peer.send("something else")
                    assert await other.peer.message() == "something else"
                readable.clear()
                started = time.monotonic()
                session.peer.send(*["x" * 30] * 64)
                for _ in range(64):
                    assert await session.peer.message() == "x" * 30
                # Old replies leave early: a round in which the machine was busy for so long does not count.
                if times[-1] - started < 0.001 * CORK_TIME / 2:
                    rounds += 1
                    assert readable[0] == 0
                    assert bool(readable[-1]) == alone


async def test_messages_sent_outside_of_a_read_leave_at_once(connect):
    class View(Gates):
        async def on_receive(self, message, opcode):
            await self.send("one")
            await self.gate("go").wait()
            await self.send("two")

    async with connect(View) as session:
        session.peer.send("x")
        assert await session.peer.message() == "one"
        session.view.gate("go").set()
        assert await session.peer.message() == "two"
        await session.view.send("three")
        assert await session.peer.message() == "three"


async def test_large_replies_do_not_pile_up_until_the_end_of_a_read(connect):
    class View(WebSocketView):
        MAX_FRAME_SIZE = None

        async def on_receive(self, message, opcode):
            await self.send(bytes(MIB), OpCode.BINARY)
            unsent.append(self._protocol.writer.size)

    unsent = []
    async with connect(View) as session:
        session.peer.send(*["x"] * 8)
        for _ in range(8):
            assert await session.peer.message() == bytes(MIB)
    assert max(unsent) < MIB
