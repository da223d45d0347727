"""The request reader without a socket: heads, refusals, limits, and where it stops."""

from types import SimpleNamespace

import httptools
import pytest

import duck.server.http.head
from duck.server.http.head import Refusal, RequestHead, RequestReader
from duck.server.limits import Limits

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def post(*headers, body=b""):
    return b"\r\n".join([b"POST / HTTP/1.1", b"Host: test", *headers, b"", body])


def read(data, limits=None, step=None):
    """The requests and the reader after some bytes, fed in pieces of `step`."""
    reader = RequestReader(limits or Limits())
    found = []
    for start in range(0, len(data), step or len(data) or 1):
        reader.feed(memoryview(data)[start : start + (step or len(data))])
        while (item := reader.next_request()) is not None:
            found.append(item)
    return found, reader


def read_one(data, **kwargs):
    found, _ = read(data, **kwargs)
    assert len(found) == 1
    return found[0]


def head_of(size):
    """A request whose head is `size` bytes long."""
    start, end = b"GET / HTTP/1.1\r\nHost: test\r\nX: ", b"\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("step", [None, 1, 3, 7])
def test_a_head_is_parsed_in_any_pieces(step):
    data = b"GET /a%20b?c=d HTTP/1.1\r\nHost: test:80\r\nX:\r\nY: 1 \t\r\nCookie: a\r\ncookie: b\r\n\r\n"
    request = read_one(data, step=step)
    assert (request.method, request.target, request.http_version) == ("GET", "/a%20b?c=d", "1.1")
    assert request.headers.items() == [
        ("host", "test:80"),
        ("x", ""),
        ("y", "1"),
        ("cookie", "a"),
        ("cookie", "b"),
    ]
    assert request.keep_alive


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (GET, True),
        (b"\r\n\r\n" + GET, True),
        (b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nHost: test\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a_b:\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]:80\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", True),
    ],
)
def test_only_http_1_1_without_close_is_kept_alive(data, keep_alive):
    assert read_one(data).keep_alive is keep_alive


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # the begin of a TLS handshake
        (b"NONSENSE / HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"GET / HTTP/1.2\r\nHost: test\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: test\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: test\n\n", 400),
        (b"GET /\xe9 HTTP/1.1\r\nHost: test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: test\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: test\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (post(b"Content-Length: 1", b"Content-Length: 2"), 400),
        (post(b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        (post(b"Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
        (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + GET), 501),
    ],
)
def test_a_malformed_request_is_refused_with_its_status(data, status, step):
    found, reader = read(data, step=step)
    assert found[-1] == Refusal(status)
    assert reader.stopped
    assert not reader.in_request


@pytest.mark.parametrize("code", [*range(9), *range(0x0A, 0x20), 0x7F])
def test_control_characters_in_a_field_are_refused(code):
    data = b"GET / HTTP/1.1\r\nHost: test\r\nX: a" + bytes([code]) + b"b\r\n\r\n"
    assert read(data)[0] == [Refusal(400)]


def test_other_characters_pass():
    others = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
    request = read_one(b"GET / HTTP/1.1\r\nHost: test\r\nX: a" + others + b"b\r\n\r\n")
    assert request.headers["x"] == "a" + others.decode("latin-1") + "b"


@pytest.mark.parametrize("step", [None, 1, 100])
def test_a_head_may_have_the_size_of_the_limit_and_no_more(step):
    limits = Limits(head_size=2000)
    assert isinstance(read_one(head_of(2000), limits=limits, step=step), RequestHead)
    assert read(head_of(2001), limits=limits, step=step)[0] == [Refusal(431)]


@pytest.mark.parametrize("step", [1, 1000, 4096])
@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
def test_a_part_that_does_not_end_is_cut_off(start, step):
    limits = Limits(head_size=10_000)
    reader = RequestReader(limits)
    reader.feed(memoryview(start))
    fed = 0
    while not reader.stopped:
        reader.feed(memoryview(b"a" * step))
        fed += step
        assert fed <= limits.head_size + 2 * 4096
    assert reader.next_request() == Refusal(431)


def test_a_head_may_have_as_many_fields_as_the_limit():
    def request(count):
        return b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X: a\r\n" * (count - 1) + b"\r\n"

    assert isinstance(read_one(request(100)), RequestHead)
    assert read(request(101))[0] == [Refusal(431)]
    assert read(request(10_000))[0] == [Refusal(431)]


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize(
    "data",
    [
        post(b"Content-Length: 5", body=b"GET /"),
        post(b"Transfer-Encoding: chunked", body=b"5;x=y\r\nGET /\r\n0\r\nTrailer: a\r\n\r\n"),
    ],
)
def test_the_body_of_a_post_is_kept(data, step):
    found, reader = read(data + GET, step=step)
    assert [(head.method, head.body) for head in found] == [("POST", b"GET /"), ("GET", b"")]
    assert all(head.keep_alive for head in found)
    assert found[0].headers.get("trailer") is None
    assert not reader.in_request


@pytest.mark.parametrize("step", [None, 1])
def test_the_limit_of_a_body_is_exact_and_told_before_the_body(step):
    limits = Limits(body_size=5)
    form = post(b"Content-Length: 5", body=b"a=123")
    assert read_one(form, limits=limits, step=step).body == b"a=123"
    assert read_one(post(b"Content-Length: 6"), limits=limits, step=step).body is None
    chunks = post(b"Transfer-Encoding: chunked", body=b"3\r\na=1\r\n3\r\n234\r\n")
    assert read_one(chunks, limits=limits, step=step).body is None
    assert read_one(post(b"Content-Length: " + b"9" * 18), limits=limits, step=step).body is None


def test_a_body_within_the_limit_keeps_the_connection():
    size = Limits().body_size
    data = post(b"Content-Length: %d" % size, body=b"x" * size)
    assert read_one(data).keep_alive
    assert read_one(data).body == b"x" * size


def test_bodies_of_other_requests_are_discarded():
    found, _ = read(b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nquack" + GET)
    assert [(head.method, head.body) for head in found] == [("PUT", b""), ("GET", b"")]


@pytest.mark.parametrize(
    "data",
    [
        post(b"Content-Length: 1000000", body=b"GET / HTTP/1.1\r\n" * 60_000),
        post(b"Transfer-Encoding: chunked", body=b"5000;" + b"x" * 100_000),
        post(b"Transfer-Encoding: chunked", body=b"0\r\nX: " + b"x" * 100_000),
    ],
    ids=["body", "chunk extension", "trailer"],
)
@pytest.mark.parametrize("step", [None, 1000])
def test_a_long_body_ends_the_connection(data, step):
    found, reader = read(data, step=step)
    assert [(head.method, head.keep_alive, head.body) for head in found] == [("POST", False, None)]
    assert reader.stopped


def test_a_client_that_asks_before_it_sends_is_answered_at_once():
    found, reader = read(post(b"Expect: 100-continue", b"Content-Length: 5"))
    assert [(head.method, head.keep_alive, head.body) for head in found] == [("POST", False, None)]
    assert reader.stopped


def test_pipelined_requests_come_in_order():
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in range(1000))
    found, _ = read(data)
    assert [head.target for head in found] == [f"/{number}" for number in range(1000)]


def test_most_of_a_pipeline_waits_unparsed():
    reader = RequestReader(Limits())
    reader.feed(memoryview(GET * 1000))
    assert reader.next_request() is not None
    assert len(reader.take_rest()) > len(GET) * 800
    assert reader.stopped


def test_nothing_may_follow_connection_close():
    close = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    found, reader = read(close + GET)
    assert isinstance(found[0], RequestHead)
    assert found[1:] == [Refusal(400)]
    assert reader.stopped


@pytest.mark.parametrize("step", [None, 1, 50])
def test_bytes_behind_an_upgrade_are_kept(step):
    early = bytes(range(256)) * 300
    reader = RequestReader(Limits())
    data = GET + UPGRADE + early
    kept = []
    for start in range(0, len(data), step or len(data)):
        reader.feed(memoryview(data)[start : start + (step or len(data))])
        if not kept:
            while (head := reader.next_request()) is not None:
                if "upgrade" in head.headers:
                    kept.append(reader.take_rest())
                    break
        else:
            kept.append(reader.take_rest())
    assert b"".join(kept) == early


def test_behind_an_upgrade_that_is_not_wanted_comes_the_next_request():
    found, reader = read(UPGRADE + GET + UPGRADE + GET)
    assert ["upgrade" in head.headers for head in found] == [True, False, True, False]
    assert all(head.keep_alive for head in found)
    assert not reader.stopped


@pytest.mark.parametrize(
    "data",
    [
        post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 100", body=GET),
        post(b"Connection: upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked", body=GET),
        b"CONNECT test:1 HTTP/1.1\r\nHost: test:1\r\n\r\n" + GET,
        UPGRADE.replace(b"Upgrade\r\n", b"Upgrade, close\r\n") + GET,
    ],
)
def test_bytes_that_may_be_a_body_are_never_read_as_a_request(data):
    found, reader = read(data)
    assert len(found) == 1
    assert not found[0].keep_alive
    assert reader.stopped


def test_in_request_is_true_from_the_first_byte_to_the_last():
    reader = RequestReader(Limits())
    assert not reader.in_request
    for byte in post(b"Content-Length: 1"):
        reader.feed(memoryview(bytes([byte])))
        assert reader.in_request
    reader.feed(memoryview(b"x"))
    assert not reader.in_request


def test_each_byte_of_a_dripped_head_is_parsed_once(monkeypatch):
    parsed = []

    class Counting:
        def __init__(self, reader):
            self.parser = httptools.HttpRequestParser(reader)

        def feed_data(self, data):
            parsed.append(len(data))
            self.parser.feed_data(data)

        def __getattr__(self, name):
            return getattr(self.parser, name)

    monkeypatch.setattr(
        duck.server.http.head, "httptools", SimpleNamespace(**vars(httptools) | {"HttpRequestParser": Counting})
    )
    data = head_of(20_000)
    assert isinstance(read_one(data, step=1), RequestHead)
    assert sum(parsed) == len(data)
