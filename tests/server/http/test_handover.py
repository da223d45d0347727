"""From a request to a WebSocket view: the attributes of the view, without the loss of a byte."""

import asyncio
import gc
import sys

import pytest

from duck.contrib.websockets import WebSocketView
from duck.http.response import HttpResponse
from duck.server import Limits, serve
from duck.server.http.head import RequestReader
from duck.server.http.protocol import HttpProtocol
from duck.urls import path

from ...support.handshake import upgrade

UPGRADE = upgrade("/a/7?b", {"Host": "test"}, without=["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
HANDSHAKE = upgrade("/a/7?b", {"Host": "test"})
QUICKLY = Limits(linger_timeout=0.1)  # for a client that does not close by itself
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def pattern(size):
    """Bytes in which a lost or repeated piece is detected."""
    return (bytes(index * index % 251 for index in range(251)) * (size // 251 + 1))[:size]


class Collector(asyncio.BufferedProtocol):
    """Collects the received bytes."""

    def __init__(self):
        self.buffer = memoryview(bytearray(65536))
        self.received = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self.waiting = None

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.take(self.buffer[:nbytes])

    def take(self, data):
        self.received += data
        if self.waiting is not None and len(self.received) >= self.waiting[0]:
            self.waiting[1].set_result(None)
            self.waiting = None

    async def until(self, size):
        if len(self.received) < size:
            self.waiting = (size, asyncio.get_running_loop().create_future())
            await self.waiting[1]
        return bytes(self.received)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class RawView(WebSocketView):
    """Takes over the connection, for another protocol than WebSocket."""

    views = None  # a queue of those that run
    hold = None  # an event to wait for before the switch

    async def run(self, *_, **__):
        if self.hold is not None:
            self.views.put_nowait(self)
            await self.hold.wait()
        transport = self.request.transport
        if transport.is_closing():
            return  # no other code would be notified of the end
        self.protocol = protocol = Collector()
        transport.write(SWITCH)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.take(self.request.content)
        if self.hold is None:
            self.views.put_nowait(self)
        transport.resume_reading()
        await protocol.lost

    async def send_close(self, code=1000, reason=""):
        self.protocol.transport.close()


@pytest.fixture
def view_class():
    return type("View", (RawView,), {"views": asyncio.Queue()})


@pytest.fixture
def serve_view(view_class, ssl):
    def start(**options):
        return serve([path("/a/<int:n>", view_class)], port=0, ssl=ssl, **options)

    return start


async def test_a_view_gets_its_request(connect, serve_view, view_class, ssl):
    async with serve_view() as server, connect(server) as client:
        client.send(UPGRADE)
        view = await view_class.views.get()
        request = view.request
        assert view.kwargs == {"n": 7}
        assert (request.method, request.path, request.query_string) == ("GET", "/a/7", "b")
        assert request.get_header("upgrade") == "websocket"
        assert request.application.server is server
        assert request.secure is (ssl is not None)
        assert request.client_address == client.writer.get_extra_info("sockname")
        assert [*server._work.views.values()] == [view]
        assert await client.reader.readexactly(len(SWITCH)) == SWITCH
        client.writer.transport.abort()
        await view.protocol.lost
        await asyncio.sleep(0)
        assert not server._work.views


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_000])
async def test_bytes_behind_the_request_reach_the_view(connect, serve_view, view_class, size):
    """Bytes in one piece with the head: some are read with it, others wait in the kernel or in TLS."""
    early = pattern(size)
    async with serve_view() as server, connect(server) as client:
        client.send(UPGRADE + early)
        view = await view_class.views.get()
        assert await view.protocol.until(size) == early
        client.send(b"more")
        assert await view.protocol.until(size + 4) == early + b"more"


@pytest.mark.parametrize("size", [100, 1_000_000])
async def test_bytes_that_come_while_reading_is_paused_reach_the_view(connect, serve_view, view_class, size):
    view_class.hold = asyncio.Event()
    early = pattern(size)
    async with serve_view() as server, connect(server) as client:
        client.send(UPGRADE)
        view = await view_class.views.get()
        assert not view.request.transport.is_reading()
        client.send(early)
        await asyncio.sleep(0.05)  # for an iteration of the loop, in which it must not read the socket
        assert view.request.transport.get_protocol().__class__ is HttpProtocol
        view_class.hold.set()
        await client.reader.readexactly(len(SWITCH))
        assert await view.protocol.until(size) == early


@pytest.mark.parametrize("step", [1, 7, 64])
async def test_head_and_bytes_behind_it_may_come_in_small_pieces(connect, serve_view, view_class, step):
    data = UPGRADE + bytes(range(64))
    async with serve_view() as server, connect(server) as client:
        for start in range(0, len(data), step):
            client.send(data[start : start + step])
            await asyncio.sleep(0)
        view = await view_class.views.get()
        assert await view.protocol.until(64) == bytes(range(64))


async def test_an_upgrade_may_follow_pipelined_requests(connect, view_class, ssl):
    async def page(request):
        await asyncio.sleep(0)
        return "page"

    patterns = [path("/", page), path("/a/<int:n>", view_class)]
    async with serve(patterns, port=0, ssl=ssl) as server, connect(server) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" * 300 + UPGRADE + b"early")
        for _ in range(300):
            assert (await client.response()).body == b"page"
        assert await client.reader.readexactly(len(SWITCH)) == SWITCH
        view = await view_class.views.get()
        assert await view.protocol.until(5) == b"early"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /a/7 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"HEAD /a/7 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"POST /a/7 HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /a/7 HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /a/7 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
async def test_any_request_to_the_route_goes_to_the_view(connect, serve_view, view_class, data):
    async with serve_view() as server, connect(server) as client:
        client.send(data)
        view = await view_class.views.get()
        assert view.request.method == data.split()[0].decode()
        assert view.request.content == b""


async def test_no_deadline_of_http_is_left(connect, serve_view, view_class):
    limits = Limits(head_timeout=1, keep_alive_timeout=1)  # with the handshake of TLS
    async with serve_view(limits=limits) as server, connect(server) as client:
        client.send(UPGRADE)
        view = await view_class.views.get()
        await asyncio.sleep(1.1)
        client.send(b"still there")
        assert await view.protocol.until(11) == b"still there"


def objects_of_http():
    return [each for each in gc.get_objects() if issubclass(type(each), (HttpProtocol, RequestReader))]


@pytest.mark.usefixtures("no_collector")
async def test_a_websocket_keeps_no_object_of_http(connect, serve_view, view_class):
    """An idle WebSocket keeps no parser, and the garbage collector is not needed for that."""
    async with serve_view() as server, connect(server) as client:
        client.send(UPGRADE)
        await view_class.views.get()
        await client.reader.readexactly(len(SWITCH))
        assert objects_of_http() == []


@pytest.mark.usefixtures("no_collector")
async def test_a_closed_connection_of_pages_is_freed_at_once(connect, until, ssl):
    async with serve([path("/page", lambda request: "page")], port=0, ssl=ssl) as server:
        async with connect(server) as client:
            await client.get("/page")
            assert len(objects_of_http()) == 2
        await until(lambda: not objects_of_http())


@pytest.fixture
def count():
    """The number of connections that a server counts."""
    return lambda server: server._limiter.count


@pytest.mark.parametrize("step", ["run", "initiate_upgrade_to_ws"])
async def test_a_view_that_answers_nothing_is_answered_500_and_leaves_nothing(connect, ssl, until, count, caplog, step):
    async def nothing(self, *_, **__):
        return None

    view = type("Silent", (WebSocketView,), {step: nothing})
    async with serve(view, port=0, ssl=ssl, limits=QUICKLY) as server:
        async with connect(server) as client:
            client.send(HANDSHAKE + b"more")
            response = await client.response()
            assert (response.status, response.headers["connection"]) == (500, "close")
            assert count(server) == 1
            assert await client.end() == b""
        await until(lambda: not count(server))
        assert not server._work.views and not server._work.protocols
    assert "Silent answered nothing to <HttpRequest GET '/a/7?b'>" in caplog.text


def failing(step, error):
    """A view whose method raises an error, before a coroutine runs."""

    def fail(*_, **__):
        raise error

    return type("Failing", (WebSocketView,), {step: fail})


class FailsInRun(WebSocketView):
    async def run(self, *_, **__):
        raise RuntimeError("a secret")


class Cancelled(WebSocketView):
    async def run(self, *_, **__):
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other


class Unwritable(WebSocketView):
    async def run(self, *_, **__):
        response = HttpResponse()
        response.content = "a str"
        return response


class Exits(WebSocketView):
    MAX_FRAME_SIZE = property(lambda self: sys.exit(2))


class ExitsBehindItsDecision(WebSocketView):
    MAX_FRAME_SIZE = property(lambda self: sys.exit(2) if self.decided else 1)
    decided = False

    async def on_handshake(self, handshake):
        await asyncio.sleep(0)
        self.decided = True


class Broken(WebSocketView):
    MAX_FRAME_SIZE = property(lambda self: 1 // 0)


class Falsy(Exception):
    """An exception whose truth value is false, such as one that has a length of 0."""

    def __len__(self):
        return 0


VIEW_FAILED = "the view for <HttpRequest GET '/a/7?b'> failed"


@pytest.mark.parametrize(
    ("view_class", "words"),
    [
        (failing("__init__", RuntimeError("a secret")), "a secret"),
        (failing("__init__", SystemExit("a secret")), "a secret"),
        (failing("run", SystemExit("a secret")), "a secret"),
        (failing("run", Falsy("a secret")), "a secret"),
        (FailsInRun, "a secret"),
        (Cancelled, VIEW_FAILED),
        (Unwritable, "bytes, not str"),
        (Exits, VIEW_FAILED),
        (ExitsBehindItsDecision, VIEW_FAILED),
        (Broken, VIEW_FAILED),
    ],
)
async def test_any_exception_of_a_view_is_answered_500_and_leaves_nothing(
    connect, ssl, until, count, caplog, view_class, words
):
    async with serve(view_class, port=0, ssl=ssl, limits=QUICKLY) as server:
        async with connect(server) as client:
            client.send(HANDSHAKE)
            response = await client.response()
            assert (response.status, response.headers["connection"], response.body) == (500, "close", b"500\n")
            assert await client.end() == b""
        await until(lambda: not count(server))
        assert not server._work.views
    assert words in caplog.text


async def test_the_response_that_a_view_returns_is_sent(connect, ssl, until, count, caplog):
    class View(WebSocketView):
        async def run(self, *_, **__):
            return HttpResponse("log in first\n", 401, "text/plain", [("WWW-Authenticate", "Basic")])

    async with serve(View, port=0, ssl=ssl, limits=QUICKLY) as server:
        async with connect(server) as client:
            client.send(HANDSHAKE)
            response = await client.response()
            assert (response.status, response.body) == (401, b"log in first\n")
            assert response.headers["www-authenticate"] == "Basic"
            assert await client.end() == b""
        async with connect(server) as client:
            client.send(HANDSHAKE.replace(b"GET", b"HEAD"))
            assert (await client.response(head_only=True)).status == 401
            assert await client.end() == b""
        await until(lambda: not count(server))
    assert caplog.messages == []


@pytest.mark.parametrize("fails", [False, True])
async def test_a_connection_that_its_view_does_not_serve_closes_with_1011(connect, ssl, until, count, caplog, fails):
    class View(WebSocketView):
        async def run(self, *_, **__):
            await self.initiate_upgrade_to_ws()
            if fails:
                raise RuntimeError("not in the plan")

    async with serve(View, port=0, ssl=ssl) as server:
        async with connect(server) as client:
            client.send(HANDSHAKE)
            assert (await client.response(head_only=True)).status == 101
            assert (await client.end())[2:4] == (1011).to_bytes(2)
        await until(lambda: not count(server))
        assert not server._work.views
    assert ("not in the plan" if fails else "View left the connection") in caplog.text


async def test_a_view_may_use_the_transport_itself_until_it_ends(connect, ssl, until, count):
    """The view has ended, so its connection ends after a while for the last bytes."""

    class View(RawView):
        async def run(self, *_, **__):
            transport = self.request.transport
            transport.write(b"good bye")
            transport.set_protocol(asyncio.Protocol())

    limits = Limits(linger_timeout=0.1)
    async with serve([path("/a/<int:n>", View)], port=0, ssl=ssl, limits=limits) as server:
        async with connect(server) as client:
            client.send(UPGRADE)
            assert await client.end() == b"good bye"
        await until(lambda: not count(server))


async def test_a_client_that_does_not_read_what_a_view_wrote_itself_is_dropped(connect, until, count):
    """Also where the time for its request would have ended before."""

    class View(WebSocketView):
        async def run(self, *_, **__):
            self.request.transport.write(bytes(20_000_000))
            self.request.transport.close()

    limits = Limits(head_timeout=0.05, keep_alive_timeout=0.1)
    async with serve(View, port=0, limits=limits) as server, connect(server) as client:
        client.writer.transport.pause_reading()
        client.send(HANDSHAKE)
        await until(lambda: count(server))
        await until(lambda: not count(server) and not server._work.protocols)


async def test_a_client_may_leave_a_view_that_answers_nothing(connect, ssl, until, count):
    begun, let_go = asyncio.Event(), asyncio.Event()

    class View(WebSocketView):
        async def run(self, *_, **__):
            begun.set()
            await let_go.wait()
            self.request.transport.abort()

    async with serve(View, port=0, ssl=ssl) as server:
        for _ in range(2):
            async with connect(server) as client:
                client.send(HANDSHAKE)
                await begun.wait()
            let_go.set()
            await until(lambda: not count(server) and not server._work.protocols)


async def test_a_client_may_be_gone_before_the_101(connect, serve_view, view_class, until):
    view_class.hold = asyncio.Event()
    async with serve_view() as server:
        async with connect(server) as client:
            client.send(UPGRADE)
            view = await view_class.views.get()
        view_class.hold.set()
        await until(lambda: not server._work.views)
        assert view.request.transport.is_closing()
