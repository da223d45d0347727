"""Pages over real sockets: the responses of views, errors in them, and forms."""

import asyncio
import logging
import sys

import pytest

from duck.http import HttpRequest, HttpResponse
from duck.server import serve
from duck.server.application.routes import Routes
from duck.server.http.pages import respond
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


async def test_pages_of_every_kind_of_view_are_served(connect, ssl):
    async with serve(urlpatterns, port=0, ssl=ssl) as server, connect(server) as client:
        page = await client.get("/?a=b")
        assert (page.status, page.body) == (200, b"/ {}")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "connection" not in page.headers
        page = await client.get("/async")
        assert (page.status, page.body, page.headers["x-a"]) == (201, b"async", "b")
        assert (await client.get("/hello/w%C3%A9")).body == "w\xe9".encode()
        assert (await client.get("/page/7/")).body == b"/page/7/ {'number': 7}"
        assert (await client.get("/coroutine")).body == b"coroutine"


async def test_a_page_gets_its_request(connect, ssl):
    seen = []

    def view(request):
        seen.append(request)
        return ""

    async with serve([path("/", view)], port=0, ssl=ssl) as server, connect(server) as client:
        await client.get("/?q=1")
        (request,) = seen
        assert request.application.server is server
        assert request.secure is (ssl is not None)
        assert request.client_address == client.writer.get_extra_info("sockname")
        assert request.client_socket.fileno() >= 0
        assert request.get_header("HOST") == "test"
        assert request.query == {"q": ["1"]}
        assert request.content == b""


async def test_a_head_request_gets_the_length_without_the_body(connect):
    async with serve(urlpatterns, port=0) as server, connect(server) as client:
        for target, length in (("/coroutine", "9"), ("/head", "9"), ("/nowhere", "4")):
            client.send(f"HEAD {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            response = await client.response(head_only=True)
            assert response.headers["content-length"] == length
        assert (await client.get("/coroutine")).body == b"coroutine"


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
async def test_a_form_is_accepted_from_the_servers_own_pages(connect, fields, body, expected):
    routes = [path("/", sign_in, methods=["POST"])]
    async with serve(routes, port=0) as server, connect(server) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: test\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body))
        response = await client.response()
        assert (response.status, response.body) == expected
        if response.status == 303:
            assert (await client.get("/")).headers["allow"] == "POST"


async def test_an_unknown_path_is_404_and_an_unknown_method_405(connect):
    async with serve(urlpatterns, port=0) as server, connect(server) as client:
        assert (await client.get("/nowhere")).status == 404
        client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc")
        response = await client.response()
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
        response = await client.get("/head")
        assert (response.status, response.headers["allow"]) == (405, "HEAD")
        assert (await client.get("/")).status == 200


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/failing", "a secret"),
        ("/leaving", "a secret"),
        ("/closing", "a secret"),
        ("/changed", "a secret"),
        ("/cancelled", "a secret"),
        ("/replaced", "the content of a response is bytes, not str"),
        ("/none", "returned NoneType, not a response: return a str, bytes or an HttpResponse"),
    ],
)
async def test_an_error_in_a_page_is_logged_and_answered_500(connect, caplog, target, words):
    async with serve(urlpatterns, port=0) as server, connect(server) as client:
        response = await client.get(target)
        assert (response.status, response.body) == (500, b"500\n")
        assert (await client.get("/")).status == 200
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("duck.server", logging.ERROR)
    assert words in str(record.exc_info[1])


async def test_a_response_that_cannot_be_sent_leaves_no_client_without_an_end(connect, caplog):
    class Huge(HttpResponse):
        def to_bytes(self, **kwargs):
            raise MemoryError("a secret")

    async with serve([path("/", lambda request: Huge(""))], port=0) as server, connect(server) as client:
        client.send(GET)
        assert await client.end() == b""
    (record,) = caplog.records
    assert "a secret" in str(record.exc_info[1])


async def test_a_view_that_cancels_itself_costs_its_connection_only(connect):
    async def view(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async with serve([*urlpatterns, path("/cancel", view)], port=0) as server:
        async with connect(server) as client:
            client.send(GET.replace(b"/ ", b"/cancel "))
            assert await client.end() == b""
        async with connect(server) as client:
            assert (await client.get()).status == 200


def test_a_page_whose_loop_has_stopped_ends_without_an_error(caplog):
    """Python closes the coroutine of such a page when it is freed. No loop is running then."""
    loop = asyncio.new_event_loop()

    async def waiting(request):
        await asyncio.Event().wait()

    answer = respond(HttpRequest(), Routes([path("/", waiting)]).match("/"), loop)

    async def begin():
        answer.send(None)

    loop.run_until_complete(begin())
    loop.close()
    answer.close()
    assert caplog.messages == []


async def test_state_of_one_request_does_not_reach_the_next(connect):
    seen = []

    def view(request, **kwargs):
        request.META["mark"] = len(seen)
        seen.append((request, kwargs))
        return ""

    async with serve([path("/a", view), path("/b/<x>", view)], port=0) as server, connect(server) as client:
        client.send(b"GET /b/1 HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n")
        await client.response()
        await client.get("/a")
    (_, first), (request, second) = seen
    assert (first, second) == ({"x": "1"}, {})
    assert request.get_header("x") is None
    assert request.META == {"mark": 1}
