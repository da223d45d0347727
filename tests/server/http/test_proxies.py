"""The client of a request behind a proxy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import WebSocketView
from duck.http.headers import Headers
from duck.server import serve
from duck.server.http.forwarded import parse_forwarded
from duck.server.http.proxies import Proxies
from duck.urls import path

from ...support.handshake import LINES, head

PROXY = ("10.0.0.1", 4711)


def client(*fields, peer=PROXY, secure=False, trusted=("10.0.0.0/8", "fd00::/8")):
    """The address of the client, and whether its connection was encrypted."""
    return Proxies(trusted).client(peer, Headers(fields), secure)[:2]


def host(*fields, peer=PROXY):
    return Proxies(["10.0.0.0/8"]).client(peer, Headers([("Host", "inside:8000"), *fields]), False).headers["host"]


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("  203.0.113.7  ", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.2,fd00::2", "203.0.113.7"),
        ("10.9.9.9, 203.0.113.7, 10.0.0.2", "203.0.113.7"),  # the client's own entry comes first
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a client that is trusted itself
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy(value, address):
    assert client(("X-Forwarded-For", value)) == ((address, 0), False)


def test_a_single_proxy_may_be_a_str():
    assert client(("X-Forwarded-For", "203.0.113.7"), trusted="10.0.0.1") == (("203.0.113.7", 0), False)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("203.0.113.7:51234", ("203.0.113.7", 51234)),
        ("[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[::ffff:203.0.113.7]:1", ("203.0.113.7", 1)),
        ("203.0.113.7:_hidden", ("203.0.113.7", 0)),
        ("9.9.9.9:9, 203.0.113.7:51234, 10.0.0.2:80", ("203.0.113.7", 51234)),
        ("203.0.113.7:65536", PROXY),
        ("203.0.113.7:", PROXY),
        ("203.0.113.7:-1", PROXY),
        ("203.0.113.7:1:2", PROXY),
        ("[203.0.113.7", PROXY),
        ("[2001:db8::1]4711", PROXY),
        ("203.0.113.7:\xb2", PROXY),
    ],
)
def test_an_address_may_have_a_port(value, address):
    assert client(("X-Forwarded-For", value))[0] == address
    assert (
        client(("Forwarded", f'for="{value.rpartition(", ")[2]}"'))[0]
        == client(("X-Forwarded-For", value.rpartition(", ")[2]))[0]
    )


def test_lines_are_read_as_one_list():
    assert client(("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.7, 10.0.0.2"))[0] == ("203.0.113.7", 0)


@pytest.mark.parametrize("value", ["", ",", "unknown", "_hidden", "<script>", "fe80::1%eth0", "1.2.3", "\xe9"])
def test_an_invalid_address_is_ignored_with_all_before_it(value):
    assert client(("X-Forwarded-For", value))[0] == PROXY
    assert client(("X-Forwarded-For", f"6.6.6.6, {value}"))[0] == PROXY  # the client may have forged it
    assert client(("Forwarded", f'for=6.6.6.6, for="{value}"'))[0] == PROXY
    assert client(("X-Forwarded-For", f"{value}, 10.0.0.2"))[0] == ("10.0.0.2", 0)


@pytest.mark.parametrize("peer", [("10.0.0.1", 1), ("::ffff:10.0.0.1", 1), ("fd00::1", 1)])
def test_headers_of_trusted_proxies_are_believed(peer):
    assert client(("X-Forwarded-For", "203.0.113.7"), peer=peer)[0] == ("203.0.113.7", 0)


@pytest.mark.parametrize("peer", [("11.0.0.1", 1), ("2001:db8::1", 1), "/run/socket", None])
def test_headers_of_others_are_ignored(peer):
    fields = ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "outside")
    assert client(*fields, peer=peer) == (peer, False)
    assert host(*fields, peer=peer) == "inside:8000"
    forwarded = ("Forwarded", "for=203.0.113.7;proto=https;host=outside")
    assert client(forwarded, peer=peer) == (peer, False)
    assert host(forwarded, peer=peer) == "inside:8000"


@pytest.mark.parametrize("peer", [None, "/run/socket"])
def test_clients_of_a_unix_socket_may_be_trusted(peer):
    assert client(("X-Forwarded-For", "203.0.113.7"), peer=peer, trusted=["unix"])[0] == ("203.0.113.7", 0)


@pytest.mark.parametrize(
    ("proto", "secure", "result"),
    [
        ("https", False, True),
        ("WSS", False, True),
        ("http", True, False),
        ("ws", True, False),
        ("http, https", False, True),  # reported by the nearest proxy
        ("", True, True),
        ("gopher", False, False),
        ("gopher", True, True),
    ],
)
def test_the_nearest_proxy_tells_whether_the_client_came_encrypted(proto, secure, result):
    assert client(("X-Forwarded-Proto", proto), secure=secure) == (PROXY, result)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("app.example.org", "app.example.org"),
        ("app.example.org:8443", "app.example.org:8443"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("evil.test, app.example.org", "app.example.org"),  # reported by the nearest proxy
        ("", "inside:8000"),
        ("a b", "inside:8000"),
        ("user@host", "inside:8000"),
        ("a/b", "inside:8000"),
        ("host:port", "inside:8000"),
    ],
)
def test_the_nearest_proxy_tells_the_host_that_the_client_asked_for(value, result):
    assert host(("X-Forwarded-Host", value)) == result
    assert host(("Forwarded", f'host="{value.rpartition(", ")[2]}"')) == result


def test_a_proxy_may_name_a_host_that_the_request_lacks():
    headers = Proxies(["10.0.0.0/8"]).client(PROXY, Headers([("X-Forwarded-Host", "outside")]), False).headers
    assert headers["host"] == "outside"


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("for=203.0.113.7;proto=https;by=10.0.0.1", (("203.0.113.7", 0), True)),
        ('For="[2001:db8::1]:4711" ; PROTO=http', (("2001:db8::1", 4711), False)),
        ("for=203.0.113.7:80", (("203.0.113.7", 80), False)),  # some proxies leave the quotes out
        ('for="203.0.113\\.7"', (("203.0.113.7", 0), False)),
        ("for=203.0.113.7;proto=https, for=10.0.0.2;proto=http", (("203.0.113.7", 0), True)),
        ("for=9.9.9.9;proto=https, for=203.0.113.7", (("203.0.113.7", 0), False)),
        ("for=203.0.113.7, , for=10.0.0.2,", (("203.0.113.7", 0), False)),
        ("for=unknown;proto=https", (PROXY, True)),
        ("for=_gateway, for=10.0.0.2", (("10.0.0.2", 0), False)),
        ("proto=https", (PROXY, True)),
        ("", (PROXY, False)),
        ("203.0.113.7", (PROXY, False)),
        ("for=1.2.3.4;for=5.6.7.8", (PROXY, False)),
        ("for = 1.2.3.4", (PROXY, False)),
        ('for="1.2.3.4', (PROXY, False)),
        ('for="1.2.3.4"x', (PROXY, False)),
        ('for="evil, for=203.0.113.7', (("203.0.113.7", 0), False)),  # begun by the client, ended by the proxy
    ],
)
def test_forwarded_names_the_last_client_that_is_no_proxy(value, result):
    assert client(("Forwarded", value)) == result


def test_the_host_is_that_of_the_outermost_proxy():
    assert host(("Forwarded", "for=9.9.9.9;host=evil.test, for=8.8.8.8;host=outside, for=10.0.0.2;host=b")) == "outside"


def test_forwarded_is_ignored_beside_x_forwarded():
    forwarded = ("Forwarded", "for=9.9.9.9;proto=https;host=evil.test")
    assert client(("X-Forwarded-For", "203.0.113.7"), forwarded) == (("203.0.113.7", 0), False)
    assert host(("X-Forwarded-For", "203.0.113.7"), forwarded) == "inside:8000"
    assert client(("X-Forwarded-Proto", "http"), forwarded) == (PROXY, False)


VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\n\0", exclude_categories=["Cc"]))
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~", min_size=1)
ELEMENTS = st.dictionaries(NAMES, VALUES, min_size=1)


def written(element):
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in element.items()}
    return ";".join(f'{name}="{value}"' for name, value in quoted.items())


@given(VALUES)
def test_any_field_is_parsed_without_an_error(value):
    address, _ = client(("X-Forwarded-For", value), ("X-Forwarded-Proto", value), ("X-Forwarded-Host", value))
    assert isinstance(address, tuple)
    address, _ = client(("Forwarded", value))
    assert isinstance(address, tuple)


@given(st.lists(ELEMENTS))
def test_a_written_field_is_read_back(elements):
    value = ", ".join(map(written, elements))
    assert list(parse_forwarded(value)) == elements[::-1]


@given(VALUES | st.text('",;=\\ \t[]:a1'), ELEMENTS)
def test_a_forged_beginning_does_not_hide_the_element_of_the_proxy(begun, element):
    assert next(parse_forwarded(f"{begun}, {written(element)}")) == element


@pytest.mark.parametrize("trusted", [["me"], "10.0.0.1/8", ["10.0.0.0/33"], ["*"]])
def test_an_invalid_trusted_proxy_is_refused(trusted):
    with pytest.raises(ValueError, match="a trusted proxy is an IP address, a network or unix"):
        Proxies(trusted)


async def test_a_server_believes_trusted_proxies_only(connect):
    def tell(request):
        return f"{request.client_address[0]} {request.secure} {request.headers['host']}"

    async def ask(*fields, **options):
        async with serve([path("/", tell)], port=0, **options) as server, connect(server) as one:
            one.send(head("/", "Host: test", *fields))
            return (await one.response()).body

    one_by_one = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: outside")
    together = ("Forwarded: for=203.0.113.7;proto=https;host=outside",)
    for fields in (one_by_one, together):
        assert await ask(*fields) == b"127.0.0.1 False test"
        assert await ask(*fields, trusted_proxies=["127.0.0.0/8"]) == b"203.0.113.7 True outside"


@pytest.mark.parametrize(
    "fields",
    [
        ("X-Forwarded-Host: app.example.org", "X-Forwarded-Proto: https"),
        ('Forwarded: for="203.0.113.7:51234";proto=https;host=app.example.org',),
    ],
)
@pytest.mark.parametrize(
    ("origin", "trusted", "status"),
    [
        ("https://app.example.org", ["127.0.0.1"], 101),
        ("https://app.example.org", [], 403),
        ("http://app.example.org", ["127.0.0.1"], 403),
        ("https://evil.test", ["127.0.0.1"], 403),
    ],
)
async def test_pages_of_the_host_that_a_proxy_was_asked_for_may_connect(connect, fields, origin, trusted, status):
    async with serve(WebSocketView, port=0, trusted_proxies=trusted) as server, connect(server) as one:
        one.send(head("/", "Host: 10.0.0.9:8000", *LINES, *fields, f"Origin: {origin}"))
        assert (await one.response()).status == status
