"""HTTP over real sockets: pages, refusals, keep-alive, and clients that leave."""

import asyncio
import gc
import logging
import socket
import struct
import sys

import pytest

from duck.contrib.websockets import WebSocketView
from duck.http import HttpRequest, HttpResponse
from duck.server import Limits, serve
from duck.server.http import HttpProtocol
from duck.urls import path
from duck.views import View

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"

pytestmark = pytest.mark.usefixtures("impatient", "quick_collection")


class Page(View):
    def run(self, request, **kwargs):
        assert request is self.request
        assert kwargs == self.kwargs
        return f"{request.path} {kwargs}"


class AsyncPage(View):
    async def run(self, request, **kwargs):
        await asyncio.sleep(0)
        return HttpResponse("async", 201, headers=[("X-A", "b")])


def plain(request, name):
    return name.encode()


async def coroutine(request):
    return "coroutine"


def failing(request):
    raise RuntimeError("a secret")


async def leaving(request):
    sys.exit("a secret")


async def closing(request):
    raise GeneratorExit("a secret")


def changed(request):
    response = HttpResponse("x")
    response.headers += (("X-Secret", "a secret\r\nX-Smuggled: 1"),)
    return response


def replaced(request):
    response = HttpResponse("x")
    response.content = "a str"
    return response


async def awaiting_cancelled(request):
    other = asyncio.get_running_loop().create_future()
    other.cancel("a secret")
    await other


urlpatterns = [
    path("/", Page),
    path("/async", AsyncPage),
    path("/hello/<name>", plain),
    path("/page/<int:number>", Page),
    path("/coroutine", coroutine),
    path("/failing", failing),
    path("/leaving", leaving),
    path("/closing", closing),
    path("/none", lambda request: None),
    path("/changed", changed),
    path("/replaced", replaced),
    path("/cancelled", awaiting_cancelled),
    path("/head", coroutine, methods=["HEAD"]),
]


def test_pages_of_every_kind_of_view_are_served(run, connect, either_tls):
    async def scenario():
        ssl = either_tls and either_tls.server
        async with serve(urlpatterns, port=0, ssl=ssl) as server, connect(server, either_tls) as client:
            page = await client.get("/?a=b")
            assert (page.status, page.body) == (200, b"/ {}")
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "connection" not in page.headers
            page = await client.get("/async")
            assert (page.status, page.body, page.headers["x-a"]) == (201, b"async", "b")
            assert (await client.get("/hello/w%C3%A9")).body == "w\xe9".encode()
            assert (await client.get("/page/7/")).body == b"/page/7/ {'number': 7}"
            assert (await client.get("/coroutine")).body == b"coroutine"

    run(scenario())


def test_a_page_gets_its_request(run, connect, either_tls):
    seen = []

    def view(request):
        seen.append(request)
        return ""

    async def scenario():
        ssl = either_tls and either_tls.server
        async with serve([path("/", view)], port=0, ssl=ssl) as server, connect(server, either_tls) as client:
            await client.get("/?q=1")
            (request,) = seen
            assert request.application.server is server
            assert request.secure is (either_tls is not None)
            assert request.client_address == client.writer.get_extra_info("sockname")
            assert request.client_socket.fileno() >= 0
            assert request.get_header("HOST") == "test"
            assert request.query == {"q": ["1"]}
            assert request.content == b""

    run(scenario())


def test_nagle_is_off(run, connect):
    delays = []

    def view(request):
        delays.append(request.client_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return ""

    async def scenario():
        async with serve([path("/", view)], port=0) as server, connect(server) as client:
            await client.get()

    run(scenario())
    assert delays != [0]


def test_a_head_request_gets_the_length_without_the_body(run, connect):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            for target, length in (("/coroutine", "9"), ("/head", "9"), ("/nowhere", "4")):
                client.send(f"HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                response = await client.response(head_only=True)
                assert response.headers["content-length"] == length
            assert (await client.get("/coroutine")).body == b"coroutine"

    run(scenario())


def sign_in(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(request.form), 303, headers={"Location": "/"})


FORM = b"Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"


@pytest.mark.parametrize(
    ("fields", "body", "expected"),
    [
        (FORM, b"name=al+ice&empty=&name=b%C3%B6b", (303, b"{'name': ['al ice', 'b\xc3\xb6b'], 'empty': ['']}")),
        (FORM, b"", (303, b"{}")),
        (b"", b"name=alice", (303, b"{}")),
        (FORM + b"Origin: http://evil.test\r\n", b"name=alice", (403, b"403\n")),
        (FORM + b"Origin: http://test\r\n", b"name=alice", (303, b"{'name': ['alice']}")),
        (FORM, b"name=" + b"a" * 200_000, (413, b"413\n")),
        (FORM + b"Expect: 100-continue\r\n", b"name=alice", (417, b"417\n")),
    ],
    ids=["form", "empty", "other type", "foreign origin", "own origin", "long", "expectation"],
)
def test_a_form_is_accepted_from_the_servers_own_pages(run, connect, fields, body, expected):
    async def scenario():
        routes = [path("/", sign_in, methods=["POST"])]
        async with serve(routes, port=0) as server, connect(server) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: test\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
            response = await client.response()
            assert (response.status, response.body) == expected
            if response.status == 303:
                assert (await client.get("/")).headers["allow"] == "POST"

    run(scenario())


def test_an_unknown_path_is_404_and_an_unknown_method_405(run, connect):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            assert (await client.get("/nowhere")).status == 404
            client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc")
            response = await client.response()
            assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
            response = await client.get("/head")
            assert (response.status, response.headers["allow"]) == (405, "HEAD")
            assert (await client.get("/")).status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/failing", "a secret"),
        ("/leaving", "a secret"),
        ("/closing", "a secret"),
        ("/changed", "a secret"),
        ("/cancelled", "a secret"),
        ("/replaced", "the content of a response is bytes, not str"),
        ("/none", "returned NoneType, not a response"),
    ],
)
def test_an_error_in_a_page_is_logged_and_answered_500(run, connect, caplog, target, words):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            response = await client.get(target)
            assert (response.status, response.body) == (500, b"500\n")
            assert (await client.get("/")).status == 200

    run(scenario())
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("duck.server", logging.ERROR)
    assert words in str(record.exc_info[1])


def test_a_response_that_cannot_be_sent_leaves_no_client_without_an_end(run, connect, caplog):
    class Huge(HttpResponse):
        def to_bytes(self, **kwargs):
            raise MemoryError("a secret")

    async def scenario():
        async with serve([path("/", lambda request: Huge(""))], port=0) as server, connect(server) as client:
            client.send(GET)
            assert await client.end() == b""

    run(scenario())
    (record,) = caplog.records
    assert "a secret" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("data", "status"),
    [
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
    ],
)
def test_refusals_can_be_read_and_end_the_connection(run, connect, either_tls, data, status):
    async def scenario():
        ssl = either_tls and either_tls.server
        limits = Limits(linger_timeout=0.2)
        async with serve(urlpatterns, port=0, ssl=ssl, limits=limits) as server:
            async with connect(server, either_tls) as client:
                client.send(data)
                response = await client.response()
                assert response.status == status
                assert response.headers["connection"] == "close"
                # TLS cannot end one direction only, and so resets the connection at last.
                assert await (client.rest() if ssl is None else client.end()) == b""
            async with connect(server, either_tls) as client:
                assert (await client.get()).status == 200

    run(scenario())


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
def test_a_head_request_is_refused_without_a_body(run, connect, data, status):
    async def scenario():
        limits = Limits(linger_timeout=0.2, head_timeout=0.2)
        async with serve(urlpatterns, port=0, limits=limits) as server, connect(server) as client:
            client.send(data)
            response = await client.response(head_only=True)
            assert (response.status, int(response.headers["content-length"]) > 0) == (status, True)
            assert await client.rest() == b""

    run(scenario())


@pytest.mark.parametrize("cookie", ["city=Łódź", "price=5€", "mood=😀"])
def test_a_cookie_in_utf_8_comes_through(run, connect, cookie):
    async def scenario():
        def page(request):
            value = request.get_header("cookie")
            return HttpResponse(value.encode("latin-1"), headers=[("X-Cookie", value)])

        async with serve([path("/", page)], port=0) as server, connect(server) as client:
            client.send(f"GET / HTTP/1.1\r\nHost: test\r\nCookie: {cookie}\r\n\r\n".encode())
            response = await client.response()
            assert (response.status, response.body.decode()) == (200, cookie)
            assert response.headers["x-cookie"].encode("latin-1").decode() == cookie

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: test\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_a_connection_that_is_not_kept_closes_after_the_response(run, connect, either_tls, data):
    async def scenario():
        ssl = either_tls and either_tls.server
        async with serve(urlpatterns, port=0, ssl=ssl) as server, connect(server, either_tls) as client:
            client.send(data)
            response = await client.response()
            assert (response.status, response.headers["connection"]) == (200, "close")
            assert await client.rest() == b""

    run(scenario())


def test_an_upgrade_that_is_not_wanted_is_ignored(run, connect):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            upgrade = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            client.send(upgrade + upgrade)
            for _ in range(2):
                response = await client.response()
                assert (response.status, response.body) == (200, b"/ {}")
            assert (await client.get()).status == 200

    run(scenario())


def test_pipelined_requests_are_answered_in_order_one_at_a_time(run, connect):
    running = 0

    async def view(request, number):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.001 if number % 7 == 0 else 0)
        running -= 1
        return str(number)

    async def scenario():
        async with serve([path("/<int:number>", view)], port=0) as server, connect(server) as client:
            count = 500
            for number in range(count):
                client.send(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number)
            for number in range(count):
                assert (await client.response()).body == b"%d" % number

    run(scenario())


def test_requests_before_a_malformed_one_are_answered(run, connect):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            client.send(GET + GET + b"nonsense\r\n\r\n" + GET)
            statuses = [(await client.response()).status for _ in range(3)]
            assert statuses == [200, 200, 400]
            assert await client.end() == b""

    run(scenario())


def test_a_head_may_come_in_single_bytes(run, connect):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            client.writer.transport.set_write_buffer_limits(0)
            for _ in range(2):
                for byte in GET:
                    client.send(bytes([byte]))
                    await client.writer.drain()
                    await asyncio.sleep(0)
                assert (await client.response()).status == 200

    run(scenario())


def test_a_client_that_stops_sending_still_gets_its_answer(run, connect):
    async def scenario():
        async with serve(urlpatterns, port=0) as server, connect(server) as client:
            client.send(GET)
            client.writer.write_eof()
            assert (await client.response()).status == 200
            assert await client.rest() == b""

    run(scenario())


def test_a_client_that_is_gone_before_the_answer_leaves_nothing(run, connect, either_tls, until, caplog):
    asked, release = asyncio.Queue(), asyncio.Event()

    async def view(request):
        asked.put_nowait(request)
        await release.wait()
        return "late"

    def connections():
        return [each for each in gc.get_objects() if issubclass(type(each), HttpProtocol)]

    async def scenario():
        ssl = either_tls and either_tls.server
        limits = Limits(keep_alive_timeout=1000)
        async with serve([path("/", view)], port=0, ssl=ssl, limits=limits) as server:
            async with connect(server, either_tls) as client:
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

    gc.collect()
    run(scenario())
    assert caplog.records == []


def test_a_view_that_cancels_itself_costs_its_connection_only(run, connect):
    async def view(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async def scenario():
        async with serve([*urlpatterns, path("/cancel", view)], port=0) as server:
            async with connect(server) as client:
                client.send(GET.replace(b"/ ", b"/cancel "))
                assert await client.end() == b""
            async with connect(server) as client:
                assert (await client.get()).status == 200

    run(scenario())


def test_state_of_one_request_does_not_reach_the_next(run, connect):
    seen = []

    def view(request, **kwargs):
        request.META["mark"] = len(seen)
        seen.append((request, kwargs))
        return ""

    async def scenario():
        async with serve([path("/a", view), path("/b/<x>", view)], port=0) as server, connect(server) as client:
            client.send(b"GET /b/1 HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n")
            await client.response()
            await client.get("/a")

    run(scenario())
    (_, first), (request, second) = seen
    assert (first, second) == ({"x": "1"}, {})
    assert request.get_header("x") is None
    assert request.META == {"mark": 1}


def test_connections_do_not_disturb_each_other(run, connect):
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

    async def scenario():
        async with serve([path("/<number>", echo)], port=0) as server:
            await asyncio.gather(*(talk(server, number) for number in range(30)))

    run(scenario())


def test_a_view_that_does_not_call_the_init_of_its_base_is_answered_500(run, connect, caplog, until):
    class Forgetful(WebSocketView):
        def __init__(self, request, **kwargs):
            self.name = "forgetful"

    async def scenario():
        limits = Limits(connections_per_address=1, linger_timeout=0.05)
        async with serve(Forgetful, port=0, limits=limits) as server:
            for _ in range(2):  # the first has left its place
                async with connect(server) as client:
                    client.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    assert (await client.response()).status == 500
                await until(lambda: not server._work.protocols)

    run(scenario())
    assert "Forgetful.__init__ must call super().__init__(request, **kwargs)" in caplog.text


@pytest.mark.parametrize("step", ["__init__", "run"])
def test_a_system_exit_at_the_start_of_a_view_gives_500(run, connect, caplog, step):
    def leave(*args, **kwargs):
        sys.exit("a secret")

    Leaving = type("Leaving", (WebSocketView,), {step: leave})

    async def scenario():
        async with serve(Leaving, port=0) as server, connect(server) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert (await client.response()).status == 500

    run(scenario())
    assert "a secret" in caplog.text
