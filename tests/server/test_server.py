"""A server: its start, its list of connections, and TLS."""

import asyncio
import contextlib
import dataclasses
import inspect
import socket

import pytest
from websockets.asyncio.client import connect as ws_connect

from duck.server import Limits, Server, runner, serve, serving
from duck.server import run as serve_until_signal
from duck.server.options import Options
from duck.views import View

from ..support.views import Echo

needs_unix_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class Page(View):
    def run(self, request, **kwargs):
        return request.path


async def test_a_server_listens_until_its_end(connect):
    async with serve(Page, port=0) as server:
        assert isinstance(server, Server)
        assert server.addresses == [f"ws://127.0.0.1:{server.port}"]
        (sock,) = server.sockets
        assert sock.getsockname() == ("127.0.0.1", server.port)
        async with connect(server) as client:
            assert (await client.get("/any/path")).body == b"/any/path"
    assert server.sockets == ()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_connections_that_come_together_are_accepted_together():
    """uvloop by itself accepts one connection in each iteration."""
    async with serve(Page, port=0) as server:
        await asyncio.sleep(0)
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        looks = 0
        while len(server._work.protocols) < 4:
            looks += 1
            await asyncio.sleep(0)
        for client in clients:
            client.close()
        assert looks <= 4


async def test_the_address_of_a_tls_server_is_wss(tls):
    async with serve(Page, port=0, ssl=tls.server) as server:
        assert server.addresses == [f"wss://127.0.0.1:{server.port}"]


OPTIONS = {
    "host": "::1",
    "port": 1,
    "uds": "duck.sock",
    "uds_mode": 0o600,
    "drain": 1,
    "shutdown_timeout": 2,
    "startup_timeout": 3,
    "worker_timeout": 4,
    "shutdown_code": 1012,
    "health_path": "/healthz",
    "limits": Limits(connections=5),
    "trusted_proxies": ["unix"],
    "proxy_protocol": True,
    "allowed_hosts": ["own.test"],
    "allowed_origins": ["https://own.test"],
    "metrics": "localhost:9000",
}


def test_serve_and_run_pass_on_every_option(monkeypatch):
    passed = []

    @contextlib.asynccontextmanager
    async def serve_target(target, options, *_):
        passed.append(options)
        yield

    async def main():
        async with serve(Echo, **of_serve):
            pass

    monkeypatch.setattr(serving, "serve_target", serve_target)
    monkeypatch.setattr(runner, "supervise", lambda job, *_: passed.append(job.options))
    of_serve = {name: OPTIONS[name] for name in OPTIONS.keys() & inspect.signature(serve).parameters.keys()}
    asyncio.run(main())
    serve_until_signal(Echo, **OPTIONS)
    assert passed == [Options(**of_serve), Options(**OPTIONS)]
    assert all(getattr(Options(), name) != value for name, value in OPTIONS.items())
    assert OPTIONS.keys() == {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize("workers", [1, 2])
async def test_serving_by_run_in_a_coroutine_is_an_error_with_advice(workers):
    with pytest.raises(RuntimeError, match=r"write async with serve"):
        serve_until_signal(Echo, port=0, workers=workers)


async def test_malformed_routes_are_an_error():
    with pytest.raises(TypeError):
        async with serve(None, port=0):
            pass


async def test_connections_lists_the_open_views():
    deciding, leaving, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Echo):
        async def on_handshake(self, handshake):
            if self.request.query:
                deciding.set()
                await go_on.wait()

        async def on_close(self, frame):
            leaving.set()
            await go_on.wait()

    async with serve(Slow, port=0) as server:
        waiting = asyncio.create_task(ws_connect(f"{server.addresses[0]}/?decide").__aenter__())
        await deciding.wait()
        assert server.connections == []
        async with ws_connect(server.addresses[0]) as client:
            (view,) = server.connections
            assert isinstance(view, Echo)
            assert view.server is server
            await client.send("hello")
            await client.recv()
        await leaving.wait()
        assert server.connections == []
        go_on.set()
        await (await waiting).close()


async def test_large_messages_pass_in_many_tls_records(either_tls, ssl):
    messages = [bytes([number]) * size for number, size in enumerate((1, 40_000, 700_000, 16, 900_000))]
    async with (
        serve(Echo, port=0, ssl=ssl) as server,
        ws_connect(server.addresses[0], ssl=either_tls and either_tls.client) as client,
    ):
        for _ in range(3):
            sending = [asyncio.create_task(client.send(message)) for message in messages]
            assert [await client.recv() for _ in messages] == messages
            await asyncio.gather(*sending)


@pytest.mark.parametrize("ssl", ["cert.pem", True, False])
async def test_something_else_than_a_tls_context_is_refused(ssl):
    with pytest.raises(TypeError, match=r"ssl must be an ssl\.SSLContext"):
        async with serve(Page, port=0, ssl=ssl):
            pass


async def test_a_tls_context_for_clients_is_refused(tls):
    with pytest.raises(ValueError, match="for clients"):
        async with serve(Page, port=0, ssl=tls.client):
            pass


@pytest.mark.parametrize("limits", [Limits(head_timeout=0.1), Limits(head_timeout=0)])
async def test_a_tls_handshake_that_does_not_end_is_cut(connect, tls, caplog, limits):
    async with serve(Page, port=0, ssl=tls.server, limits=limits) as server, connect(server, plain=True) as client:
        assert await client.end() == b""
    assert "Traceback" not in caplog.text


async def test_a_tls_client_without_room_is_disconnected_though_it_has_no_time_to_read_why(connect, tls, caplog):
    limits = Limits(connections=0, linger_timeout=0)
    async with serve(Page, port=0, ssl=tls.server, limits=limits) as server, connect(server, plain=True) as client:
        assert await client.end() == b""
    assert "Traceback" not in caplog.text


async def test_plain_http_to_a_tls_port_gets_no_answer(connect, tls):
    async with serve(Page, port=0, ssl=tls.server) as server:
        async with connect(server, plain=True) as client:
            client.send(GET)
            assert b"HTTP" not in await client.end()
        async with connect(server) as client:
            assert (await client.get()).status == 200
