"""`ClientHandshake`: each response of a server is an agreement, or an error with its reason."""

import gc
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets.compression import PERMESSAGE_DEFLATE, Compression
from duck.contrib.websockets.exceptions import HandshakeFailed, HandshakeRefused, InvalidHandshake
from duck.contrib.websockets.extensions import Extension
from duck.contrib.websockets.sansio import handshake
from duck.contrib.websockets.sansio.client_handshake import MOST_HEAD, ClientHandshake
from duck.contrib.websockets.sansio.negotiation import TOKEN, ClientOffer
from duck.contrib.websockets.sansio.response import MOST_BODY, ResponseHeaders
from duck.http.request import HttpRequest

KEY = bytes(range(16))
ACCEPT = handshake.accept_key("AAECAwQFBgcICQoLDA0ODw==")
SOUND = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


def begin(**options):
    return ClientHandshake("/chat?x=1", "example.org", key=KEY, **options)


def response(fields=SOUND, status="101 Switching Protocols", version="1.1", content=b""):
    lines = [f"HTTP/{version} {status}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def own(name, negotiator=lambda parameters: Extension("x-own"), parameters=()):
    return {name: ClientOffer(parameters, negotiator)}


def test_the_request_has_the_required_and_the_given_fields():
    offers = {PERMESSAGE_DEFLATE: Compression().offer(), **own("x-own", parameters=[("a", "1")])}
    request = begin(subprotocols=["a", "b"], extensions=offers, headers=[("Cookie", "k=v")]).request
    assert request == (
        b"GET /chat?x=1 HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Protocol: a, b\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12, "
        b"x-own; a=1\r\nCookie: k=v\r\n\r\n"
    )
    assert begin(headers=[("host", "other")]).request.lower().count(b"host: ") == 1
    assert b"\r\nUser-Agent: duck\r\n" in begin(user_agent="duck").request
    given = begin(headers=[("user-agent", "own")], user_agent="duck").request
    assert b"user-agent: own\r\n" in given and b"duck" not in given
    assert ClientHandshake("/", "h").request != ClientHandshake("/", "h").request


@pytest.mark.parametrize(
    "options",
    [
        {"headers": [("Upgrade", "h2c")]},
        {"headers": [("X-A", "b\r\nX-C: d")]},
        {"headers": [("X A", "b")]},
        {"headers": [("X-A", "\u20ac")]},
        {"subprotocols": ["a b"]},
        {"subprotocols": ["a", "b", "a"]},
        {"extensions": own("x y")},
    ],
)
def test_fields_that_cannot_be_sent_are_refused(options):
    with pytest.raises(ValueError, match=r"cannot be (sent|offered)|set by the handshake|consists of tokens|twice"):
        begin(**options)


def test_a_server_that_speaks_tls_or_another_protocol_is_named():
    alert = bytes.fromhex("15 03 01 00 02 02 46")
    for data, words in (alert, "speaks TLS there: write wss://"), (b"SSH-2.0-Open", "begins with b'SSH-2.0-Open'"):
        with pytest.raises(InvalidHandshake, match=re.escape(words)):
            begin().feed(data)


@given(st.text(max_size=8), st.text(max_size=8))
def test_only_fields_that_can_be_sent_are_sent(name, value):
    is_sound = re.fullmatch(TOKEN, name) and re.fullmatch(r"[\t -~\x80-\xff]*", value)
    if name.lower() in ("connection", "upgrade") or not is_sound:
        with pytest.raises(ValueError, match=r"cannot be sent|set by the handshake"):
            begin(headers=[(name, value)])
    else:
        line = f"\r\n{name}: {value}\r\n\r\n".encode("latin-1")
        assert begin(headers=[(name, value)]).request.endswith(line)


@pytest.mark.parametrize("target", ["", "chat", "/a b", "/\u00e4", "/\r\n"])
def test_a_target_that_cannot_be_sent_is_refused(target):
    with pytest.raises(ValueError, match="percent-encode it"):
        ClientHandshake(target, "example.org")


@given(st.lists(st.integers(1, 40)), st.booleans())
def test_a_response_may_arrive_in_any_pieces(sizes, hinted):
    shaken = begin(subprotocols=["chat"])
    data = (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if hinted else b"") + response(
        {**SOUND, "Sec-WebSocket-Protocol": "chat"}, content=b"\x81\x02hi"
    )
    has_succeeded = False
    while not has_succeeded:
        size = sizes.pop() if sizes else len(data)
        has_succeeded = shaken.feed(data[:size])
        data = data[size:]
    assert shaken.subprotocol == "chat"
    assert shaken.headers["upgrade"] == "websocket"
    assert shaken.headers["sec-websocket-accept"] == ACCEPT
    assert shaken.rest + data == b"\x81\x02hi"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Upgrade": "h2c"}, "no Upgrade"),
        ({"Upgrade": None}, "no Upgrade"),
        ({"Connection": "keep-alive"}, "no Connection"),
        ({"Connection": None}, "no Connection"),
        ({"Sec-WebSocket-Accept": "x"}, "Sec-WebSocket-Accept"),
        ({"Sec-WebSocket-Accept": ACCEPT.lower()}, "Sec-WebSocket-Accept"),
        ({"Sec-WebSocket-Accept": None}, "Sec-WebSocket-Accept"),
        ({"sec-websocket-accept": ACCEPT}, "Sec-WebSocket-Accept"),  # twice
        ({"Sec-WebSocket-Protocol": "other"}, "subprotocol 'other'"),
        ({"Sec-WebSocket-Protocol": "chat, chat"}, "subprotocol"),
        ({"Sec-WebSocket-Extensions": "permessage-deflate"}, "does not match"),
        ({"Sec-WebSocket-Extensions": "x-unknown"}, "was not offered"),
        ({"Sec-WebSocket-Extensions": "x-own, x-own"}, "was not offered"),
        ({"Sec-WebSocket-Extensions": "x-none; a=1"}, "does not match our offer: x-none; a=1"),
        ({"Sec-WebSocket-Extensions": "x-own, permessage-deflate; server_max_window_bits=8"}, "RSV1"),
        ({"Sec-WebSocket-Extensions": "="}, "breaks its grammar"),
    ],
)
def test_an_invalid_101_is_an_error(fields, words):
    offers = {
        PERMESSAGE_DEFLATE: Compression().offer(),
        **own("x-own"),
        **own("x-none", lambda parameters: None),
    }
    shaken = begin(subprotocols=["chat"], extensions=offers)
    answer = {name: value for name, value in {**SOUND, **fields}.items() if value is not None}
    with pytest.raises(InvalidHandshake, match=re.escape(words)) as caught:
        shaken.feed(response(answer))
    assert caught.value.status == 101
    assert list(caught.value.headers) == list(dict.fromkeys(name.lower() for name in answer))


def test_each_connection_has_its_own_answer():
    """The responses of a server differ in the answer alone, and are parsed once."""
    shaken = [begin(), ClientHandshake("/", "example.org", key=bytes(16))]
    answers = [ACCEPT, handshake.accept_key("AAAAAAAAAAAAAAAAAAAAAA==")]
    for one, answer in zip(shaken, answers, strict=True):
        assert one.feed(response({**SOUND, "Sec-WebSocket-Accept": answer, "X-Answer": answer}))
    for one, answer in zip(shaken, answers, strict=True):
        assert (one.headers["sec-websocket-accept"], one.headers["x-answer"]) == (answer, answer)
    for answer in answers:
        with pytest.raises(InvalidHandshake, match="Sec-WebSocket-Accept is not the answer") as caught:
            ClientHandshake("/", "example.org").feed(response({**SOUND, "Sec-WebSocket-Accept": answer}))
        assert caught.value.headers["sec-websocket-accept"] == answer
    with pytest.raises(InvalidHandshake, match=re.escape(f"the subprotocol '{ACCEPT}', which was not offered")):
        begin().feed(response({**SOUND, "Sec-WebSocket-Protocol": ACCEPT}))


@pytest.mark.parametrize(
    "data",
    [
        response(version="1.0"),
        response().replace(b"\r\nUpgrade", b"\r\n folded\r\nUpgrade"),
        response().replace(b"Upgrade: ", b"Upgrade : "),
        response().replace(b"\r\nUpgrade", b"\nUpgrade"),
        response().replace(b"\r\n", b"\n"),
        response().replace(b"HTTP/1.1", b"HTTP/2"),
        response().replace(b"HTTP/1.1", b"RTSP/1.1"),
        b"\r\n" + response(),
        b"SSH-2.0-OpenSSH_9\r\n",
        b"5",
        b"\x16\x03\x01" * 30000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 20,
        b"HTTP/1.1 000 None\r\n\r\n",
        response({**SOUND, "X-A": "\x01"}),
    ],
)
def test_bytes_that_are_no_response_are_an_error(data):
    begun = begin()
    with pytest.raises(InvalidHandshake):
        begin().feed(data)
    with pytest.raises(InvalidHandshake):
        for byte in data:
            begun.feed(bytes([byte]))


def test_an_offer_that_accepts_by_another_value_is_explained():
    shaken = begin(extensions={"x-name": ClientOffer((), lambda parameters: True)})
    with pytest.raises(TypeError, match="accept of the offer 'x-name' returned True: return an Extension, or None"):
        shaken.feed(response({**SOUND, "Sec-WebSocket-Extensions": "x-name"}))


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "403 Forbidden", "599"])
def test_a_refusal_has_status_headers_and_body(status):
    shaken = begin()
    content = b"" if status[:3] in ("204", "304") else b"no entry"
    with pytest.raises(HandshakeRefused, match=re.escape(status)) as caught:
        shaken.feed(response({"Content-Length": str(len(content)), "Set-Cookie": "a"}, status, content=content + b"no"))
    assert (caught.value.status, caught.value.body) == (int(status[:3]), content)
    assert caught.value.headers["SET-COOKIE"] == "a"


@pytest.mark.parametrize(("kind", "reason"), [("text/plain; charset=utf-8", ": log in\\x0a first"), ("text/html", "")])
def test_the_text_of_a_refusal_is_part_of_its_error(kind, reason):
    content = b"log in\n first\n" + b" " * 1000
    with pytest.raises(HandshakeRefused) as caught:
        begin().feed(response({"Content-Length": str(len(content)), "Content-Type": kind}, "401 X", content=content))
    assert str(caught.value) == f"the server refused the connection: 401 Unauthorized{reason}"


def test_the_body_of_a_refusal_ends_by_its_chunks_the_stream_or_the_limit():
    shaken = begin()
    assert not shaken.feed(response({"Transfer-Encoding": "chunked"}, "404 X") + b"2\r\nno\r\n")
    assert shaken.refusal.body == b"no"
    with pytest.raises(HandshakeRefused, match="404 Not Found"):
        shaken.feed(b"0\r\n\r\n")
    shaken = begin()
    assert not shaken.feed(response({}, "404 X", "1.0", b"no"))
    with pytest.raises(HandshakeRefused) as caught:
        shaken.feed_eof()
    assert caught.value.body == b"no"
    with pytest.raises(HandshakeRefused) as caught:
        begin().feed(response({}, "404 X", content=b"x" * 70000))
    assert len(caught.value.body) == MOST_BODY


@pytest.mark.parametrize(
    ("data", "when"), [(b"", "without a response"), (b"HTTP/1.1 101", "in the middle of its response")]
)
def test_a_stream_that_ends_within_the_response_is_an_error(data, when):
    shaken = begin()
    assert not shaken.feed(data)
    assert shaken.refusal is None
    with pytest.raises(InvalidHandshake, match=f"ended the connection {when}"):
        shaken.feed_eof()


@given(st.binary(max_size=400), st.lists(st.sampled_from([b"\r\n", *response().splitlines(), b"X: ", b"0"])))
def test_any_bytes_are_agreed_to_or_fail(data, lines):
    shaken = begin()
    try:
        shaken.feed(b"\r\n".join(lines) + data)
        shaken.feed_eof()
    except HandshakeFailed as error:
        assert str(error).isprintable() or error.status == 0


@given(st.lists(st.tuples(st.sampled_from(["A", "a", "b", "B-c"]), st.text(max_size=3))))
def test_headers_join_the_values_of_a_name(fields):
    headers = ResponseHeaders(fields)
    assert headers.fields == tuple(fields)
    assert list(headers) == list(dict.fromkeys(name.lower() for name, _ in fields))
    for name in ("a", "A", "b", "b-C", "c"):
        values = [value for other, value in fields if other.lower() == name.lower()]
        assert headers.get_all(name) == values
        assert headers.get(name) == (", ".join(values) if values else None)


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 100])
@pytest.mark.parametrize("beyond", range(-1, 6))
def test_a_head_may_have_the_size_of_the_limit_and_no_more(cut, beyond):
    padding = "x" * (MOST_HEAD + beyond - len(response({**SOUND, "X": ""})))
    head = response({**SOUND, "X": padding})
    assert len(head) == MOST_HEAD + beyond
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    for before in (b"", hint):
        shaken = begin()
        data = before + head + b"rest"
        at = len(before + head) - cut
        if beyond > 0:
            with pytest.raises(InvalidHandshake, match="over 65536 bytes"):
                shaken.feed(data[:at]) or shaken.feed(data[at:])
        else:
            assert shaken.feed(data[:at]) or shaken.feed(data[at:])


def test_an_agreement_leaves_no_cycle():
    shaken = begin()
    while gc.collect():  # the finalizers of earlier tests may leave more
        pass
    gc.disable()
    try:
        assert shaken.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n" + response())
        del shaken
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_headers_have_case_insensitive_names():
    headers = ResponseHeaders([("Set-Cookie", "a"), ("X", "b"), ("set-cookie", "c")])
    assert dict(headers) == {"set-cookie": "a, c", "x": "b"}
    assert headers.get_all("SET-COOKIE") == ["a", "c"]
    assert "x" in headers and "y" not in headers and len(headers) == 2
    assert "Set-Cookie" in repr(headers)


# permessage-deflate (RFC 7692, section 7.1)

WINDOWS = st.integers(8, 15)
SETTINGS = st.builds(
    Compression,
    server_max_window_bits=WINDOWS,
    client_max_window_bits=WINDOWS,
    server_context_takeover=st.booleans(),
    client_context_takeover=st.booleans(),
)


@given(SETTINGS, SETTINGS)
def test_both_ends_reach_the_same_agreement(client, server):
    shaken = begin(extensions={PERMESSAGE_DEFLATE: client.offer()})
    _, *lines = shaken.request.decode().split("\r\n")
    fields = [tuple(line.split(": ", 1)) for line in lines if line]
    request = HttpRequest("GET", "/", fields)
    extensions = {PERMESSAGE_DEFLATE: server.accept}
    acceptance = handshake.agree(request, handshake.check(request), extensions=extensions)
    response = handshake.switching_protocols(acceptance)
    assert shaken.feed(response)
    (ours,), (theirs,) = shaken.extensions, acceptance.extensions
    for message in (b"duck " * 100, b"duck " * 100, b"x"):
        assert theirs.decompress(ours.compress(message)) == message
        assert ours.decompress(theirs.compress(message)) == message


@pytest.mark.parametrize(
    ("settings", "answer", "fits"),
    [
        ({}, "server_max_window_bits=12", True),
        ({}, "server_max_window_bits=8; client_max_window_bits=9; client_no_context_takeover", True),
        ({}, "server_max_window_bits=12; server_no_context_takeover", True),
        ({}, "", False),  # the server's window would be 15
        ({}, "server_max_window_bits=13", False),
        ({}, "server_max_window_bits=12; client_max_window_bits=13", True),
        ({}, "server_max_window_bits=12; client_max_window_bits", False),
        ({}, "server_max_window_bits=12; client_max_window_bits=7", False),
        ({}, "server_max_window_bits=12; server_max_window_bits=12", False),
        ({}, "server_max_window_bits=12; server_no_context_takeover=1", False),
        ({}, "server_max_window_bits=12; other", False),
        ({"server_max_window_bits": 15}, "", True),
        ({"server_context_takeover": False}, "server_max_window_bits=12", False),
        ({"client_context_takeover": False}, "server_max_window_bits=12", True),
    ],
)
def test_an_answer_must_match_the_offer_of_compression(settings, answer, fits):
    shaken = begin(extensions={PERMESSAGE_DEFLATE: Compression(**settings).offer()})
    agreed = response({**SOUND, "Sec-WebSocket-Extensions": f"permessage-deflate{'; ' if answer else ''}{answer}"})
    if fits:
        assert shaken.feed(agreed) and len(shaken.extensions) == 1
    else:
        with pytest.raises(InvalidHandshake, match="does not match"):
            shaken.feed(agreed)
