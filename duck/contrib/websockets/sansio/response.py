"""The response of a server to an opening handshake, without I/O: its head, and the content of a refusal.

httptools parses both. Successful responses of one server differ only in Sec-WebSocket-Accept. `ANSWER` takes the place
of that value before the head is parsed, so that a program which connects often has it parsed once: 35 000 instructions.
"""

import os
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

from ..exceptions import HandshakeRefused, InvalidHandshake
from ..logging import printable
from .handshake import has_token, reason_phrase

if TYPE_CHECKING:
    import httptools

__all__ = [
    "ANSWER",
    "MOST_BODY",
    "SWITCHING_PROTOCOLS",
    "Fields",
    "Response",
    "ResponseHeaders",
    "check_beginning",
    "parse",
]

MOST_BODY = 65536
"""Limit of the kept content of a refusal, in bytes."""

SWITCHING_PROTOCOLS = 101

ANSWER = b2a_base64(os.urandom(20), newline=False).decode()
"""Stands for the right value of Sec-WebSocket-Accept; random, because no server may send it."""

_ANSWER = ANSWER.encode()
_BEGINNING = b"HTTP/1."
_AGREEMENT = b"HTTP/1.1 101 "
_TLS_ALERT = b"\x15\x03"  # its type and the major version (RFC 8446, section 5.1)
_MOST_CACHED = 1024  # bytes of a head whose fields are kept
_MOST_QUOTED = 200  # bytes of a refusal's text that are quoted in the error
_MOST_BEGINNING = 16  # bytes of another protocol that are quoted in the error

Fields = Sequence[tuple[str, str]]


class ResponseHeaders(Mapping[str, str]):
    """The header fields of a response; names are case-insensitive.

    Args:
        fields: (name, value) in the original order.
        answer: The text that `ANSWER` stands for in the values.
    """

    def __init__(self, fields: Fields = (), answer: str = ANSWER) -> None:
        self._fields = fields
        self._answer = answer

    @cached_property  # most programs read no fields
    def fields(self) -> Fields:
        """(name, value) in the original order."""
        return tuple([(name, value.replace(ANSWER, self._answer)) for name, value in self._fields])

    @cached_property
    def _values(self) -> Mapping[str, str]:
        return _joined(self.fields)

    def __getitem__(self, name: str) -> str:
        """Returns the values of a name, joined by commas (RFC 9110, section 5.3)."""
        try:
            return self._values[name.lower()]
        except KeyError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def get_all(self, name: str) -> list[str]:
        """Returns each value of a name, in order, for fields such as `Set-Cookie`, which must not be joined."""
        name = name.lower()
        return [value for other, value in self.fields if other.lower() == name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.fields)!r})"


def _joined(fields: Fields) -> Mapping[str, str]:
    """Returns the values by lower-case names; repeated fields are joined by commas (RFC 9110, section 5.3)."""
    values = {name.lower(): value for name, value in fields}
    if len(values) < len(fields):
        several: dict[str, list[str]] = {}
        for name, value in fields:
            several.setdefault(name.lower(), []).append(value)
        values = {name: ", ".join(each) for name, each in several.items()}
    return values


class Response:
    """A response, parsed by httptools.

    Args:
        head: The head, up to its empty line.

    Attributes:
        status: The status code.
        fields: The header fields, as (name, value), in the original order.
        values: Their values by lower-case names; those of repeated fields are joined.

    Raises:
        InvalidHandshake: The head is not that of an HTTP/1.1 response.
    """

    def __init__(self, head: bytes) -> None:
        new_parser, parser_upgrade, parser_error = _httptools()
        self.fields: list[tuple[str, str]] = []
        self._body = bytearray()
        self._is_head = False
        self._complete = False
        self._parser_error = parser_error
        self._parser = new_parser(self)
        self.status = 0
        check_beginning(head)  # httptools takes RTSP and ICE as well
        try:
            self._parser.feed_data(head)
        except parser_upgrade:
            pass
        except parser_error as error:
            if not self._is_head:  # else a 101 response without Upgrade, which the parser rejects after its head
                raise InvalidHandshake(f"the response is not HTTP/1.1: {error}") from None
        self.status = self._parser.get_status_code()
        self.values = _joined(self.fields)
        if not head.startswith(b"HTTP/1.1 "):
            self._check_version()
        if self.status < 100:
            raise InvalidHandshake(f"the response has the status {self.status:03}", self.status, self.headers)
        if self.status < 200:
            del self._parser  # it refers to the callbacks of this object, which a cycle would keep

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields."""
        return ResponseHeaders(self.fields)

    @cached_property  # one response serves many connections
    def missing(self) -> str | None:
        """The field that a 101 response needs and this one lacks (RFC 6455, section 4.1); None if it has both."""
        for name, token in ("Upgrade", "websocket"), ("Connection", "Upgrade"):
            if not has_token(self.values.get(name.lower(), ""), token.lower()):
                return f"{name}: {token}"
        return None

    def _check_version(self) -> None:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1") or (self.status == SWITCHING_PROTOCOLS and version != "1.1"):
            raise InvalidHandshake(f"the response is HTTP/{version}, not HTTP/1.1", self.status, self.headers)

    def feed(self, data: bytes) -> None:
        """Parses bytes of the content.

        Raises:
            HandshakeRefused: The content is complete, or has reached its limit.
        """
        if data and not self._complete:
            try:
                self._parser.feed_data(data)
            except self._parser_error:  # the error needs only the status
                self._complete = True
        if self._complete or len(self._body) >= MOST_BODY:
            raise self.error()

    def error(self) -> HandshakeRefused:
        """Returns the exception for this response."""
        message = f"the server refused the connection: {self.status} {reason_phrase(self.status)}".rstrip()
        if self.values.get("content-type", "").startswith("text/plain") and self._body:
            message += f": {printable(self._body[:_MOST_QUOTED].decode(errors='replace').strip())}"
        return HandshakeRefused(message, self.status, self.headers, bytes(self._body[:MOST_BODY]))

    # Callbacks of httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self._is_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._complete = True


def check_beginning(head: bytes | bytearray) -> None:
    """Checks that a head, which may be incomplete, begins as one of HTTP/1.1 or HTTP/1.0.

    Raises:
        InvalidHandshake: It does not. The server of another protocol would wait, like the client, for the other end.
    """
    if not _BEGINNING.startswith(head[: len(_BEGINNING)]):
        if head.startswith(_TLS_ALERT):
            raise InvalidHandshake("the server speaks TLS there: write wss://")
        raise InvalidHandshake(f"the response is not HTTP/1.1: it begins with {bytes(head[:_MOST_BEGINNING])!r}")


def parse(head: bytes, answer: str) -> Response:
    """Parses the head of a response; `ANSWER` may stand for `answer` in its values.

    Args:
        head: The head, up to its empty line.
        answer: The right value of Sec-WebSocket-Accept.

    Raises:
        InvalidHandshake: The head is not that of an HTTP/1.1 response.
    """
    if not head.startswith(_AGREEMENT) or len(head) > _MOST_CACHED:
        return Response(head)
    return _agreement(head.replace(answer.encode(), _ANSWER))


_agreement = lru_cache(Response)  # a response with status 101 does not change


@cache  # an import statement takes as long as the rest of the parsing
def _httptools() -> "tuple[type[httptools.HttpResponseParser], type[Exception], type[Exception]]":
    """Returns the parser and its exceptions: for a response that upgrades the connection, and for an invalid one."""
    from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

    return HttpResponseParser, HttpParserUpgrade, HttpParserError
