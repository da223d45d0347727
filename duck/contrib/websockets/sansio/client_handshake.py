"""The opening handshake of a client without I/O (RFC 6455, section 4.1): the request out, the 101 or a refusal in.

    handshake = ClientHandshake("/chat", "example.org", subprotocols=["chat"])
    send(handshake.request)
    while not handshake.feed(receive()):
        pass
    handshake.rest    the first bytes of the connection

A response is read in three stages. The head is collected up to its empty line, at most MOST_HEAD bytes, and httptools
parses it as a whole. Interim responses (100, 103) are skipped. The content of a refusal is collected, at most MOST_BODY
bytes, and becomes part of the exception. `client.dialing` does the I/O.
"""

import os
import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from functools import lru_cache

from ..exceptions import HandshakeRefused, InvalidHandshake
from ..extensions import Extension
from .handshake import VERSION, accept_key
from .negotiation import ClientOffer, Offer, format_extension, is_token, parse_offers
from .response import ANSWER, SWITCHING_PROTOCOLS, Fields, Response, ResponseHeaders, check_beginning, parse

__all__ = ["ClientHandshake"]

MOST_HEAD = 65536
"""Limit of a response's head, in bytes."""

_MOST_INTERIM = 8  # 1xx responses before the final one
_END = b"\r\n\r\n"
_UPGRADE = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: {VERSION}\r\nSec-WebSocket-Key: "
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


class ClientHandshake:
    """One request and its response.

    Args:
        target: Path and query, percent-encoded.
        host: The value of Host.
        subprotocols: The client's subprotocols, the preferred one first.
        extensions: The client's extensions by name, the preferred one first.
        headers: Additional fields of the request. Host and User-Agent among them replace those of the arguments.
        user_agent: The value of User-Agent; None to omit it.
        key: 16 bytes; random by default.

    Attributes:
        request: The bytes to send.
        subprotocol: The server's choice, or None.
        extensions: The agreed extensions, in the order in which they encode.
        rest: The bytes behind the response; empty before its end.

    Raises:
        ValueError: The target or a field cannot be sent, or a field belongs to the handshake.
    """

    def __init__(
        self,
        target: str,
        host: str,
        subprotocols: Sequence[str] = (),
        extensions: Mapping[str, ClientOffer] = {},
        headers: Fields = (),
        user_agent: str | None = None,
        key: bytes | None = None,
    ) -> None:
        self._key = b2a_base64(os.urandom(16) if key is None else key, newline=False).decode()
        self._answer = accept_key(self._key)  # the right value of Sec-WebSocket-Accept
        self._subprotocols = subprotocols
        self._offers = extensions
        self.request = self._request(target, host, user_agent, headers)
        self.subprotocol: str | None = None
        self.extensions: Sequence[Extension] = ()
        self.rest = b""
        self._response: Response | None = None  # the final one
        self._received = bytearray()
        self._interim = 0

    def _request(self, target: str, host: str, user_agent: str | None, headers: Fields) -> bytes:
        lines = ""
        for name, value in headers:
            lower = name.lower()
            if lower in _RESERVED:
                raise ValueError(f"{name} is set by the handshake: remove it from the headers")
            if lower == "host":
                host = ""
            elif lower == "user-agent":
                user_agent = None
            lines += _line(name, value)
        options = ""
        if self._subprotocols:
            for name in self._subprotocols:
                if not is_token(name):
                    raise ValueError(f"{name!r} cannot be offered: a subprotocol is a token, such as 'chat.v2'")
            if len(set(self._subprotocols)) < len(self._subprotocols):  # RFC 6455, section 4.1
                raise ValueError(f"a subprotocol is offered twice: remove one from {list(self._subprotocols)}")
            options = f"Sec-WebSocket-Protocol: {', '.join(self._subprotocols)}\r\n"
        if self._offers:
            offers = [format_extension(name, offer.parameters) for name, offer in self._offers.items()]
            options += f"Sec-WebSocket-Extensions: {', '.join(offers)}\r\n"
        return f"{_beginning(target, host, user_agent)}{self._key}\r\n{options}{lines}\r\n".encode("latin-1")

    def feed(self, data: bytes) -> bool:
        """Parses bytes of the response; returns whether the handshake has succeeded.

        Raises:
            HandshakeRefused: The status of the response is not 101.
            InvalidHandshake: The response breaks the rules.
        """
        if self._response is not None:  # a refusal
            self._response.feed(data)
            return False
        if self._received:  # the head arrives in several reads
            searched = max(len(self._received) - len(_END) + 1, 0)
            self._received += data
            if self._received.find(_END, searched) < 0:
                self._check_incomplete(self._received, searched)
                return False
            data = bytes(self._received)
            self._received.clear()
        head, end, data = data.partition(_END)
        while end and len(head) + len(end) <= MOST_HEAD:
            response = parse(head + end, self._answer)
            if response.status == SWITCHING_PROTOCOLS:
                self._response = response
                self._agree(response)
                self.rest = data
                return True
            if response.status >= 200:
                self._response = response
                response.feed(data)
                return False
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise InvalidHandshake("too many interim responses", response.status, response.headers)
            head, end, data = data.partition(_END)
        unread = head + end + data
        self._check_incomplete(unread)
        self._received += unread
        return False

    @staticmethod
    def _check_incomplete(head: bytes | bytearray, searched: int = 0) -> None:
        check_beginning(head)
        if head.find(b"\n\n", searched) >= 0:  # its end would be waited for in vain
            raise InvalidHandshake("the lines of the response end in LF instead of CRLF")
        if len(head) >= MOST_HEAD:
            raise InvalidHandshake(f"the head of the response is over {MOST_HEAD} bytes")

    @property
    def headers(self) -> ResponseHeaders:
        """The header fields of the response; none before the end of its head."""
        return ResponseHeaders() if self._response is None else ResponseHeaders(self._response.fields, self._answer)

    @property
    def refusal(self) -> HandshakeRefused | None:
        """The refusal, with the content received so far; None before its head is complete."""
        return None if self._response is None else self._response.error()

    def feed_eof(self) -> None:
        """Handles the end of the stream.

        Raises:
            HandshakeRefused: The end of the stream completes a refusal.
            InvalidHandshake: The response is incomplete.
        """
        if self._response is not None:
            raise self._response.error()
        when = "in the middle of its response" if self._received else "without a response"
        raise InvalidHandshake(f"the server ended the connection {when}")

    def _agree(self, response: Response) -> None:
        """Checks the 101 response (section 4.1, the second list), and takes the server's choices from it."""
        field = response.values.get
        try:
            if response.missing is not None:
                raise ValueError(f"the response has no {response.missing}")
            if field("sec-websocket-accept") not in (ANSWER, self._answer):
                raise ValueError("Sec-WebSocket-Accept is not the answer to our Sec-WebSocket-Key")
            subprotocol = field("sec-websocket-protocol")
            if subprotocol is not None and subprotocol not in self._subprotocols:
                sent = self.headers["sec-websocket-protocol"]
                raise ValueError(f"the server chose the subprotocol {sent!r}, which was not offered")
            self.subprotocol = subprotocol
            extensions = field("sec-websocket-extensions")
            if extensions is not None:
                self.extensions = self._agreed_extensions(extensions)
        except ValueError as error:
            raise InvalidHandshake(str(error), response.status, self.headers) from None

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


@lru_cache  # most programs connect to few URLs
def _beginning(target: str, host: str, user_agent: str | None) -> str:
    """Returns a request up to its key; without Host if that is empty, and without User-Agent if that is None."""
    if not _TARGET.fullmatch(target):
        raise ValueError(f"{target!r} is not a request target: start it with a slash, and percent-encode it")
    lines = f"GET {target} HTTP/1.1\r\n"
    if host:
        lines += _line("Host", host)
    if user_agent is not None:
        lines += _line("User-Agent", user_agent)
    return lines + _UPGRADE


def _line(name: str, value: str) -> str:
    """Returns a header field as a line of the request; raises ValueError if it cannot be sent."""
    if not (is_token(name) and _VALUE.fullmatch(value)):
        advice = "remove control characters, and percent-encode those beyond Latin-1"
        raise ValueError(f"the header field {name!r}: {value!r} cannot be sent: {advice}")
    return f"{name}: {value}\r\n"
