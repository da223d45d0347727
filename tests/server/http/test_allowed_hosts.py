"""`allowed_hosts`, and `allowed_origins` for views without their own."""

import pytest

from duck.contrib.websockets import WebSocketView
from duck.server import serve
from duck.server.http.allowed_hosts import AllowedHosts
from duck.urls import path

from ...support.handshake import LINES, head
from ...support.views import Echo


@pytest.mark.parametrize(
    ("names", "field", "allowed"),
    [
        (["localhost"], "localhost", True),
        (["localhost"], "localhost:8000", True),
        (["localhost"], "LOCALHOST", True),
        (["LocalHost"], "localhost", True),
        (["localhost."], "localhost", True),
        (["localhost"], "localhost.", True),
        (["127.0.0.1"], "127.0.0.1:80", True),
        (["::1"], "[::1]:8000", True),
        (["[::1]"], "[0:0::1]", True),
        (["*.example.org"], "a.example.org", True),
        (["*.example.org"], "a.b.example.org:8000", True),
        (["a.test", "b.test"], "b.test", True),
        (["localhost"], "", False),
        (["localhost"], "evil.test", False),
        (["localhost"], "localhost.evil.test", False),
        (["localhost"], "evil.localhost", False),
        (["localhost"], "localhost:", True),
        (["localhost"], "localhost:99999", False),
        (["localhost"], "localhost, evil.test", False),
        (["localhost"], "evil.test:80@localhost", False),
        (["*.example.org"], "example.org", False),
        (["*.example.org"], "evilexample.org", False),
        (["*.example.org"], ".example.org", False),
        (["127.0.0.1"], "127.0.0.2", False),
        (["::1"], "[::2]", False),
        (["::1"], "[::1", False),
    ],
)
def test_a_host_is_allowed_by_its_name_on_any_port(names, field, allowed):
    assert (field in AllowedHosts(names)) is allowed


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        ("localhost", r"not one str: write \['localhost'\]"),
        ([b"localhost"], "each a str"),
        ([""], "write 'localhost'"),
        (["*"], "write 'localhost'"),
        (["a.*.test"], "for its subdomains"),
        (["*.*.test"], "for its subdomains"),
        (["*..test"], "for its subdomains"),
        (["localhost:8000"], "without scheme and port"),
        (["http://localhost"], "without scheme and port"),
        (["localhost/path"], "without scheme and port"),
        (["bücher.example"], "in ASCII"),
        (["a b"], "write 'localhost'"),
    ],
)
def test_a_name_that_no_request_can_have_is_refused_with_advice(names, advice):
    with pytest.raises((TypeError, ValueError), match=f"^allowed_hosts (is|has) .*{advice}"):
        AllowedHosts(names)


class Closed(Echo):
    ALLOWED_ORIGINS = ("https://own.example",)


ROUTES = [path("/ws", Echo), path("/closed", Closed), path("/page", lambda request: "hello")]


def request(target, host, *lines, method="GET"):
    return head(target, f"Host: {host}", *lines, method=method)


@pytest.mark.parametrize(
    ("host", "status"), [("localhost", 200), ("localhost:8000", 200), ("a.example.org", 200), ("evil.test", 421)]
)
@pytest.mark.parametrize("target", ["/page", "/ws"])
async def test_a_request_for_another_host_is_misdirected(connect, host, status, target):
    """A page whose name resolves to this server sends it as Host and as Origin, so both agree."""
    hosts = ["localhost", "*.example.org"]
    async with serve(ROUTES, port=0, allowed_hosts=hosts) as server, connect(server) as client:
        lines = [f"Origin: http://{host}"]
        if target == "/ws":
            lines += LINES
        client.send(request(target, host, *lines))
        expected = 101 if (target, status) == ("/ws", 200) else status
        assert (await client.response()).status == expected


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.test/page", "localhost", 421),
        ("http://evil.test?/page", "localhost", 421),
        ("http://localhost/page", "evil.test", 200),
        ("HTTP://localhost:8000/page", "localhost", 200),
        ("http://a@localhost/page", "localhost", 400),
        ("/page?to=http://evil.test/", "localhost", 200),
    ],
)
async def test_a_host_in_the_target_counts_and_not_the_field(connect, target, host, status):
    """RFC 9112, section 3.2.2."""
    async with serve(ROUTES, port=0, allowed_hosts=["localhost"]) as server, connect(server) as client:
        client.send(request(target, host))
        assert (await client.response()).status == status


async def test_by_default_a_server_goes_by_any_name(connect):
    async with serve(ROUTES, port=0) as server, connect(server) as client:
        client.send(request("/page", "anything.test"))
        assert (await client.response()).status == 200


async def test_the_host_that_a_trusted_proxy_was_asked_for_counts(connect):
    options = {"allowed_hosts": ["app.example.org"], "trusted_proxies": ["127.0.0.1"]}
    async with serve(ROUTES, port=0, **options) as server, connect(server) as client:
        client.send(request("/page", "10.0.0.1", "X-Forwarded-Host: app.example.org"))
        assert (await client.response()).status == 200
        client.send(request("/page", "app.example.org", "X-Forwarded-Host: evil.test"))
        assert (await client.response()).status == 421


async def test_a_refused_host_is_logged_with_the_setting(connect, caplog):
    caplog.set_level("INFO", "duck.server")
    async with serve(ROUTES, port=0, allowed_hosts=["localhost"]) as server, connect(server) as client:
        client.send(request("/page", "evil.test", method="HEAD"))
        response = await client.response(head_only=True)
        assert (response.status, await client.rest()) == (421, b"")
    (message,) = [record.getMessage() for record in caplog.records if "421" in record.getMessage()]
    assert "'evil.test'" in message and "allowed_hosts" in message


@pytest.mark.parametrize(
    ("target", "origin", "status"),
    [
        ("/ws", "https://app.example.org", 101),
        ("/ws", "https://a.example.net", 101),
        ("/ws", "https://example.net", 403),
        ("/ws", "http://localhost", 403),
        ("/closed", "https://own.example", 101),
        ("/closed", "https://app.example.org", 403),
    ],
)
async def test_allowed_origins_hold_for_views_that_name_none(connect, target, origin, status):
    origins = ["https://app.example.org", "https://*.example.net"]
    async with serve(ROUTES, port=0, allowed_origins=origins) as server, connect(server) as client:
        client.send(request(target, "localhost", f"Origin: {origin}", *LINES))
        assert (await client.response()).status == status


@pytest.mark.parametrize(("origin", "status"), [("http://localhost", 101), ("https://app.example.org", 403)])
async def test_origins_of_a_property_are_the_views_own(connect, origin, status):
    class Own(WebSocketView):
        ALLOWED_ORIGINS = property(lambda self: None)

    async with serve(Own, port=0, allowed_origins=["https://app.example.org"]) as server, connect(server) as client:
        client.send(request("/", "localhost", f"Origin: {origin}", *LINES))
        assert (await client.response()).status == status


@pytest.mark.parametrize("origins", ["https://example.org", ["example.org"], [None]])
async def test_invalid_origins_are_refused(origins):
    with pytest.raises((TypeError, ValueError), match=r"^allowed_origins "):
        async with serve(ROUTES, port=0, allowed_origins=origins):
            pass
