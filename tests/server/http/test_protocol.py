"""HTTP over real sockets: refusals, keep-alive, and clients that leave."""

import asyncio
import gc
import socket
import struct

import pytest

from duck.contrib.websockets import WebSocketView
from duck.http import HttpResponse
from duck.server import Limits, serve
from duck.server.http.protocol import HttpProtocol
from duck.urls import path

from ...support.handshake import UPGRADE, upgrade

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"

pytestmark = pytest.mark.usefixtures("impatient", "quick_collection")

urlpatterns = [path("/", lambda request: "page")]


async def test_nagle_is_off(connect):
    delays = []

    def view(request):
        delays.append(request.client_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return ""

    async with serve([path("/", view)], port=0) as server, connect(server) as client:
        await client.get()
    assert delays != [0]


REFUSED = [
    (b"nonsense\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: test\r\nX: \x7f\r\n\r\n", 400),
    (b"GET http://[::1/ HTTP/1.1\r\nHost: test\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", 431),
    (b"GET / HTTP/2.0\r\nHost: test\r\n\r\n", 505),
    (b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 10**6, 405),
    (b"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", 405),
    (b"CONNECT test:1 HTTP/1.1\r\nHost: test:1\r\n\r\n", 404),
]


async def test_refusals_can_be_read_and_end_the_connection(connect, ssl):
    async def refused(server, data):
        async with connect(server) as client:
            client.send(data)
            response = await client.response()
            assert response.headers["connection"] == "close"
            # TLS cannot end one direction only, and so resets the connection at last.
            assert await (client.rest() if ssl is None else client.end()) == b""
            return response.status

    async with serve(urlpatterns, port=0, ssl=ssl, limits=Limits(linger_timeout=0.2)) as server:
        statuses = await asyncio.gather(*(refused(server, data) for data, _ in REFUSED))
        assert statuses == [status for _, status in REFUSED]
        async with connect(server) as client:
            assert (await client.get()).status == 200


@pytest.mark.parametrize(
    ("host", "client_address", "status"), [("evil.test", "192.0.2.2", 421), ("test", "192.0.2.1", 503)]
)
async def test_a_refused_request_reaches_no_view(connect, host, client_address, status):
    """A host that is not allowed, and a client that has as many connections as it may."""
    reached = []

    class View(WebSocketView):
        async def on_handshake(self, handshake):
            reached.append("/ws")

    def page(request):
        reached.append("/page")
        return "page"

    routes = [path("/ws", View), path("/page", page)]
    options = {"allowed_hosts": ["test"], "trusted_proxies": ["127.0.0.1"], "limits": Limits(connections_per_address=1)}
    async with serve(routes, port=0, **options) as server, connect(server) as first:
        first.send(upgrade("/ws", {"Host": "test", "X-Forwarded-For": "192.0.2.1"}))
        assert (await first.response(head_only=True)).status == 101
        for target in ("/ws", "/page"):
            async with connect(server) as client:
                client.send(upgrade(target, {"Host": host, "X-Forwarded-For": client_address}))
                assert (await client.response()).status == status
                assert await client.rest() == b""
    assert reached == ["/ws"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
        (b"HEAD http://[::1/ HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"HEAD / HTTP/1.1\r\nHost: test\r\nX: \x7f\r\n\r\n", 400),
        (b"HEAD / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"HEAD / HTTP/2.0\r\nHost: test\r\n\r\n", 505),
        (b"HEAD / HTTP/1.1\r\nHost: test\r\n", 408),
    ],
)
async def test_a_head_request_is_refused_without_a_body(connect, data, status):
    limits = Limits(linger_timeout=0.2, head_timeout=0.2)
    async with serve(urlpatterns, port=0, limits=limits) as server, connect(server) as client:
        client.send(data)
        response = await client.response(head_only=True)
        assert (response.status, int(response.headers["content-length"]) > 0) == (status, True)
        assert await client.rest() == b""


@pytest.mark.parametrize("cookie", ["city=Łódź", "price=5€", "mood=😀"])
async def test_a_cookie_in_utf_8_comes_through(connect, cookie):
    def page(request):
        value = request.get_header("cookie")
        return HttpResponse(value.encode("latin-1"), headers=[("X-Cookie", value)])

    async with serve([path("/", page)], port=0) as server, connect(server) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n".encode())
        response = await client.response()
        assert (response.status, response.body.decode()) == (200, cookie)
        assert response.headers["x-cookie"].encode("latin-1").decode() == cookie


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: test\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
async def test_a_connection_that_is_not_kept_closes_after_the_response(connect, ssl, data):
    async with serve(urlpatterns, port=0, ssl=ssl) as server, connect(server) as client:
        client.send(data)
        response = await client.response()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


async def test_an_upgrade_that_is_not_wanted_is_ignored(connect):
    async with serve(urlpatterns, port=0) as server, connect(server) as client:
        unwanted = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        client.send(unwanted + UPGRADE)
        for _ in range(2):
            response = await client.response()
            assert (response.status, response.body) == (200, b"page")
        assert (await client.get()).status == 200


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(connect):
    running = 0

    async def view(request, number):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001 if number % 7 == 0 else 0)
        running -= 1
        return str(number)

    async with serve([path("/<int:number>", view)], port=0) as server, connect(server) as client:
        count = 500
        for number in range(count):
            client.send(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number)
        for number in range(count):
            assert (await client.response()).body == b"%d" % number


async def test_requests_before_a_malformed_one_are_answered(connect):
    async with serve(urlpatterns, port=0) as server, connect(server) as client:
        client.send(GET + GET + b"nonsense\r\n\r\n" + GET)
        statuses = [(await client.response()).status for _ in range(3)]
        assert statuses == [200, 200, 400]
        assert await client.end() == b""


async def test_a_client_that_stops_sending_still_gets_its_answer(connect):
    async with serve(urlpatterns, port=0) as server, connect(server) as client:
        client.send(GET)
        client.writer.write_eof()
        assert (await client.response()).status == 200
        assert await client.rest() == b""


async def test_a_client_that_is_gone_before_the_answer_leaves_nothing(connect, ssl, until, caplog):
    asked, release = asyncio.Queue(), asyncio.Event()

    async def view(request):
        asked.put_nowait(request)
        await release.wait()
        return "late"

    def connections():
        return [each for each in gc.get_objects() if issubclass(type(each), HttpProtocol)]

    gc.collect()
    limits = Limits(keep_alive_timeout=1000)
    async with serve([path("/", view)], port=0, ssl=ssl, limits=limits) as server:
        async with connect(server) as client:
            client.send(GET)
            request = await asked.get()
            reset = struct.pack("ii", 1, 0)
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        if ssl:  # where the end is noticed while reading is paused
            await until(request.transport.is_closing)
        release.set()
        del request
        await until(lambda: gc.collect() >= 0 and not connections())  # no timer holds it
    assert caplog.records == []


async def test_connections_do_not_disturb_each_other(connect):
    """All connections share one receive buffer."""

    async def echo(request, number):
        await asyncio.sleep(0)
        return request.get_header("x")

    async def talk(server, number):
        async with connect(server) as client:
            for turn in range(10):
                mark = b"%d-%d-" % (number, turn) * 200
                request = b"GET /%d HTTP/1.1\r\nHost: a\r\nX: " % number + mark + b"\r\n\r\n"
                client.send(request[: number * 37])
                await client.writer.drain()
                await asyncio.sleep(0)
                client.send(request[number * 37 :])
                assert (await client.response()).body == mark

    async with serve([path("/<number>", echo)], port=0) as server:
        await asyncio.gather(*(talk(server, number) for number in range(30)))


async def test_a_view_that_does_not_call_the_init_of_its_base_is_answered_500(connect, caplog, until):
    class Forgetful(WebSocketView):
        def __init__(self, request, **kwargs):
            self.name = "forgetful"

    limits = Limits(connections_per_address=1, linger_timeout=0.05)
    async with serve(Forgetful, port=0, limits=limits) as server:
        for _ in range(2):  # the first has left its place
            async with connect(server) as client:
                client.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                assert (await client.response()).status == 500
            await until(lambda: not server._work.protocols)
    assert "Forgetful.__init__ must call super().__init__(request, **kwargs)" in caplog.text


@pytest.mark.parametrize("request_", [b"GET /missing HTTP/1.1\r\nHost: test\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HT"])
async def test_a_connection_ends_though_a_filter_of_the_log_raises(connect, until, raising_filter, request_):
    """An answer that cannot be logged, a refusal, and a request that does not end, whose refusal has no caller."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
    limits = Limits(head_timeout=0.05, linger_timeout=0.05, keep_alive_timeout=1000)
    async with serve(urlpatterns, port=0, limits=limits) as server, connect(server) as client:
        client.send(request_)
        await client.end()
        await until(lambda: not server._work.protocols)
        assert server._limiter.count == 0
    gc.collect()
    assert {*map(type, told)} == {ArithmeticError}


@pytest.mark.parametrize("kind", ["view", "TLS"])
async def test_a_permit_is_released_though_a_filter_of_the_log_raises(until, raising_filter, tls, kind):
    """The failure of a view, and that of a TLS handshake, is logged at the end of the connection."""

    class View(WebSocketView):
        async def run(self):
            raise LookupError

    # The handler is told of the ArithmeticError.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    limits = Limits(linger_timeout=0.05, keep_alive_timeout=1000)
    ssl = tls.server if kind == "TLS" else None
    async with serve(View, port=0, limits=limits, ssl=ssl) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(GET)
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 500") or kind == "TLS"
        await until(lambda: not server._work.protocols)
        assert server._limiter.count == 0
