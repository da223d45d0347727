"""`RequestReader`: however the bytes are cut, the same requests, and the same bytes left for a WebSocket."""

from collections.abc import Iterator
from typing import Any

from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.sansio import handshake
from duck.http.request import HttpRequest
from duck.server.http.head import Refusal, RequestHead, RequestReader
from duck.server.limits import Limits

from .choices import Choices, cut

__all__ = ["check", "seeds"]

# The reader checks its limits every few KiB, so the place of a refusal depends on the cuts. Requests are compared where
# no limit is exceeded; the limits are tried separately.
FAR = Limits(head_size=2**20, header_count=2**20, body_size=2**20)
NEAR = Limits(head_size=150, header_count=5, body_size=20)
STATUSES = {400, 431, 505}


def check(data: bytes) -> None:
    """Reads requests in four ways."""
    choices = Choices(data)
    seed = 2 + choices.number()
    stream = choices.rest()
    expected = _read(stream, 0, FAR)
    for way in (1, seed):
        outcome = _read(stream, way, FAR)
        assert outcome == expected, (way, expected, outcome)
    requests, *_ = _read(stream, seed, NEAR)
    for request in requests:
        assert isinstance(request, Refusal) or len(request.headers) <= NEAR.header_count


def _read(stream: bytes, way: int, limits: Limits) -> tuple[Any, ...]:
    """The requests; whether they end with a WebSocket's; the bytes behind that, all of them; where reading stopped."""
    reader = RequestReader(limits)
    requests: list[RequestHead | Refusal] = []
    taken = 0
    for piece in cut(stream, way):
        taken += len(piece)
        reader.feed(memoryview(piece))
        while (request := reader.next_request()) is not None:
            requests.append(request)
            if isinstance(request, Refusal):
                assert request.status in STATUSES
                assert reader.stopped
            elif _is_websocket(request):
                return requests, True, reader.take_rest() + stream[taken:]
    return requests, False, reader.stopped, reader.in_request


def _is_websocket(head: RequestHead) -> bool:
    try:
        request = HttpRequest(head.method, head.target, head.headers, http_version=head.http_version)
    except ValueError:
        return False
    assert isinstance(request.query, dict)
    try:
        handshake.check(request, allowed_origins=("*",))
    except HandshakeError:
        return False
    return True


def seeds() -> Iterator[bytes]:
    """Requests of every kind, and bytes that are no request."""
    upgrade = (
        b"GET /room?a=b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for stream in (
        upgrade + b"\x81\x85mask" + bytes(5),
        get + upgrade + b"early",
        get * 3,
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + get,
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n" + get,
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + get,
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nxyz",
        b"GET http://a:80/b?c#d HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0b\x0c\x1c\x85\r\n folded\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: b\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhello" + get,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        yield b"\x01" + stream
