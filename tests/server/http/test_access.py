"""The log of requests: an access log on request, and the reason of each refusal."""

import logging

import pytest

from duck.contrib.websockets import HandshakeError, WebSocketView
from duck.contrib.websockets.logging import log_refusal
from duck.http.request import HttpRequest
from duck.server import Limits, serve
from duck.urls import path

from ...support.handshake import LINES, head


class Later(WebSocketView):
    """Answers in a task of its own."""

    async def run(self, *_, **__):
        await super().run()


def broken(request):
    raise RuntimeError


urlpatterns = [
    path("/page", lambda request: "hello"),
    path("/form", lambda request: "hello", methods="POST"),
    path("/broken", broken),
    path("/ws", WebSocketView),
    path("/later", Later),
]


def request(target, *lines, method="GET", host="test"):
    return head(target, f"Host: {host}", *lines, method=method)


@pytest.fixture
def ask(run, connect):
    """Sends bytes to a server; returns the status of the answer, and the address of the client."""

    def ask(data, **options):
        async def scenario():
            async with serve(urlpatterns, port=0, **options) as server, connect(server) as client:
                client.send(data)
                host, port = client.writer.get_extra_info("sockname")
                return (await client.response(head_only=b"HEAD" in data)).status, f"{host}:{port}"

        return run(scenario())

    return ask


@pytest.mark.parametrize(
    ("data", "logged"),
    [
        (request("/page?a=b"), '"GET /page?a=b HTTP/1.1" 200 5'),
        (request("/page", method="HEAD"), '"HEAD /page HTTP/1.1" 200 0'),
        (request("/page", method="POST"), '"POST /page HTTP/1.1" 405 4'),
        (request("/nowhere%0A"), '"GET /nowhere%0A HTTP/1.1" 404 4'),
        (request('/"'), '"GET /\\x22 HTTP/1.1" 404 4'),
        (request("/ws", *LINES), '"GET /ws HTTP/1.1" 101 -'),
        (request("/later", *LINES), '"GET /later HTTP/1.1" 101 -'),
        (request("/ws"), '"GET /ws HTTP/1.1" 426 -'),
        (request("/later"), '"GET /later HTTP/1.1" 426 -'),
        (request("/ws", *LINES, "Origin: http://evil.test"), '"GET /ws HTTP/1.1" 403 -'),
        (b"nonsense\r\n\r\n", '"-" 400 -'),
    ],
)
def test_each_request_is_a_line(ask, caplog, data, logged):
    caplog.set_level("INFO", "duck.access")
    status, address = ask(data)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "duck.access"]
    assert line == f"{address} {logged}"
    assert f" {status} " in line


def test_the_access_log_is_off_by_default(ask, caplog):
    caplog.set_level("INFO")
    ask(request("/page"))
    assert caplog.records == []


def test_a_long_reason_of_a_refusal_is_cut_in_the_log(caplog):
    caplog.set_level("INFO")
    log_refusal(HttpRequest("GET", "/", []), HandshakeError(403, "long " * 1000))
    (record,) = caplog.records
    assert len(record.getMessage()) < 300


LONG = "a" * 10_000


@pytest.mark.parametrize(
    "data",
    [
        request(f"/{LONG}"),
        request(f"/page?{LONG}", method="PUT"),
        request(f"http://[{LONG}]/"),
        request("/page", host=f"{LONG} "),
        request("/page", host=LONG),
        request("/form", f"Origin: {LONG}", method="POST"),
        request(f"/broken?{LONG}"),
        request("/ws", *LINES, f"Origin: {LONG}"),
    ],
    ids=["404", "405", "400", "400 Host", "421", "403", "500", "403 view"],
)
def test_no_request_is_long_in_the_log(ask, caplog, data):
    caplog.set_level("INFO")
    caplog.set_level("INFO", "duck.access")
    ask(data, allowed_hosts=["test"])
    assert caplog.messages and max(map(len, caplog.messages)) < 1000


@pytest.mark.parametrize(
    ("data", "limits", "words"),
    [
        (request("/nowhere"), {}, "404: there is no route for /nowhere"),
        (request("/100%25"), {}, "404: there is no route for /100%25"),
        (request("/page", method="PUT"), {}, "405: PUT of /page, which answers GET, HEAD: see methods of its route"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", {}, "400: a header of the PROXY protocol: serve with"),
        (b"HELO there\r\n", {}, "400: not HTTP/1.1: "),
        (request("/page", host="a b"), {}, "400: a malformed or repeated Host: 'a b'"),
        (request("http://[::1/"), {}, "400: a malformed or repeated Host: '[::1'"),
        (request("http://[x]/"), {}, "400: 'http://[x]/' is not a request target: "),
        (b"GET / HTTP/2.0\r\n\r\n", {}, "505: the client speaks HTTP/2.0"),
        (request("/", "X: 1", "Y: 2"), {"header_count": 2}, "431: the head has more than 32768 bytes or 2 fields: see"),
        (request("/", "X: 1"), {"head_size": 30}, "431: the head has more than 30 bytes or 100 fields: see Limits."),
        (b"GET / HTTP/1.1\r\n", {"head_timeout": 0.1}, "408: the request has not arrived within 0.1 s: see Limits."),
        (request("/page"), {"connections": 0}, "503: too many connections: see Limits.connections"),
    ],
)
def test_a_refusal_is_logged_with_its_reason(ask, caplog, data, limits, words):
    caplog.set_level("INFO")
    status, address = ask(data, limits=Limits(**limits))
    (record,) = [record for record in caplog.records if record.levelno == logging.INFO]
    assert record.name == "duck.server"
    assert record.getMessage().startswith(f"{address} refused with {words}")
    assert words.startswith(str(status))


@pytest.mark.parametrize(
    ("forwarded", "trusted", "details"),
    [
        ([], (), "Host: inside:8000; see ALLOWED_ORIGINS"),
        (
            ["X-Forwarded-Host: app.test"],
            (),
            "Host: inside:8000; X-Forwarded-Host: app.test; see ALLOWED_ORIGINS, or trusted_proxies",
        ),
        (["X-Forwarded-Host: app.test"], ["127.0.0.1"], "Host: app.test; see ALLOWED_ORIGINS"),
    ],
    ids=["no proxy", "a proxy", "a trusted proxy"],
)
def test_a_refused_origin_is_logged_with_its_host_and_the_setting(ask, caplog, forwarded, trusted, details):
    caplog.set_level("INFO")
    data = request("/ws", *LINES, "Origin: https://evil.test", *forwarded, host="inside:8000")
    _, address = ask(data, trusted_proxies=trusted)
    assert caplog.messages == [
        f"{address} /ws [WebSocket] [REFUSED] 403 connections from this origin are not allowed "
        f"(Origin: https://evil.test; {details})"
    ]


@pytest.mark.parametrize("target", ["/%0A%1B%5B31m", "/%E2%80%A8", "/%C2%85"])
async def test_a_path_does_not_break_a_line(connect, caplog, target):
    caplog.set_level("INFO")
    caplog.set_level("INFO", "duck.access")
    async with serve(WebSocketView, port=0) as server, connect(server) as client:
        client.send(request(target, *LINES))
        assert (await client.response()).status == 101
        client.send(b"\x88\x82\0\0\0\0\x03\xe8")
        await client.rest()
    assert len(caplog.messages) == 3
    for message in caplog.messages:
        assert message.isprintable()
