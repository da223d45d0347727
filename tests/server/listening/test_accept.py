"""The acceptance of connections: counted first, a few at a time, and while descriptors are free."""

import asyncio
import errno
import os
import socket
from contextlib import ExitStack, suppress

import pytest

from duck.contrib.websockets import WebSocketView
from duck.server import Limits, serve
from duck.server.listening.accept import Acceptor
from duck.server.server import TURNED_AWAY
from duck.urls import path

from ...support.handshake import upgrade

resource = pytest.importorskip("resource")

GET = b"GET /page HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"

urlpatterns = [path("/page", lambda request: "a page")]


def connected(stack, server, count):
    """Sockets of clients that have not sent a byte."""
    return [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(count)]


async def test_a_connection_counts_before_its_tls_handshake(connect, tls, until):
    limits = Limits(connections=2)
    async with serve(urlpatterns, port=0, ssl=tls.server, limits=limits) as server:
        with ExitStack() as stack:
            connected(stack, server, 2)
            await until(lambda: server._limiter.count == 2)
            async with connect(server) as client:
                client.send(GET)
                assert (await client.response()).status == 503
        await until(lambda: server._limiter.count == 0)
        async with connect(server) as client:
            client.send(GET)
            assert (await client.response()).status == 200


async def test_a_connection_counts_for_its_address_before_its_tls_handshake(connect, tls, until):
    limits = Limits(connections_per_address=1)
    async with serve(urlpatterns, port=0, ssl=tls.server, limits=limits) as server:
        with ExitStack() as stack:
            connected(stack, server, 1)
            await until(lambda: server._limiter.count)
            async with connect(server) as client:
                client.send(GET)
                assert (await client.response()).status == 503


async def test_bare_connections_take_few_files(tls):
    """Connections beyond the number of concurrent refusals are closed at once."""
    limits = Limits(connections=5, linger_timeout=30)
    async with serve(urlpatterns, port=0, ssl=tls.server, limits=limits) as server:
        with ExitStack() as stack:
            before = len(os.listdir("/proc/self/fd"))
            clients = connected(stack, server, 100)
            for client in clients[5 + TURNED_AWAY :]:
                client.setblocking(False)
                with suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
            # The clients' files are ours as well.
            assert len(os.listdir("/proc/self/fd")) - before < 100 + 5 + TURNED_AWAY + 10


async def test_a_client_that_leaves_makes_room_for_the_next(loop_name, tls, until):
    """The loop reports both in one iteration."""
    if loop_name == "uvloop":
        pytest.skip("uvloop takes some turns to let a connection go")
    limits = Limits(connections=5)
    async with serve(urlpatterns, port=0, ssl=tls.server, limits=limits) as server:
        for _ in range(5):
            with ExitStack() as stack:
                connected(stack, server, 5)
                await until(lambda: server._limiter.count == 5)
                for _ in range(10):
                    await asyncio.sleep(0)  # in a few passes the loop begins to read
            before = set(server._work.protocols)
            with ExitStack() as stack:
                connected(stack, server, 5)
                await until(lambda before=before: len(server._work.protocols - before) == 5)
                assert server._turned_away == 0
            await until(lambda: server._limiter.count == 0)


async def test_accepting_pauses_while_no_files_are_left(loop_name, ssl, connect, until, caplog, monkeypatch):
    """Each attempt logs the lack once, and the server continues once files are free."""
    if loop_name == "uvloop" and ssl is None:
        pytest.skip("uvloop accepts plain connections by itself, and closes those that it has no file for")
    monkeypatch.setattr(Acceptor, "PAUSE", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def told():
        return sum("cannot accept connections" in message for message in caplog.messages)

    async with serve(urlpatterns, port=0, ssl=ssl, limits=Limits(connections=1000)) as server:
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.socket()) for _ in range(40)]
            spare = os.dup(0)
            os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 3, hard))
            try:
                for client in clients:
                    client.connect(("127.0.0.1", server.port))
                began = asyncio.get_running_loop().time()
                await until(lambda: told() >= 3)
                passed = asyncio.get_running_loop().time() - began
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert told() <= 1 + passed / 0.05
            await until(lambda: server._limiter.count == 40)
        async with connect(server) as client:
            client.send(GET)
            assert (await client.response()).status == 200
    assert not any(record.exc_info for record in caplog.records)


async def test_a_loop_that_cannot_watch_sockets_accepts_too(loop_name, connect, monkeypatch):
    """Windows' proactor is one."""

    def add_reader(self, *_):
        raise NotImplementedError

    if loop_name == "uvloop":
        pytest.skip("uvloop can")
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "add_reader", add_reader)
    async with serve(urlpatterns, port=0) as server:
        for _ in range(2):
            async with connect(server) as client:
                client.send(GET)
                assert (await client.response()).status == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


async def test_clients_behind_a_proxy_count_and_the_proxy_does_not(connect, until):
    class Echo(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message, opcode)

    def get(client, keep=True):
        end = "" if keep else "Connection: close\r\n"
        return f"GET /page HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {client}\r\n{end}\r\n".encode()

    handshake = upgrade("/ws", {"X-Forwarded-For": "192.0.2.1"})
    patterns = [*urlpatterns, path("/ws", Echo)]
    limits = Limits(connections_per_address=1)
    async with (
        serve(patterns, port=0, limits=limits, trusted_proxies=["127.0.0.1"]) as server,
        connect(server) as one,
        connect(server) as two,
        connect(server) as three,
    ):
        one.send(handshake)
        assert (await one.response(head_only=True)).status == 101
        # The same connection of the proxy is one client's now, then another's.
        for client in ("192.0.2.2", "192.0.2.3", "192.0.2.2"):
            two.send(get(client))
            assert (await two.response()).status == 200
        three.send(get("192.0.2.3"))
        assert (await three.response()).status == 200
        three.send(get("192.0.2.1"))
        assert (await three.response()).status == 503
        assert server.stats().refused == {"no_room": 1}
        one.writer.transport.abort()
        await until(lambda: not server._work.views)
        two.send(get("192.0.2.1"))
        assert (await two.response()).status == 200


async def test_accepting_pauses_though_a_filter_of_the_log_raises(raising_filter):
    attempts, errors = [], []

    class Exhausted(socket.socket):
        def accept(self):
            attempts.append(self)
            raise OSError(errno.EMFILE, "Too many open files")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    with Exhausted() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        acceptor = Acceptor(loop, sock, lambda *_: None)
        with socket.create_connection(sock.getsockname()):
            while not errors:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
        acceptor.close()
    assert len(attempts) == 1
    assert [*map(type, errors)] == [ArithmeticError]
