"""Who a request is from, where a proxy stands between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.http.headers import Headers
from duck.server import serve
from duck.server.proxies import Proxies
from duck.urls import path

PROXY = ("10.0.0.1", 4711)


def client(*fields, peer=PROXY, secure=False, trusted=("10.0.0.0/8", "fd00::/8")):
    return Proxies(trusted).client(peer, Headers(fields), secure)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("  203.0.113.7  ", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("203.0.113.7, 10.0.0.2,fd00::2", "203.0.113.7"),
        ("10.9.9.9, 203.0.113.7, 10.0.0.2", "203.0.113.7"),  # whatever the client says comes first
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a client that is trusted itself
    ],
)
def test_the_client_is_the_last_who_is_no_proxy(value, address):
    assert client(("X-Forwarded-For", value)) == ((address, 0), False)


def test_lines_are_read_as_one_list():
    assert client(("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.7, 10.0.0.2"))[0] == ("203.0.113.7", 0)


@pytest.mark.parametrize("value", ["", ",", "unknown", "_hidden", "203.0.113.7:80", "<script>", "1.2.3", "\xe9"])
def test_what_is_no_address_is_not_taken(value):
    assert client(("X-Forwarded-For", value))[0] == PROXY
    assert client(("X-Forwarded-For", f"{value}, 10.0.0.2"))[0] == ("10.0.0.2", 0)


@pytest.mark.parametrize("peer", [("10.0.0.1", 1), ("::ffff:10.0.0.1", 1), ("fd00::1", 1)])
def test_whose_word_is_taken(peer):
    assert client(("X-Forwarded-For", "203.0.113.7"), peer=peer)[0] == ("203.0.113.7", 0)


@pytest.mark.parametrize("peer", [("11.0.0.1", 1), ("2001:db8::1", 1), "/run/socket", None])
def test_whose_word_is_not_taken(peer):
    fields = ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")
    assert client(*fields, peer=peer) == (peer, False)


@pytest.mark.parametrize("peer", [None, "/run/socket"])
def test_who_comes_by_a_unix_socket(peer):
    assert client(("X-Forwarded-For", "203.0.113.7"), peer=peer, trusted=["unix"])[0] == ("203.0.113.7", 0)


@pytest.mark.parametrize(
    ("proto", "secure", "result"),
    [
        ("https", False, True),
        ("WSS", False, True),
        ("http", True, False),
        ("ws", True, False),
        ("http, https", False, True),  # the nearest proxy's word
        ("", True, True),
        ("gopher", False, False),
        ("gopher", True, True),
    ],
)
def test_whether_the_client_came_encrypted(proto, secure, result):
    assert client(("X-Forwarded-Proto", proto), secure=secure) == (PROXY, result)


@given(st.text(st.characters(codec="latin-1", exclude_characters="\n\0", exclude_categories=["Cc"])))
def test_nothing_breaks_it(value):
    address, _ = client(("X-Forwarded-For", value), ("X-Forwarded-Proto", value))
    assert isinstance(address, tuple)


@pytest.mark.parametrize("trusted", [["me"], "10.0.0.1/8", ["10.0.0.0/33"], ["*"]])
def test_who_cannot_be_trusted(trusted):
    with pytest.raises(ValueError, match="a trusted proxy is an IP address, a network or unix"):
        Proxies(trusted)


def test_on_a_server(run, connect):
    def tell(request):
        return f"{request.client_address[0]} {request.secure}"

    async def ask(**options):
        async with serve([path("/", tell)], port=0, **options) as server, connect(server) as one:
            one.send(
                b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\r\n"
            )
            return (await one.response()).body

    async def scenario():
        assert await ask() == b"127.0.0.1 False"
        assert await ask(trusted_proxies=["127.0.0.0/8"]) == b"203.0.113.7 True"

    run(scenario())
