"""The opening handshake of a client without I/O (RFC 6455, section 4.1): the request out, the 101 or a refusal in.

    handshake = ClientHandshake("/chat", "example.org", subprotocols=["chat"])
    send(handshake.request)
    while (agreement := handshake.feed(receive())) is None:
        pass
    handshake.rest    the first bytes of the connection

A response is read in three stages. The head is collected up to its empty line, at most MOST_HEAD bytes, and httptools
parses it as a whole. Interim responses (100, 103) are skipped. The content of a refusal is collected, at most MOST_BODY
bytes, and becomes part of the exception. `client.dialing` does the I/O.
"""

import os
import re
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ..exceptions import HandshakeRefused, InvalidHandshake
from ..extensions import Extension
from ..logging import printable
from .handshake import VERSION, accept_key, has_token, reason_phrase
from .negotiation import ClientOffer, Offer, format_extension, is_token, parse_offers

if TYPE_CHECKING:
    import httptools

__all__ = ["Agreement", "ClientHandshake", "ResponseHeaders"]

MOST_HEAD = 65536
"""Limit of a response's head, in bytes."""

MOST_BODY = 65536
"""Limit of the kept content of a refusal, in bytes."""

_MOST_QUOTED = 200  # bytes of a refusal's text that are quoted in the error
_SWITCHING_PROTOCOLS = 101
_MOST_INTERIM = 8  # 1xx responses before the final one
_END = b"\r\n\r\n"
_UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
_VERSION = f"\r\nSec-WebSocket-Version: {VERSION}\r\n"
_TARGET = re.compile(r"/[!-~]*")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)

Fields = Sequence[tuple[str, str]]


class ResponseHeaders(Mapping[str, str]):
    """The header fields of a response; names are case-insensitive.

    Args:
        fields: (name, value) in the original order.
    """

    def __init__(self, fields: Fields = ()) -> None:
        self.fields = fields = (*fields,)
        self._values = {name.lower(): value for name, value in fields}  # joined if a name is repeated
        if len(self._values) < len(fields):
            values: dict[str, list[str]] = {}
            for name, value in fields:
                values.setdefault(name.lower(), []).append(value)
            self._values = {name: ", ".join(several) for name, several in values.items()}

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


class Agreement(NamedTuple):
    """The outcome of a handshake.

    Attributes:
        subprotocol: The server's choice, or None.
        extensions: The agreed extensions, in the order in which they encode.
        headers: The header fields of the 101 response.
    """

    subprotocol: str | None
    extensions: Sequence[Extension]
    headers: ResponseHeaders


class ClientHandshake:
    """One request and its response.

    Args:
        target: Path and query, percent-encoded.
        host: The value of Host.
        subprotocols: The client's subprotocols, the preferred one first.
        extensions: The client's extensions by name, the preferred one first.
        headers: Additional fields of the request.
        key: 16 bytes; random by default.

    Attributes:
        request: The bytes to send.
        rest: The bytes behind the response; empty before the agreement.

    Raises:
        ValueError: The target or a field cannot be sent, or a field belongs to the handshake.
    """

    def __init__(
        self,
        target: str,
        host: str,
        *,
        subprotocols: Sequence[str] = (),
        extensions: Mapping[str, ClientOffer] = {},
        headers: Fields = (),
        key: bytes | None = None,
    ) -> None:
        self._key = b2a_base64(os.urandom(16) if key is None else key, newline=False).decode()
        self._subprotocols = subprotocols
        self._offers = extensions
        self.request = self._request(target, host, headers)
        self.rest = b""
        self._received = bytearray()
        self._interim = 0
        self._refusal: _Response | None = None

    def _request(self, target: str, host: str, headers: Fields) -> bytes:
        names = {name.lower(): name for name, _ in headers}
        if not _RESERVED.isdisjoint(names):
            name = names[min(_RESERVED.intersection(names))]
            raise ValueError(f"{name} is set by the handshake: remove it from the headers")
        request = _beginning(target, None if "host" in names else host) + self._key + _VERSION
        if self._subprotocols:
            for name in self._subprotocols:
                if not is_token(name):
                    raise ValueError(f"{name!r} cannot be offered: a subprotocol is a token, such as 'chat.v2'")
            request += f"Sec-WebSocket-Protocol: {', '.join(self._subprotocols)}\r\n"
        if self._offers:
            offers = [format_extension(name, offer.parameters) for name, offer in self._offers.items()]
            request += f"Sec-WebSocket-Extensions: {', '.join(offers)}\r\n"
        for name, value in headers:
            request += _line(name, value)
        return f"{request}\r\n".encode("latin-1")

    def feed(self, data: bytes) -> Agreement | None:
        """Parses bytes of the response; returns the agreement, or None while the response is incomplete.

        Raises:
            HandshakeRefused: The status of the response is not 101.
            InvalidHandshake: The response breaks the rules.
        """
        if self._refusal is not None:
            self._refusal.feed(data)
            return None
        if self._received:  # the head arrives in several reads
            searched = max(len(self._received) - len(_END) + 1, 0)
            self._received += data
            if self._received.find(_END, searched, MOST_HEAD) < 0:
                self._check_length(self._received)
                return None
            data = bytes(self._received)
            self._received.clear()
        head, end, data = data.partition(_END)
        while end and len(head) + len(end) <= MOST_HEAD:
            response = _Response(head + end)
            if response.status == _SWITCHING_PROTOCOLS:
                self.rest = data
                return self._agree(response)
            if response.status >= 200:
                self._refusal = response
                response.feed(data)
                return None
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise InvalidHandshake("too many interim responses", response.status, response.headers)
            head, end, data = data.partition(_END)
        unread = head + end + data
        self._check_length(unread)
        self._received += unread
        return None

    @staticmethod
    def _check_length(head: bytes | bytearray) -> None:
        if len(head) >= MOST_HEAD:
            raise InvalidHandshake(f"the head of the response is over {MOST_HEAD} bytes")

    @property
    def refusal(self) -> HandshakeRefused | None:
        """The refusal, with the content received so far; None before its head is complete."""
        return None if self._refusal is None else self._refusal.error()

    def feed_eof(self) -> None:
        """Handles the end of the stream.

        Raises:
            HandshakeRefused: The end of the stream completes a refusal.
            InvalidHandshake: The response is incomplete.
        """
        if self._refusal is not None:
            raise self._refusal.error()
        when = "in the middle of its response" if self._received else "without a response"
        raise InvalidHandshake(f"the server ended the connection {when}")

    def _agree(self, response: "_Response") -> Agreement:
        """Checks the 101 response (section 4.1, the second list)."""
        field = response.headers._values.get
        try:
            if not has_token(field("upgrade", ""), "websocket"):
                raise ValueError("the response has no Upgrade: websocket")
            if not has_token(field("connection", ""), "upgrade"):
                raise ValueError("the response has no Connection: Upgrade")
            if field("sec-websocket-accept") != accept_key(self._key):
                raise ValueError("Sec-WebSocket-Accept is not the answer to our Sec-WebSocket-Key")
            subprotocol = field("sec-websocket-protocol")
            if subprotocol is not None and subprotocol not in self._subprotocols:
                raise ValueError(f"the server chose the subprotocol {subprotocol!r}, which was not offered")
            extensions = field("sec-websocket-extensions")
            agreed = [] if extensions is None else self._agreed_extensions(extensions)
        except ValueError as error:
            raise InvalidHandshake(str(error), response.status, response.headers) from None
        return Agreement(subprotocol, agreed, response.headers)

    def _agreed_extensions(self, answers: str) -> list[Extension]:
        """Returns the extensions of the response (section 9.1), each of which must match its offer."""
        agreed: dict[str, Extension] = {}
        for name, parameters in parse_offers(answers):
            offer = self._offers.get(name)
            if offer is None or name in agreed:
                raise ValueError(f"the server chose the extension {name!r}, which was not offered")
            extension = offer.accept(parameters)
            if extension is None:
                answer = Offer(name, parameters)
                raise ValueError(f"the server's answer does not match our offer: {format_extension(*answer)}")
            if not isinstance(extension, Extension):
                raise TypeError(f"accept of the offer {name!r} returned {extension!r}: return an Extension, or None")
            if extension.uses_rsv1 and any(other.uses_rsv1 for other in agreed.values()):
                raise ValueError(f"the server chose two extensions that use RSV1; one is {name!r}")
            agreed[name] = extension
        return list(agreed.values())


class _Response:
    """A response, parsed by httptools.

    Args:
        head: The head, up to its empty line.

    Raises:
        InvalidHandshake: The head is not that of an HTTP/1.1 response.
    """

    def __init__(self, head: bytes) -> None:
        new_parser, parser_upgrade, parser_error = _httptools()
        self._fields: list[tuple[str, str]] = []
        self._body = bytearray()
        self._is_head = False
        self._complete = False
        self._parser_error = parser_error
        self._parser = new_parser(self)
        self.status = 0
        try:
            self._parser.feed_data(head)
        except parser_upgrade:
            pass
        except parser_error as error:
            if not self._is_head:  # else a 101 response without Upgrade, which the parser rejects after its head
                raise InvalidHandshake(f"the response is not HTTP/1.1: {error}") from None
        self.status = self._parser.get_status_code()
        self.headers = ResponseHeaders(self._fields)
        if not head.startswith(b"HTTP/1.1 "):
            self._check_version()
        if self.status < 100:
            raise InvalidHandshake(f"the response has the status {self.status:03}", self.status, self.headers)
        if self.status < 200:
            del self._parser  # it refers to the callbacks of this object, which a cycle would keep

    def _check_version(self) -> None:
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1") or (self.status == _SWITCHING_PROTOCOLS and version != "1.1"):
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
        if self.headers.get("content-type", "").startswith("text/plain") and self._body:
            message += f": {printable(self._body[:_MOST_QUOTED].decode(errors='replace').strip())}"
        return HandshakeRefused(message, self.status, self.headers, bytes(self._body[:MOST_BODY]))

    # Callbacks of httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self._is_head = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._complete = True


@cache  # an import statement takes as long as the rest of the parsing
def _httptools() -> "tuple[type[httptools.HttpResponseParser], type[Exception], type[Exception]]":
    """Returns the parser and its exceptions: for a response that upgrades the connection, and for an invalid one."""
    from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

    return HttpResponseParser, HttpParserUpgrade, HttpParserError


@lru_cache  # most programs connect to few URLs
def _beginning(target: str, host: str | None) -> str:
    """Returns a request up to its key; without `host`, the fields of the caller have a Host."""
    if not _TARGET.fullmatch(target):
        raise ValueError(f"{target!r} is not a request target: start it with a slash, and percent-encode it")
    return f"GET {target} HTTP/1.1\r\n{'' if host is None else _line('Host', host)}{_UPGRADE}Sec-WebSocket-Key: "


def _line(name: str, value: str) -> str:
    """Returns a header field as a line of the request; raises ValueError if it cannot be sent."""
    is_printable = value.isascii() and value.isprintable()  # spares most values the expression
    if not is_token(name) or not (is_printable or _VALUE.fullmatch(value)):
        advice = "remove control characters, and percent-encode those beyond Latin-1"
        raise ValueError(f"the header field {name!r}: {value!r} cannot be sent: {advice}")
    return f"{name}: {value}\r\n"
