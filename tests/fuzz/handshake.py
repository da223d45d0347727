"""`handshake.check` and `agree`: any request is agreed to or refused, and the answer is a well-formed head."""

import re
from collections.abc import Iterator

from duck.contrib.websockets.compression import PERMESSAGE_DEFLATE, Compression
from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.sansio import handshake
from duck.http.request import HttpRequest

from .choices import Choices

__all__ = ["check", "seeds"]

NAMES = (
    b"Host",
    b"Upgrade",
    b"Connection",
    b"Sec-WebSocket-Key",
    b"Sec-WebSocket-Version",
    b"Sec-WebSocket-Protocol",
    b"Sec-WebSocket-Extensions",
    b"Origin",
    b"X-Other",
)
VALUES = (
    b"example.org",
    b"websocket",
    b"Upgrade",
    b"dGhlIHNhbXBsZSBub25jZQ==",
    b"13",
    b"chat, superchat",
    b"permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate",
    b"https://example.org",
    b"keep-alive, Upgrade",
)
STATUSES = {400, 403, 405, 426}
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*")


def check(data: bytes) -> None:
    """Makes a request and looks at the answer."""
    choices = Choices(data)
    method = choices.pick(("GET", "POST", "HEAD", "OPTIONS"))
    version = choices.pick(("1.1", "1.0", "2.0"))
    secure = choices.pick((False, True))
    subprotocols = choices.pick(((), ("chat",), ("superchat", "chat", "")))
    origins = choices.pick((None, ("https://example.org",), ("*",), ()))
    extensions = choices.pick(({}, {PERMESSAGE_DEFLATE: Compression().accept}))
    fields = []
    if choices.pick((True, False)):
        fields = list(zip(NAMES[:6], VALUES[:6], strict=True))
    while choices:
        own = choices.take(choices.number())
        fields.append((choices.pick(NAMES), choices.pick((own, *VALUES))))
    try:
        request = HttpRequest(method, "/", fields, http_version=version, secure=secure)
    except ValueError:
        return  # a control character, which is answered with 400 before
    try:
        acceptance = handshake.agree(request, handshake.check(request, origins), subprotocols, extensions)
    except HandshakeError as error:
        assert error.status in STATUSES
        _check_head(handshake.refusal(error), error.status)
        return
    lines = _check_head(handshake.switching_protocols(acceptance), 101)
    assert method == "GET" and version == "1.1"
    assert acceptance.subprotocol is None or acceptance.subprotocol in subprotocols
    assert [extension.name for extension in acceptance.extensions] in ([], list(extensions))
    assert len(lines) == 3 + (acceptance.subprotocol is not None) + len(acceptance.extensions)


def _check_head(response: bytes, status: int) -> list[bytes]:
    head, end, _ = response.partition(b"\r\n\r\n")
    assert end
    line, *lines = head.split(b"\r\n")
    assert line.startswith(b"HTTP/1.1 %d " % status)
    for line in lines:
        assert _LINE.fullmatch(line), line
    return lines


def seeds() -> Iterator[bytes]:
    """A good request, and one spoilt by each field in turn."""
    yield bytes(7)
    start = bytes([0, 0, 0, 2, 0, 1])
    yield start + b"\0"
    for name in range(len(NAMES)):
        for value in (b"", b",", b"\xff\xe9", b"http://[::1", b"https://example.org:99999", b"null", b"a\r\nb: c"):
            yield start + bytes([0, len(value)]) + value + bytes([name, 0])
        for value in range(len(VALUES)):
            yield start + bytes([1, 0, name, value + 1])
    for offer in (
        b"permessage-deflate; client_max_window_bits=15; server_no_context_takeover, permessage-deflate",
        b'permessage-deflate; server_max_window_bits="1\\0"',
        b"permessage-deflate; server_max_window_bits=8; server_max_window_bits=9",
        b"permessage-deflate; client_max_window_bits=0",
        b"x; a=b; c, , permessage-deflate; client_no_context_takeover",
        b'a; b="' + rb"\c" * 20,
    ):
        yield start + bytes([0, len(offer)]) + offer + bytes([6, 0])
