"""A server that is closed lets running work end, accepts no more, and ends itself."""

import asyncio
import contextlib
import socket

import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosedOK

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.protocol.lingering import Lingering
from duck.server import Limits, Server, serve
from duck.server.shutdown import Work
from duck.urls import path

from ..support.handshake import UPGRADE, upgrade
from ..support.views import Echo

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
PAGE = [path("/", lambda request: "")]


class Working(WebSocketView):
    """Begins, and ends when it is released."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.handled = self.server.handled
        self.begun, self.let_go = self.server.begun, self.server.let_go

    async def on_receive(self, message, opcode):
        self.handled.append(message)
        self.begun.set()
        await self.let_go.wait()
        await self.send(b"answer to " + message, opcode)


class Stubborn(Working):
    async def on_receive(self, message, opcode):
        self.begun.set()
        while not self.let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.let_go.wait()


class Owning(Working):
    """Has a `run` of its own, which waits."""

    async def run(self, *_, **__):
        self.begun.set()
        await self.let_go.wait()


class StubbornlyOwning(Working):
    async def run(self, *_, **__):
        await Stubborn.on_receive(self, b"", None)


class Failing(Working):
    async def run(self, *_, **__):
        raise RuntimeError("not in the plan")


def serving(view, **options):
    made = serve([path("/room", view)], port=0, **options)

    class Prepared:
        async def __aenter__(self):
            running = await made.__aenter__()
            running.handled, running.begun, running.let_go = [], asyncio.Event(), asyncio.Event()
            return running

        async def __aexit__(self, *args):
            return await made.__aexit__(*args)

    return Prepared()


async def test_a_handler_at_work_gives_its_answer(either_tls, ssl):
    async with (
        serving(Working, ssl=ssl) as running,
        ws_connect(running.addresses[0] + "/room", ssl=either_tls and either_tls.client) as busy,
        ws_connect(running.addresses[0] + "/room", ssl=either_tls and either_tls.client) as idle,
    ):
        await busy.send(b"one")
        await running.begun.wait()
        serving_forever = asyncio.create_task(running.serve_forever())
        closing = asyncio.create_task(running.close())
        with pytest.raises(ConnectionClosedOK):
            await idle.recv()
        await busy.send(b"two")
        await busy.ping()  # behind which the message has come
        assert not closing.done()
        assert not serving_forever.done()
        running.let_go.set()
        assert await busy.recv() == b"answer to one"
        with pytest.raises(ConnectionClosedOK):
            await busy.recv()
        assert (busy.close_code, busy.close_reason) == (1001, "server shutting down")
        await closing
        await serving_forever
        assert running.handled == [b"one"]


async def test_a_shutdown_is_logged_with_the_number_of_open_websockets(caplog):
    caplog.set_level("INFO", "duck.server")
    async with serving(Working) as running, ws_connect(running.addresses[0] + "/room"):
        await running.close()
    assert "shutting down; open WebSockets: 1" in caplog.messages


async def test_a_server_closes_though_a_filter_of_the_log_raises(raising_filter):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    async with serving(Working) as running, ws_connect(running.addresses[0] + "/room") as client:
        await running.close()
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
    assert [*map(type, told)] == [ArithmeticError]


async def test_a_handler_that_takes_too_long_is_cancelled():
    async with (
        serving(Working, shutdown_timeout=0.2) as running,
        ws_connect(running.addresses[0] + "/room") as client,
    ):
        await client.send(b"one")
        await running.begun.wait()
        await running.close()
        assert running.hung == []
        with pytest.raises(ConnectionClosedOK):
            await client.recv()


async def test_a_run_that_takes_too_long_is_cancelled(connect):
    async with serving(Owning, shutdown_timeout=0.1) as running, connect(running) as client:
        client.send(upgrade("/room"))
        await running.begun.wait()
        await running.close()
        assert running.hung == []
        assert running._limiter.count == 0
        assert await client.end() == b""


async def test_a_run_that_ignores_its_cancellation_loses_its_connection(connect, monkeypatch):
    monkeypatch.setattr(Work, "CANCEL_TIMEOUT", 0.1)
    async with serving(StubbornlyOwning, shutdown_timeout=0.1) as running:
        async with connect(running) as client:
            client.send(upgrade("/room"))
            await running.begun.wait()
            await running.close()
            assert running.hung == ["StubbornlyOwning at '/room'"]
            assert await client.end() == b""
        running.let_go.set()
        await asyncio.wait(running._work.views)


async def test_a_handler_that_ignores_its_cancellation_is_named_and_abandoned(caplog, monkeypatch):
    monkeypatch.setattr(Work, "CANCEL_TIMEOUT", 0.1)
    async with serving(Stubborn, shutdown_timeout=0.1) as running:
        async with ws_connect(running.addresses[0] + "/room") as client:
            await client.send(b"one")
            await running.begun.wait()
            await running.close()
            assert running.hung == ["Stubborn at '/room'"]
        running.let_go.set()
        await asyncio.wait(running._work.views)
    assert "1 did not end when cancelled, and were abandoned: Stubborn at '/room'" in caplog.messages


async def test_a_page_that_ignores_its_cancellation_is_named(connect, caplog, monkeypatch):
    monkeypatch.setattr(Work, "CANCEL_TIMEOUT", 0.1)
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def page(request):
        begun.set()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        return ""

    async with serve([path("/slow", page)], port=0, shutdown_timeout=0.1) as running, connect(running) as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
        await begun.wait()
        await running.close()
        let_go.set()
        await asyncio.wait(list(running._work.answers))
    assert "1 did not end when cancelled, and were abandoned: the page at '/slow'" in caplog.messages


async def test_a_tls_handshake_that_has_not_begun_does_not_delay_the_end(tls, until):
    async with serve(Working, port=0, ssl=tls.server, shutdown_timeout=1000) as running:
        with socket.create_connection(("127.0.0.1", running.port)):
            await until(lambda: running._work.protocols)
            await running.close()
            assert not running._work.protocols


async def test_a_tls_connection_accepted_right_before_the_end_is_closed(tls, monkeypatch):
    """A full server looks at a connection two passes of the loop later: here, in the pass in which it stops."""
    limits = Limits(connections=1)
    accepted = Server._accepted
    loop = asyncio.get_running_loop()
    closing = loop.create_future()

    def accept(server, sock, peer):
        accepted(server, sock, peer)
        if server._limiter.is_full:
            closing.set_result(asyncio.Task(server.close(), loop=loop))  # never eager: it begins in the next pass

    monkeypatch.setattr(Server, "_accepted", accept)
    async with serve(Working, port=0, ssl=tls.server, limits=limits, shutdown_timeout=1000) as server:
        server._limiter.acquire()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            await (await closing)
            assert not server._work.protocols
            assert await loop.run_in_executor(None, client.recv, 1) == b""


async def test_an_idle_client_that_takes_no_part_in_the_end_of_tls_is_not_waited_for(tls):
    """Pools of clients check a connection only when they use it again."""
    limits = Limits(linger_timeout=0.05, keep_alive_timeout=1000)

    def get(port):
        client = tls.client.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.recv(1024).startswith(b"HTTP/1.1 200 ")
        return client

    routes = [path("/", lambda request: "")]
    async with serve(routes, port=0, ssl=tls.server, limits=limits, shutdown_timeout=1000) as running:
        with await asyncio.to_thread(get, running.port):
            await running.close()
            assert not running._work.protocols


async def test_a_refused_client_is_waited_for_and_then_let_go(either_tls, ssl, monkeypatch):
    """The client may read the refusal. A connection left open by `close` would be open when the loop is closed."""
    monkeypatch.setattr(Lingering, "QUIET", 1.0)
    limits = Limits(linger_timeout=1, keep_alive_timeout=1000)

    def ask(port):
        client = socket.create_connection(("127.0.0.1", port))
        if either_tls:
            client = either_tls.client.wrap_socket(client, server_hostname="localhost")
        client.sendall(upgrade("/room", without=["Sec-WebSocket-Key"]))
        assert client.recv(1024).startswith(b"HTTP/1.1 400 ")
        return client

    async with serving(Working, ssl=ssl, limits=limits, shutdown_timeout=1000) as server:
        with await asyncio.to_thread(ask, server.port):
            assert server._limiter.count == 1
            await server.close()
            assert server._limiter.count == 0


@pytest.mark.parametrize(
    ("view", "request_", "status"),
    [
        (Working, b"no request\r\n\r\n", 400),
        (Working, upgrade("/room", without=["Sec-WebSocket-Key"]), 400),
        (Failing, upgrade("/room"), 500),
    ],
)
async def test_a_client_that_stays_behind_its_last_response_is_disconnected(connect, view, request_, status):
    limits = Limits(linger_timeout=1000, keep_alive_timeout=1000)
    async with serving(view, limits=limits, shutdown_timeout=0.1) as server, connect(server) as client:
        client.send(request_)
        assert (await client.response()).status == status
        await server.close()
        assert server._limiter.count == 0


async def test_a_shutdown_code_that_may_not_be_sent_is_refused():
    with pytest.raises(ValueError, match="1006"):
        async with serve(Working, port=0, shutdown_code=1006):
            pass


async def test_a_failing_block_closes_the_server():
    with pytest.raises(KeyError):
        async with serve(PAGE, port=0) as server:
            raise KeyError
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_closing_ends_connections_that_wait(connect, ssl):
    async with (
        serve(PAGE, port=0, ssl=ssl) as server,
        connect(server) as fresh,
        connect(server) as idle,
        connect(server) as partial,
    ):
        partial.send(GET[:-1])
        assert (await idle.get()).status == 200
        closing = asyncio.create_task(server.close())
        for client in (fresh, idle, partial):
            assert await client.rest() == b""
        await closing


async def test_closing_waits_for_answers(connect, until):
    started, release = asyncio.Event(), asyncio.Event()

    async def view(request):
        started.set()
        await release.wait()
        return "done"

    async with serve([path("/", view)], port=0) as server, connect(server) as client:
        client.send(GET + GET)
        await started.wait()
        closing = asyncio.create_task(server.close())
        await until(lambda: server.closing)
        release.set()
        response = await client.response()
        assert (response.body, response.headers["connection"]) == (b"done", "close")
        assert await client.rest() == b""
        await closing


async def test_closing_cancels_answers_that_take_too_long(connect):
    started = asyncio.Event()
    ended = []

    async def view(request):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request)

    async with serve([path("/", view)], port=0, shutdown_timeout=0.1) as server, connect(server) as client:
        client.send(GET)
        await started.wait()
        await server.close()
        assert len(ended) == 1
        assert await client.end() == b""


async def test_closing_may_be_repeated():
    async with serve(PAGE, port=0) as server:
        await asyncio.gather(server.close(), server.close())
        await server.close()


async def test_closing_sends_close_frames(either_tls, ssl):
    async with serve(Echo, port=0, ssl=ssl) as server:
        clients = [await ws_connect(server.addresses[0], ssl=either_tls and either_tls.client) for _ in range(5)]
        for client in clients:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert len(server.connections) == 5
        receiving = [asyncio.create_task(client.recv()) for client in clients]
        await server.close()
        assert not server._work.views
        for client, message in zip(clients, receiving, strict=True):
            with pytest.raises(ConnectionClosedOK):
                await message
            assert (client.close_code, client.close_reason) == (1001, "server shutting down")


async def test_closing_does_not_wait_for_ever_for_websockets(connect):
    async with serve(Echo, port=0, shutdown_timeout=0.1) as server, connect(server) as client:
        client.send(UPGRADE)
        assert (await client.response(head_only=True)).status == 101
        await server.close()
        assert not server._work.views
        assert (await client.rest())[:4] == b"\x88\x16\x03\xe9"
