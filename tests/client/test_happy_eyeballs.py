"""Hosts with several addresses, some of which are dead."""

import asyncio
import errno
import socket
import sys
from contextlib import contextmanager

import pytest

from duck.contrib.websockets.client import connect, happy_eyeballs

from ..support.leftovers import open_files
from ..support.processes import free_port
from ..support.views import Echo

V4, V6 = socket.AF_INET, socket.AF_INET6
NAME = "several.example"


def resolve_to(*addresses):
    """Gives the running loop the addresses of NAME, as (family, address)."""

    async def getaddrinfo(host, port, **options):
        assert host == NAME
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]

    asyncio.get_running_loop().getaddrinfo = getaddrinfo


@contextmanager
def dead():
    """An address that does not answer: of a listener with a full backlog."""
    if sys.platform != "linux":
        pytest.skip("only Linux ignores connections beyond the backlog")
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        pending = []
        while True:
            sock = socket.socket()
            pending.append(sock)
            sock.settimeout(0.1)
            try:
                sock.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()
        for sock in pending:
            sock.close()


def refusing():
    """An address that refuses connections."""
    return ("127.0.0.1", free_port())


async def test_a_dead_address_does_not_prevent_a_connection(serving, either_tls, monkeypatch):
    monkeypatch.setattr(happy_eyeballs, "_DELAY", 0.05)
    async with serving(Echo, tls=either_tls) as server:
        with dead() as first, dead() as second:
            resolve_to((V4, first), (V4, second), (V4, ("127.0.0.1", server.port)))
            options = {"ssl": either_tls.client, "server_hostname": "localhost"} if either_tls else {}
            url = f"{'wss' if either_tls else 'ws'}://{NAME}:{server.port}"
            async with connect(url, **options) as ws:
                assert ws.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await ws.send("quack")
                assert await ws.recv() == "quack"


async def test_an_address_that_fails_is_followed_by_the_next_at_once(serving, monkeypatch):
    monkeypatch.setattr(happy_eyeballs, "_DELAY", 3600)
    async with serving(Echo) as server:
        resolve_to((V4, refusing()), (V4, refusing()), (V4, ("127.0.0.1", server.port)))
        async with connect(f"ws://{NAME}:{server.port}") as ws:
            await ws.send("quack")
            assert await ws.recv() == "quack"


async def test_the_error_of_a_host_tells_of_each_address():
    resolve_to((V4, refusing()))
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://{NAME}")
    resolve_to((V4, refusing()), (V4, refusing()))
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1") as caught:
        await connect(f"ws://{NAME}")
    assert caught.value.errno == errno.ECONNREFUSED
    resolve_to((V4, refusing()), (V4, ("255.255.255.255", 1)))
    with pytest.raises(OSError, match=r"127\.0\.0\.1.*; ") as caught:
        await connect(f"ws://{NAME}")
    assert type(caught.value) is OSError


async def test_the_families_of_addresses_take_turns(monkeypatch):
    tried = []

    async def attempt(loop, info):
        tried.append(info[4])
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(happy_eyeballs, "_attempt", attempt)
    resolve_to((V6, 1), (V6, 2), (V6, 3), (V4, 4), (V4, 5))
    with pytest.raises(ConnectionRefusedError):
        await connect(f"ws://{NAME}")
    assert tried == [1, 4, 2, 5, 3]


async def test_a_connection_that_comes_too_late_is_closed(until, monkeypatch):
    monkeypatch.setattr(happy_eyeballs, "_DELAY", 0)
    begun, made = [], []

    async def attempt(loop, info):
        begun.append(info)
        await info[4].wait()
        ours, peer = socket.socketpair()
        made.append((ours, peer))
        return ours

    monkeypatch.setattr(happy_eyeballs, "_attempt", attempt)
    both = asyncio.Event()
    resolve_to((V4, both), (V6, both))
    connecting = asyncio.create_task(happy_eyeballs.connect_to(NAME, 80))
    await until(lambda: len(begun) == 2)
    both.set()
    taken = await connecting
    assert sorted(sock.fileno() == -1 for sock, _ in made) == [False, True]
    taken.close()
    for _, peer in made:
        peer.close()


async def test_the_end_of_an_opening_closes_its_attempts(until, monkeypatch):
    monkeypatch.setattr(happy_eyeballs, "_DELAY", 0.05)
    with dead() as first, dead() as second:
        resolve_to((V4, first), (V4, second))
        before = open_files()
        task = asyncio.create_task(happy_eyeballs.connect_to(NAME, 80))
        await until(lambda: open_files() == before + 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: open_files() == before)


async def test_the_zone_of_an_address_names_the_interface():
    """uvloop drops the zone, and libuv takes the first interface."""
    with pytest.raises(socket.gaierror):
        await connect("ws://[fe80::1%25no-interface]:1", proxy=None)
