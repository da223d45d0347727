"""Hostile and odd input that has broken other implementations: answered as it should be, at a bounded cost.

`test_attacks_on_hosts.py` sends such input to each host.
"""

import contextlib
import time

import pytest

from duck.contrib.websockets import OpCode, PerMessageDeflate
from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.sansio import handshake
from duck.contrib.websockets.sansio.client_handshake import ClientHandshake
from duck.contrib.websockets.sansio.connection import Connection
from duck.http.request import HttpRequest

from ..support.frames import RSV1, RSV2, RSV3, frame
from ..support.handshake import fields

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = OpCode


# Reserved bits where an extension uses one


@pytest.mark.usefixtures("on_codec")
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, rsv=RSV2),
        frame(TEXT, rsv=RSV3),
        frame(TEXT, rsv=RSV1 | RSV2),
        frame(PING, rsv=RSV1),
        frame(CLOSE, rsv=RSV1),
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, rsv=RSV1),
        frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07", fin=False, rsv=RSV1) + frame(CONTINUATION, b"\0", rsv=RSV1),
    ],
    ids=["rsv2", "rsv3", "rsv1 and rsv2", "ping", "close", "continuation", "continuation of a compressed message"],
)
def test_reserved_bits_are_refused_with_compression_too(data):
    """picows: they passed once deflate was agreed on. RSV1 is for the first frame of a data message only."""
    server = Connection(extensions=[PerMessageDeflate("permessage-deflate")])
    server.receive(data)
    server.respond()
    assert (server.failed.close_code, str(server.failed)) == (1002, "reserved bits set")


# The handshake


LONG = {
    "extensions": ("Sec-WebSocket-Extensions", 'a; b="' + "\\c" * 32_000),
    "extensions with many parameters": ("Sec-WebSocket-Extensions", "a; b=" * 16_000),
    "subprotocols": ("Sec-WebSocket-Protocol", "a, " * 20_000),
    "connection options": ("Connection", "a, " * 20_000 + "Upgrade"),
    "upgrades": ("Upgrade", "a/1," * 16_000 + "websocket"),
    "key": ("Sec-WebSocket-Key", "A" * 64_000),
    "origin": ("Origin", "http://" + "a." * 32_000),
    "host": ("Host", "a." * 32_000),
}


@contextlib.contextmanager
def linear_time():
    """Fails if the block takes more time of the processor than any linear way does."""
    start = time.thread_time()
    yield
    assert time.thread_time() - start < 0.5


@pytest.mark.parametrize("case", LONG)
def test_long_headers_take_linear_time(case):
    """ws, websocket-extensions: an expression took exponential time (ReDoS)."""
    name, value = LONG[case]
    request = HttpRequest(headers=fields({"Host": "a", "Origin": "http://a", name: value}).items())
    with linear_time(), contextlib.suppress(HandshakeError):
        handshake.agree(request, handshake.check(request), ["chat"])


def test_a_response_in_tiny_pieces_takes_linear_time():
    begun = ClientHandshake("/", "example.org")
    begun.feed(b"HTTP/1.1 200 OK\r\nX: ")
    with linear_time():
        for _ in range(32_000):
            begun.feed(b"xx")
