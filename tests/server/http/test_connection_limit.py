"""The limits of connections, in all and for each address."""

import asyncio

import pytest

from duck.contrib.websockets import Frame, OpCode
from duck.contrib.websockets.metrics import Metrics
from duck.server import Limits, serve
from duck.server.http import connection_limit
from duck.server.http.connection_limit import ConnectionLimiter
from duck.server.server import TURNED_AWAY
from duck.urls import path

from ...support.handshake import upgrade
from ...support.views import Echo

HANDSHAKE = upgrade("/echo")

PAGE = b"GET /page HTTP/1.1\r\nHost: test\r\n\r\n"


urlpatterns = [path("/echo", Echo), path("/page", lambda request: "a page")]


def serving(**limits):
    return serve(urlpatterns, port=0, limits=Limits(**limits))


async def upgraded(client):
    client.send(HANDSHAKE)
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def turned_away(client):
    client.send(PAGE)
    response = await client.response()
    assert (response.status, response.headers["connection"]) == (503, "close")
    assert await client.end() == b""


async def close(client):
    client.send(Frame(OpCode.CLOSE).serialize(mask=True))
    assert await client.rest() == b"\x88\x00"


async def test_connections_are_limited(connect, until, caplog):
    async with (
        serving(connections=2) as server,
        connect(server) as one,
        connect(server) as two,
    ):
        await upgraded(one)
        two.send(PAGE)
        assert (await two.response()).status == 200
        for _ in range(3):
            async with connect(server) as three:
                await turned_away(three)
        # Open connections are not affected.
        one.send(Frame(OpCode.TEXT, payload=b"Hi!").serialize(mask=True))
        assert await one.reader.readexactly(5) == b"\x81\x03Hi!"
        await close(one)
        await until(lambda: not server._work.views)
        async with connect(server) as four:
            await upgraded(four)
    words = "2 connections are open, as many as Limits.connections allows: more are refused"
    assert caplog.messages.count(words) == 1  # in a minute


async def test_refusals_for_lack_of_room_are_bounded(connect):
    """Clients that are turned away may read the reason, a bounded number of them at a time."""

    async def told(reader):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    async with serving(connections=1) as server, connect(server) as one:
        await upgraded(one)
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(TURNED_AWAY + 10)]
        for _, writer in waiting:
            writer.write(PAGE)
        answers = await asyncio.gather(*(told(reader) for reader, _ in waiting))
        assert 10 <= answers.count(b"") < TURNED_AWAY + 10
        assert {answer[:13] for answer in answers} == {b"HTTP/1.1 503 ", b""}
        for _, writer in waiting:
            writer.transport.abort()


async def test_connections_of_an_address_are_limited(connect, until, caplog):
    async with serving(connections_per_address=1) as server, connect(server) as one:
        await upgraded(one)
        async with connect(server) as two:
            await turned_away(two)
        assert server.stats().refused == {"no_room": 1}
        await until(lambda: not server._turned_away)
        assert server._limiter.count == 1
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
        writer.write(HANDSHAKE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.transport.abort()
        await close(one)
        await until(lambda: not server._work.views)
        async with connect(server) as three:
            await upgraded(three)
    assert "127.0.0.1 has 1 connections: more from there are refused" in caplog.messages


async def test_a_client_beyond_the_limit_has_little_time_for_its_request(connect):
    async with serving(connections=1, linger_timeout=0.05) as server, connect(server) as one:
        await upgraded(one)
        async with connect(server) as two:
            assert await two.end() == b""
        async with connect(server) as three:
            three.send(PAGE[:10])
            assert (await three.response()).status == 408


@pytest.mark.parametrize("request_", [PAGE, b"no HTTP\r\n\r\n", HANDSHAKE.replace(b"13", b"12"), b"", PAGE[:10]])
async def test_a_client_that_has_left_does_not_count(connect, until, request_):
    async with serving(connections=1, connections_per_address=1, linger_timeout=0.05) as server:
        for _ in range(3):
            async with connect(server) as client:
                client.send(request_)
                if request_.endswith(b"\r\n\r\n"):
                    assert (await client.response()).status != 503
            await until(lambda: server._limiter.count == 0)
            assert not server._limiter._groups  # there may be millions of addresses, one after the other


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("10.0.0.1", 1), ("10.0.0.1", 2), True),
        (("10.0.0.1", 1), ("10.0.0.2", 1), False),
        (("2001:db8:0:1::1", 1), ("2001:db8:0:1:ffff::2", 1), True),
        (("2001:db8:0:1::1", 1), ("2001:db8:0:2::1", 1), False),
        (("fe80::1%eth0", 1), ("fe80::2%eth1", 1), True),
        (("::ffff:10.0.0.1", 1), ("10.0.0.1", 1), True),
        (("::ffff:10.0.0.1", 1), ("::ffff:10.0.0.2", 1), False),
        (None, "/run/socket", True),
    ],
)
async def test_addresses_of_one_owner_share_a_limit(one, other, same):
    limiter = ConnectionLimiter(Limits(connections_per_address=1), Metrics())
    first, second = limiter.acquire(), limiter.acquire()
    assert first.assign(one)
    assert second.assign(other) is not same
    first.release()
    assert second.assign(one)


async def test_a_kept_connection_counts_only_for_the_address_of_its_last_request():
    """Through a trusted proxy, a connection carries the requests of many clients."""
    limiter = ConnectionLimiter(Limits(connections_per_address=1), Metrics())
    first, second, third, fourth = ("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1), ("10.0.0.4", 1)
    proxied, other = limiter.acquire(), limiter.acquire()
    assert all(proxied.assign(address) for address in (first, second, third))
    assert other.assign(first)
    assert not proxied.assign(first)  # counts for no address any more
    proxied.release()
    for address in (second, third, fourth):
        one, two = limiter.acquire(), limiter.acquire()
        assert one.assign(address)
        assert not two.assign(address)


def test_the_limit_of_open_files_is_the_default():
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = ConnectionLimiter(Limits(), Metrics()).limit
    assert limit is None if soft == resource.RLIM_INFINITY else 0 < limit < soft
    assert ConnectionLimiter(Limits(), Metrics()).per_address is None


async def test_refusals_at_the_limit_of_open_files_name_it(caplog, monkeypatch):
    monkeypatch.setattr(connection_limit, "_files", lambda: 1)
    limiter = ConnectionLimiter(Limits(), Metrics())
    assert limiter.acquire()
    assert limiter.acquire() is None
    words = "1 connections are open, as many as the limit of open files (ulimit -n) allows: more are refused"
    assert caplog.messages == [words]


def test_a_limit_above_that_of_open_files_causes_a_warning(caplog):
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        pytest.skip("there is no limit of open files")
    assert ConnectionLimiter(Limits(connections=soft), Metrics()).limit == soft
    (record,) = caplog.records
    assert f"Limits.connections is {soft}, but the limit of open files" in record.getMessage()
