"""A reader of HTTP/1 requests without I/O: bytes in, heads and refusals out. httptools parses the grammar.

The reader parses in steps, and pauses after the first step that completes a request. Of a thousand requests sent at
once it parses a few, and keeps the rest as bytes. It stops after a refusal, and after a request that ends the
connection; then `stopped` is true.
"""

from dataclasses import dataclass, field

import httptools

from duck.contrib.websockets.sansio.host import check_host, with_host_of
from duck.http.headers import Headers

from ..limits import Limits
from .proxy_protocol import SIGNATURES

__all__ = ["Refusal", "RequestHead", "RequestReader"]

# Bytes parsed between two checks of the limits: the most by which an endless head can exceed its limit.
_STEP = 4096

_AROUND = len("GET  HTTP/1.1\r\n\r\n")  # bytes of a head without its target and its fields

# One str for all requests, because each request is kept as long as its connection.
_VERSIONS = {version: version for version in ("1.0", "1.1")}
_METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST")}

_PROXY = "a header of the PROXY protocol: serve with proxy_protocol, and name the proxy in trusted_proxies"


@dataclass(slots=True)
class RequestHead:
    """A complete request, or one whose rest will not be read.

    Attributes:
        keep_alive: Whether another request may follow on the connection.
        body: The content of a POST request. None if it was not read, because it is too long or because the client
            waits for "100 Continue".
    """

    method: str
    target: str
    http_version: str
    headers: Headers
    keep_alive: bool
    body: bytes | None = b""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of received bytes that are not an acceptable request.

    Attributes:
        status: The status of the response.
        reason: The reason, for the log.
        head_only: Whether the response has no body, because the request is a HEAD.
    """

    status: int
    reason: str = field(default="", compare=False)
    head_only: bool = field(default=False, compare=False)


class _Stop(Exception):
    """Raised in a callback to stop the parser, because httptools has no other way."""


class RequestReader:
    """Reads the requests of one connection. Only POST requests keep their body.

    Attributes:
        stopped: Whether no further request will be read.
    """

    __slots__ = (
        "_body",
        "_fields",
        "_head",
        "_in_head",
        "_limits",
        "_parser",
        "_ready",
        "_rest",
        "_room",
        "_target",
        "_turns",
        "stopped",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ready: list[RequestHead | Refusal] = []
        self._rest = b""
        self._in_head = False
        self._head: RequestHead | None = None  # the head whose body is being read
        self._body: bytearray | None = None
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._room = 0
        self._turns = 0
        self.stopped = False
        # Created on demand. It holds bound methods of this object: a cycle, which stop() breaks.
        self._parser: httptools.HttpRequestParser | None = None

    @property
    def in_request(self) -> bool:
        """Whether a request is incomplete."""
        return self._in_head or self._head is not None

    @property
    def is_head(self) -> bool:
        """Whether the current request is a HEAD."""
        return self._parser is not None and self._parser.get_method() == b"HEAD"

    def feed(self, data: memoryview) -> None:
        """Parses bytes of the connection; unparsed ones are copied."""
        if self._ready or self.stopped:
            self._rest += data
        else:
            self._parse(data)

    def next_request(self) -> RequestHead | Refusal | None:
        """Returns the next request in order of arrival; None while it is incomplete."""
        if self._rest and not self._ready and not self.stopped:
            self._parse(memoryview(self._rest))
        return self._ready.pop(0) if self._ready else None

    def take_rest(self) -> bytes:
        """Stops, and returns the unparsed bytes."""
        rest, self._rest = self._rest, b""
        self.stop()
        return rest

    def stop(self) -> None:
        """Reads no further request."""
        self.stopped = True
        self._parser = None

    def _parse(self, data: memoryview) -> None:
        position = 0
        while position < len(data) and not self._ready and not self.stopped:
            step = data[position : position + _STEP]
            turns = self._turns
            if self._parser is None:
                self._parser = httptools.HttpRequestParser(self)
            try:
                self._parser.feed_data(step)
            except httptools.HttpParserUpgrade as upgrade:
                # The next request needs a new parser, because this one treats further bytes as another protocol.
                position += upgrade.args[0]
                self._parser = None
                self.stopped = not self._ready[-1].keep_alive  # type: ignore[union-attr]
                break
            except httptools.HttpParserCallbackError:
                self.stop()
            except httptools.HttpParserError as error:
                self._refuse(400, _PROXY if bytes(data[:12]).startswith(SIGNATURES) else f"not HTTP/1.1: {error}")
            else:
                if turns == self._turns:
                    self._take_room(len(step))
            position += len(step)
        self._rest = bytes(data[position:]) if position < len(data) else b""

    def _take_room(self, size: int) -> None:
        """Counts a step that stayed inside one head or one body, and refuses one that is too long.

        This bounds the data that httptools keeps to itself: an endless field, chunk extensions.
        """
        self._room -= size
        if self._room >= 0 and len(self._fields) <= self._limits.header_count:
            return
        if self._in_head:
            self._refuse_head()
        elif self._head is not None:
            self._cut_short(self._head)

    def _refuse(self, status: int, reason: str) -> None:
        self._in_head = False
        self._head = self._body = None
        self._ready.append(Refusal(status, reason, self.is_head))
        self.stop()

    def _refuse_head(self) -> None:
        limits = self._limits
        self._refuse(
            431,
            f"the head has more than {limits.head_size} bytes or {limits.header_count} fields: "
            "see Limits.head_size and header_count",
        )

    def _cut_short(self, head: RequestHead) -> None:
        """Completes a request without its body; nothing after it can be parsed."""
        self._head = self._body = None
        head.keep_alive, head.body = False, None
        self._ready.append(head)
        self.stop()

    # Callbacks of httptools, in this order.

    def on_message_begin(self) -> None:
        self._turns += 1
        self._room = self._limits.head_size
        self._in_head = True
        self._target = b""
        self._fields = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        self._turns += 1
        self._room = self._limits.body_size
        self._in_head = False
        version = _VERSIONS.get(parser.get_http_version())
        if version is None:
            self._refuse(505, f"the client speaks HTTP/{parser.get_http_version()}")
            raise _Stop
        fields, self._fields = self._fields, []
        try:
            headers = Headers(fields)
            check_host(headers.get("host"), required=version == "1.1")
            if not self._target.startswith(b"/") and b"://" in self._target:
                headers = Headers(with_host_of(self._target, fields))
                check_host(headers.get("host"), required=True)
        except ValueError as error:
            self._refuse(400, str(error))
            raise _Stop from None
        size = _AROUND + len(self._target) + headers.size
        if len(fields) > self._limits.header_count or size > self._limits.head_size:
            self._refuse_head()
            raise _Stop
        upgrade = parser.should_upgrade()
        keep_alive = version == "1.1" and parser.should_keep_alive()
        name = parser.get_method()
        method = _METHODS.get(name) or name.decode("ascii")
        head = RequestHead(method, self._target.decode("latin-1"), version, headers, keep_alive)
        by_name = headers.by_name
        if upgrade and (method == "CONNECT" or "content-length" in by_name or "transfer-encoding" in by_name):
            # httptools does not skip the body of such a request, and would parse it as the next request.
            head.keep_alive, head.body = False, None
        if not upgrade and "expect" in headers:
            # The client waits for a response before it sends the body; the answer is that response.
            self._cut_short(head)
            raise _Stop
        self._head = head
        self._body = bytearray() if method == "POST" else None
        if self._body is not None and not upgrade:
            self._check_framing(headers)

    def _check_framing(self, headers: Headers) -> None:
        """Checks the announced form and length of a body."""
        if headers.get("transfer-encoding", "chunked").strip(" \t").lower() != "chunked":
            self._refuse(501, "the body has a transfer coding other than chunked (RFC 9112, section 6.1)")
            raise _Stop
        self._check_body(int(headers.get("content-length", "0")))

    def on_body(self, part: bytes) -> None:
        if self._body is not None:
            self._body += part
            self._check_body(len(self._body))

    def _check_body(self, size: int) -> None:
        """Completes a POST whose body exceeds the limit without the body; a declared length is checked in advance."""
        if size > self._limits.body_size and self._head is not None:
            self._cut_short(self._head)
            raise _Stop

    def on_message_complete(self) -> None:
        self._turns += 1
        if self._head is not None:
            if self._body:
                self._head.body = bytes(self._body)
            self._ready.append(self._head)
            self._head = self._body = None
