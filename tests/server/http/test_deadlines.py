"""Deadlines of HTTP: for a request, for the next one, and for a client that does not read."""

import asyncio
import socket
import sys
import time

from duck.server import Limits, serve
from duck.urls import path

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"

urlpatterns = [path("/", lambda request: "a page")]


async def test_a_request_that_does_not_end_is_answered_408(connect):
    """The first one and a later one, wherever it stops."""

    async def answered(server, part):
        async with connect(server) as client:
            client.send(part)
            response = await client.response()
            assert (response.status, response.headers["connection"]) == (408, "close")
            assert await client.rest() == b""
        async with connect(server) as client:
            assert (await client.get()).status == 200
            client.send(part)
            assert (await client.response()).status == 408

    limits = Limits(head_timeout=0.1, linger_timeout=0.1, keep_alive_timeout=1000)
    parts = [GET[:1], GET[:-1], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"]
    async with serve(urlpatterns, port=0, limits=limits) as server:
        await asyncio.gather(*(answered(server, part) for part in parts))


async def test_a_request_that_came_while_the_loop_was_busy_is_answered(connect):
    limits = Limits(head_timeout=0.1)
    async with serve(urlpatterns, port=0, limits=limits) as server, connect(server) as client:
        while not server._work.protocols:  # noqa: ASYNC110
            await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251
        await asyncio.sleep(0)
        client.send(GET)  # before the deadline is noticed
        assert (await client.response()).status == 200


async def test_a_dripped_request_is_not_given_more_time(connect):
    async def drip(client):
        for byte in GET * 1000:
            client.send(bytes([byte]))
            await asyncio.sleep(0.02)

    limits = Limits(head_timeout=0.2, linger_timeout=0.1)
    async with serve(urlpatterns, port=0, limits=limits) as server, connect(server) as client:
        dripping = asyncio.create_task(drip(client))
        assert (await client.response()).status == 408
        dripping.cancel()


def test_reads_arm_no_timers(connect):
    armed = []

    async def scenario():
        loop = asyncio.get_running_loop()
        call_at = loop.call_at

        def counting(when, callback, *args, **kwargs):
            if "Clock" in callback.__qualname__:
                armed.append(when)
            return call_at(when, callback, *args, **kwargs)

        loop.call_at = counting
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            for byte in GET[:-1]:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            client.send(GET[-1:])
            assert (await client.response()).status == 200

    asyncio.run(scenario())
    assert len(armed) == 1


async def test_a_silent_connection_is_closed_without_an_answer(connect, ssl):
    limits = Limits(head_timeout=0.1 if ssl is None else 1)  # with the handshake of TLS
    serving = serve(urlpatterns, port=0, limits=limits, ssl=ssl)
    async with serving as server, connect(server) as client:
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed(connect):
    """Also where a request would have more, or less time."""

    async def closed(head_timeout):
        limits = Limits(head_timeout=head_timeout, keep_alive_timeout=0.15)
        async with serve(urlpatterns, port=0, limits=limits) as server, connect(server) as client:
            assert (await client.get()).status == 200
            assert await client.rest() == b""

    await asyncio.gather(closed(0.1), closed(10))


async def test_a_slow_view_has_no_deadline(connect):
    release = asyncio.Event()

    async def view(request):
        await release.wait()
        return "late"

    limits = Limits(head_timeout=0.05, keep_alive_timeout=0.05)
    async with serve([path("/", view)], port=0, limits=limits) as server, connect(server) as client:
        client.send(GET)
        asyncio.get_running_loop().call_later(0.15, release.set)
        assert (await client.response()).body == b"late"


async def test_a_client_that_does_not_read_gets_no_more_answers_and_is_dropped(connect, until):
    asked = []
    page = b"x" * 1_000_000

    def view(request):
        asked.append(request)
        return page

    limits = Limits(keep_alive_timeout=0.1)
    async with serve([path("/", view)], port=0, limits=limits) as server, connect(server) as client:
        client.writer.transport.pause_reading()
        client.send(GET * 1000)
        await until(lambda: asked and asked[0].transport.is_closing())
    assert len(asked) < 100


async def test_a_client_that_reads_slowly_is_served(connect, ssl):
    """Slower than the transport notices: the kernel asks for more bytes once a third of a large buffer is free."""
    page = bytes(8_000_000)

    async def read(server, field):
        async with connect(server) as client:
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            client.send(GET.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n"))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"\r\nContent-Length: 8000000\r\n" in head
            for _ in range(12):
                await client.reader.readexactly(200_000)
                await asyncio.sleep(0.1)
            await client.reader.readexactly(len(page) - 2_400_000)

    limits = Limits(keep_alive_timeout=0.4, linger_timeout=0.4)
    async with serve([path("/", lambda request: page)], port=0, ssl=ssl, limits=limits) as server:
        fields = [b"Connection: keep-alive", b"Connection: close"]
        if ssl is None or sys.version_info < (3, 14):
            fields.append(b"Expect: 100-continue")  # lingers, which CPython 3.14 still cuts short over TLS
        await asyncio.gather(*(read(server, field) for field in fields))
