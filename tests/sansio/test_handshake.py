"""The opening handshake without I/O: accepted requests, and the refusals of others."""

import base64

import pytest

from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.sansio import handshake
from duck.http.request import HttpRequest

from ..support.handshake import KEY, fields


def request(headers=(), /, *, without=(), method="GET", http_version="1.1", secure=False, also=()):
    """A valid request with the given changes; `also` has additional lines for existing header fields."""
    lines = fields({"Host": "example.org", **dict(headers)}, without).items()
    return HttpRequest(method, "/", [*lines, *also], http_version=http_version, secure=secure)


def accept(*args, subprotocols=(), allowed_origins=None, **kwargs):
    """The acceptance by a server with these settings."""
    asked = request(*args, **kwargs)
    return handshake.agree(asked, handshake.check(asked, allowed_origins), subprotocols)


def refused(*args, **kwargs):
    with pytest.raises(HandshakeError) as caught:
        accept(*args, **kwargs)
    return caught.value


def parsed(response):
    """Status line, headers by their names in lower case, and body."""
    head, _, body = response.decode("latin-1").partition("\r\n\r\n")
    line, *fields = head.split("\r\n")
    headers = [tuple(field.split(": ", 1)) for field in fields]
    assert len({name.lower() for name, _ in headers}) == len(headers)
    return line, {name.lower(): value for name, value in headers}, body


# Agreed to


def test_the_example_of_the_rfc_is_accepted():
    """RFC 6455, section 1.3."""
    line, headers, body = parsed(handshake.switching_protocols(accept()))
    assert line == "HTTP/1.1 101 Switching Protocols"
    assert headers == {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }
    assert body == ""


def test_accept_key_is_that_of_the_rfc():
    assert handshake.accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert handshake.MAGIC_STRING == "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


ODD_BUT_GOOD = {
    "several connection options": {"Connection": "keep-alive, Upgrade"},
    "connection options without spaces": {"Connection": "keep-alive,upgrade,x"},
    "connection in capitals": {"Connection": "UPGRADE"},
    "upgrade in mixed case": {"Upgrade": "WebSocket"},
    "several upgrades": {"Upgrade": "h2c, websocket"},
    "tabs around a token": {"Connection": "\tUpgrade\t,\tx"},
    "empty list members": {"Connection": ",,Upgrade,"},
    "space around the version": {"Sec-WebSocket-Version": " 13 "},
    "space around the key": {"Sec-WebSocket-Key": f" {KEY} "},
    "extensions nobody knows": {"Sec-WebSocket-Extensions": "x-permessage-deflate-frame, foo; bar=1"},
    "a subprotocol nobody speaks": {"Sec-WebSocket-Protocol": "soap"},
    "a body of no bytes": {"Content-Length": "0"},
}


@pytest.mark.parametrize("case", ODD_BUT_GOOD)
def test_unusual_but_valid_requests_are_accepted(case):
    _, headers, _ = parsed(handshake.switching_protocols(accept(ODD_BUT_GOOD[case])))
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "sec-websocket-extensions" not in headers
    assert "sec-websocket-protocol" not in headers


def test_connection_options_may_be_on_several_lines():
    accept({"Connection": "keep-alive"}, also=[("Connection", "Upgrade")])


# Refused

REFUSED = {
    "no upgrade": (426, {"without": ["Upgrade"]}),
    "empty upgrade": (426, {"headers": {"Upgrade": ""}}),
    "another upgrade": (426, {"headers": {"Upgrade": "h2c"}}),
    "an upgrade that contains the word": (426, {"headers": {"Upgrade": "notupgrade, websocket2, xwebsocket"}}),
    "no connection": (400, {"without": ["Connection"]}),
    "connection: keep-alive": (400, {"headers": {"Connection": "keep-alive"}}),
    "a connection option that contains the word": (400, {"headers": {"Connection": "notupgrade, upgrade-insecure"}}),
    "no version": (426, {"without": ["Sec-WebSocket-Version"]}),
    "two versions": (426, {"also": [("Sec-WebSocket-Version", "13")]}),
    **{
        f"version {version!r}": (426, {"headers": {"Sec-WebSocket-Version": version}})
        for version in ("0", "7", "8", "12", "14", "99", "-13", "+13", "013", "13.0", "1 3", "13, 8", "abc", "")
    },
    "no key": (400, {"without": ["Sec-WebSocket-Key"]}),
    "two keys": (400, {"also": [("Sec-WebSocket-Key", KEY)]}),
    "an empty key": (400, {"headers": {"Sec-WebSocket-Key": ""}}),
    "a key that is no base64": (400, {"headers": {"Sec-WebSocket-Key": "abc"}}),
    "a key with a character outside of base64": (400, {"headers": {"Sec-WebSocket-Key": KEY[:5] + "!" + KEY[5:]}}),
    "a key without padding": (400, {"headers": {"Sec-WebSocket-Key": KEY.rstrip("=")}}),
    "a key of 15 bytes": (400, {"headers": {"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()}}),
    "a key of 17 bytes": (400, {"headers": {"Sec-WebSocket-Key": base64.b64encode(bytes(17)).decode()}}),
    "a key in Latin-1": (400, {"headers": {"Sec-WebSocket-Key": "é" * 24}}),
    "HTTP/1.0": (400, {"http_version": "1.0"}),
    "a body": (400, {"headers": {"Content-Length": "5"}}),
    "a body that begins with a zero": (400, {"headers": {"Content-Length": "05"}}),
    "lengths of two bodies": (400, {"headers": {"Content-Length": "0"}, "also": [("Content-Length", "5")]}),
    "a body in chunks": (400, {"headers": {"Transfer-Encoding": "chunked"}}),
    **{method: (405, {"method": method}) for method in ("POST", "HEAD", "OPTIONS", "CONNECT", "get")},
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_request_is_refused_with_its_status(case):
    status, change = REFUSED[case]
    change = dict(change)
    error = refused(change.pop("headers", {}), **change)
    line, headers, body = parsed(handshake.refusal(error))
    assert error.status == status
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert headers["connection"] == ("Upgrade, close" if status == 426 else "close")
    assert headers["content-length"] == str(len(body))
    assert body == f"{error}\n"
    if status == 426:
        assert (headers["sec-websocket-version"], headers["upgrade"]) == ("13", "websocket")
    if status == 405:
        assert headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("headers", "lines", "count"),
    [((), None, 1), ((("date", "Sun, 06 Nov 1994 08:49:37 GMT"),), None, 1), ((), b"Server: x\r\n", 0)],
)
def test_a_refusal_has_a_date_unless_it_or_its_host_sets_one(headers, lines, count):
    """RFC 9110, section 6.6.1."""
    response = handshake.refusal(HandshakeError(403, "no", headers), lines=lines)
    assert response.lower().count(b"\r\ndate: ") == count


def test_a_plain_request_gets_426_with_an_upgrade_field():
    """RFC 9110, section 15.5.22: a 426 has an Upgrade field."""
    error = refused(without=["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    _, headers, _ = parsed(handshake.refusal(error))
    assert (error.status, headers["upgrade"]) == (426, "websocket")


def test_the_body_of_a_refusal_is_left_out_for_head():
    error = refused(method="HEAD")
    whole, head = handshake.refusal(error), handshake.refusal(error, head_only=True)
    assert whole == head + f"{error}\n".encode()


def test_a_refusal_has_headers_and_a_body_of_its_own():
    error = HandshakeError(402, "pay", {"Content-Type": "application/json", "X-Price": "1"}, body='{"pay": 1}')
    line, headers, body = parsed(handshake.refusal(error, lines=b"Server: duck\r\n"))
    assert line == "HTTP/1.1 402 Payment Required"
    assert headers == {
        "connection": "close",
        "content-type": "application/json",
        "x-price": "1",
        "content-length": "10",
        "server": "duck",
    }
    assert body == '{"pay": 1}'
    line, headers, body = parsed(handshake.refusal(HandshakeError(304, body=b"none")))
    assert (line, headers["connection"], "content-length" in headers, body) == (
        "HTTP/1.1 304 Not Modified",
        "close",
        False,
        "",
    )
    assert handshake.refusal(HandshakeError(599)).startswith(b"HTTP/1.1 599 \r\n")


def test_an_acceptance_has_headers_of_its_own_unless_the_host_has_lines():
    agreed = accept()._replace(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], subprotocol="v2")
    before, (*fields, _, _) = parts(handshake.switching_protocols(agreed))
    assert fields == [b"Set-Cookie: a=1", b"Set-Cookie: b=2"]
    assert parts(handshake.switching_protocols(agreed, b"Server: duck\r\n")) == (before, [b"Server: duck", b"", b""])
    assert parts(handshake.switching_protocols(agreed, b"")) == (before, [b"", b""])


def parts(response: bytes) -> tuple[list[bytes], list[bytes]]:
    """The lines of a head up to the subprotocol, and those behind it."""
    lines = response.split(b"\r\n")
    at = lines.index(b"Sec-WebSocket-Protocol: v2") + 1
    return lines[:at], lines[at:]


def test_a_refusal_repeats_nothing_of_the_request():
    error = refused({"Sec-WebSocket-Version": "<script>"})
    assert b"script" not in handshake.refusal(error)


def test_headers_with_control_characters_do_not_become_a_request():
    for value in ("a\r\nX: y", "a\nb", "a\x00b", "a\x0bb", "a\x0cb", "a\x1cb"):
        with pytest.raises(ValueError, match="control character"):
            request({"Sec-WebSocket-Protocol": value})


# Subprotocols


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [
        ("chat", ["chat"], "chat"),
        ("v1, v2", ["v2", "v1"], "v1"),
        ("soap, v2", ["v1", "v2"], "v2"),
        ("soap , v2\t", ["v2"], "v2"),
        ("v1,,v2", ["v2"], "v2"),
        ("Chat", ["chat"], None),
        ("cha", ["chat"], None),
        ("chat2", ["chat"], None),
        ("", ["chat"], None),
        ("soap", ["chat"], None),
        ("chat", [], None),
        ("a, , x", ["x"], "x"),
        ("a, , x", [""], None),
        (" , ", ["chat", ""], None),
        ("v1; v2", ["v1"], None),
    ],
)
def test_the_first_supported_subprotocol_of_the_client_is_chosen(offered, spoken, chosen):
    acceptance = accept({"Sec-WebSocket-Protocol": offered}, subprotocols=spoken)
    assert acceptance.subprotocol == chosen
    _, headers, _ = parsed(handshake.switching_protocols(acceptance))
    assert headers.get("sec-websocket-protocol") == chosen


def test_subprotocols_on_several_lines_are_one_list():
    lines = [("Sec-WebSocket-Protocol", "v2"), ("Sec-WebSocket-Protocol", "v3")]
    assert accept(also=lines, subprotocols=["v3", "v2"]).subprotocol == "v2"


def test_no_subprotocol_is_answered_where_none_is_offered():
    assert accept(subprotocols=["chat"]).subprotocol is None


# Origin

HTTPS = {"secure": True}
SAME = [
    ("http://example.org", "example.org", {}),
    ("http://example.org:80", "example.org", {}),
    ("http://example.org", "example.org:80", {}),
    ("http://example.org:8000", "example.org:8000", {}),
    ("HTTP://EXAMPLE.org", "Example.ORG", {}),
    ("https://example.org", "example.org", HTTPS),
    ("https://example.org", "example.org:443", HTTPS),
    ("https://example.org:8443", "example.org:8443", HTTPS),
    ("https://example.org", "example.org", {}),
    ("https://example.org:8443", "example.org:8443", {}),
    ("http://[::1]:8000", "[::1]:8000", {}),
    ("http://127.0.0.1:8000", "127.0.0.1:8000", {}),
    # The origins of ws4py and Starscream, which are no browsers.
    ("ws://example.org", "example.org", {}),
    ("ws://example.org:8000", "example.org:8000", {}),
    ("wss://example.org", "example.org", HTTPS),
    ("wss://example.org:443", "example.org", {}),
]
FOREIGN = [
    ("http://evil.example", "example.org", {}),
    ("http://example.org.evil.example", "example.org", {}),
    ("http://evil.example/example.org", "example.org", {}),
    ("http://example.org@evil.example", "example.org", {}),
    ("http://sub.example.org", "example.org", {}),
    ("ws://evil.example", "example.org", {}),
    ("ws://example.org", "example.org", HTTPS),
    ("ws://example.org", "example.org:8000", {}),
    ("http://example.org:8000", "example.org", {}),
    ("http://example.org", "example.org:8000", {}),
    ("https://example.org", "example.org:8443", {}),
    ("http://example.org", "example.org", HTTPS),
    ("http://example.org:443", "example.org:443", HTTPS),
    ("null", "example.org", {}),
    ("null", "null", {}),
    ("example.org", "example.org", {}),
    ("file://", "", {}),
    ("file://example.org", "example.org", {}),
    ("chrome-extension://example.org", "example.org", {}),
    ("http://example.org:port", "example.org:port", {}),
    ("http://example.org:99999", "example.org:99999", {}),
    ("http://[::1", "[::1", {}),
    ("http://", "", {}),
    ("http://example.org, http://evil.example", "example.org", {}),
]


@pytest.mark.parametrize(("origin", "host", "options"), SAME)
def test_a_page_of_the_host_itself_may_connect(origin, host, options):
    accept({"Origin": origin, "Host": host}, **options)


@pytest.mark.parametrize(("origin", "host", "options"), FOREIGN)
def test_a_foreign_page_may_not_connect(origin, host, options):
    assert refused({"Origin": origin, "Host": host}, **options).status == 403


def test_two_origins_are_refused():
    twice = [("Origin", "http://example.org")]
    assert refused({"Origin": "http://example.org"}, also=twice).status == 403
    allowed = ["http://example.org"]
    assert refused({"Origin": "http://example.org"}, also=twice, allowed_origins=allowed).status == 403


@pytest.mark.parametrize("allowed", [None, [], ["http://other.example"], ["*"]])
def test_a_client_without_origin_is_accepted(allowed):
    accept(allowed_origins=allowed)


def test_an_origin_of_white_space_is_none():
    """A host may pass values unstripped."""
    good = request()
    good.headers = {name.lower(): value for name, value in fields().items()} | {"origin": " \t"}
    handshake.check(good)


def test_a_list_of_origins_replaces_the_host_itself():
    """`test_origins.py` has the lists."""
    accept({"Origin": "https://app.example"}, allowed_origins=["http://a.example", "https://app.example"])
    accept({"Origin": "http://evil.example"}, allowed_origins=["*"])
    for allowed in (["https://app.example"], []):
        assert refused({"Origin": "http://example.org"}, allowed_origins=allowed).status == 403


def test_the_origin_is_looked_at_last():
    """A malformed request of any origin thus gets the reason."""
    assert refused({"Origin": "http://evil.example", "Sec-WebSocket-Key": "abc"}).status == 400
