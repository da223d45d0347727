"""The opening handshake of a server without I/O (RFC 6455, section 4.2).

`check` validates a request, and `agree` negotiates. The result is an `Acceptance`; a refusal is a `HandshakeError`.
Hosts render both as an HTTP/1.1 response (`switching_protocols`, `refusal`) or as ASGI events.
"""

import binascii
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..exceptions import HandshakeError
from ..extensions import Extension
from .negotiation import Negotiator, format_extension, is_token, negotiate
from .origins import is_allowed

if TYPE_CHECKING:
    from hashlib import sha1

    from duck.http.request import HttpRequest
else:
    try:  # a client connects 2 % faster than with OpenSSL's, whose code is seldom in the cache
        from _sha1 import sha1
    except ImportError:  # Python was built without it
        from hashlib import sha1

__all__ = [
    "BODILESS",
    "MAGIC_STRING",
    "VERSION",
    "Acceptance",
    "Handshake",
    "accept_key",
    "agree",
    "check",
    "check_field",
    "check_refusal",
    "has_token",
    "offered_subprotocols",
    "refusal",
    "refusal_fields",
    "switching_protocols",
]

MAGIC_STRING = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = 13

BODILESS = (204, 304)
"""Statuses whose responses have no body (RFC 9110, section 6.4.1)."""

_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})
_RESERVED = (
    _FRAMING | {"upgrade"} | {f"sec-websocket-{name}" for name in ("accept", "protocol", "extensions", "version")}
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # characters beyond ASCII are opaque (RFC 9110, section 5.5)

_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
_VERSION = str(VERSION)
_UPGRADE = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION))


class Acceptance(NamedTuple):
    """The content of the response to an accepted request.

    Attributes:
        key: The value of `Sec-WebSocket-Accept`, which only HTTP/1.1 uses.
        subprotocol: The chosen subprotocol, or None.
        extensions: The agreed extensions, in the order in which they encode.
        extension_answer: The value of `Sec-WebSocket-Extensions`; empty without extensions.
        headers: Additional header fields of the response.
    """

    key: str
    subprotocol: str | None = None
    extensions: Sequence[Extension] = ()
    extension_answer: str = ""
    headers: Sequence[tuple[str, str]] = ()


class Handshake:
    """An opening handshake that a view decides on, in `WebSocketView.on_handshake`.

    Attributes:
        request: The upgrade request, which has passed all checks.
        subprotocols: The client's offers, in its order of preference.
    """

    __slots__ = ("_acceptance", "_headers", "request", "subprotocols")

    def __init__(self, request: "HttpRequest", acceptance: Acceptance) -> None:
        self.request = request
        self.subprotocols = tuple(offered_subprotocols(request.headers.get("sec-websocket-protocol", "")))
        self._acceptance = acceptance
        self._headers: list[tuple[str, str]] = []

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol of the connection; at first the client's first choice among `SUBPROTOCOLS`, or None.

        Raises:
            ValueError: The client does not offer the subprotocol that is set.
        """
        return self._acceptance.subprotocol

    @subprotocol.setter
    def subprotocol(self, name: str | None) -> None:
        if name is not None and name not in self.subprotocols:
            raise ValueError(f"the client offers {', '.join(self.subprotocols) or 'no subprotocol'}, not {name!r}")
        if name is not None:
            check_field("Sec-WebSocket-Protocol", name, reserved=())
        self._acceptance = self._acceptance._replace(subprotocol=name)

    def add_header(self, name: str, value: str) -> None:
        """Adds a header field to the 101 response, such as Set-Cookie. A name may be added several times.

        Raises:
            ValueError: The name is not a token or belongs to the handshake, or the value has a control character or one
                beyond Latin-1.
        """
        check_field(name, value)
        self._headers.append((name, value))

    @property
    def acceptance(self) -> Acceptance:
        """The acceptance with the current subprotocol and header fields."""
        return self._acceptance._replace(headers=tuple(self._headers)) if self._headers else self._acceptance


def check_field(name: str, value: str, reserved: Collection[str] = _RESERVED) -> None:
    """Checks a header field of a response.

    Raises:
        ValueError: The field would break the response, or is reserved for the host.
    """
    if not isinstance(name, str) or not isinstance(value, str):
        raise ValueError(f"the name and the value of a header field are str, not {name!r}: {value!r}")
    if not is_token(name):
        raise ValueError(f"{name!r} cannot name a header field: use a token (RFC 9110, section 5.6.2)")
    if name.lower() in reserved:
        raise ValueError(f"the server sets {name}: leave it out")
    if _CONTROL.search(value):
        raise ValueError(f"control character in {name}: {value!r}")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"character beyond Latin-1 in {name}: {value!r}") from None


def check_refusal(error: HandshakeError) -> None:
    """Checks that the response to a refused request can be written.

    Raises:
        ValueError: See `check_field`; or the text of the body has lone surrogates.
        Exception: The `__str__` or the `body` of the error's class has failed.
    """
    for name, value in error.headers:
        check_field(name, value, reserved=_FRAMING)
    _ = error.body, str(error)


def accept_key(key: str) -> str:
    """Returns `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2)."""
    digest = sha1((key + MAGIC_STRING).encode()).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def check(request: "HttpRequest", allowed_origins: Sequence[str] | None = None) -> str:
    """Checks that a request is an opening handshake, and that its origin is allowed.

    Args:
        request: Only its method, HTTP version, headers and `secure` are used.
        allowed_origins: The entries of an `AllowedOrigins`; None for the host's own origin. A request without Origin is
            not from a browser, and its origin is not checked.

    Returns:
        `Sec-WebSocket-Key`, for `agree`.

    Raises:
        HandshakeError: 400, 403, 405 or 426.
    """
    if request.method != "GET":
        raise HandshakeError(405, "a WebSocket handshake is a GET request", (("Allow", "GET"),))
    if request.http_version != "1.1":
        raise HandshakeError(400, "a WebSocket handshake needs HTTP/1.1")
    header = _getter(request)
    if not has_token(header("upgrade", ""), "websocket"):
        missing = "this is a WebSocket endpoint: missing Upgrade: websocket"
        raise HandshakeError(426, missing, _UPGRADE, fields=("Upgrade",))
    if not has_token(header("connection", ""), "upgrade"):
        raise HandshakeError(400, "missing Connection: Upgrade", fields=("Connection",))
    # The new protocol would begin behind the body (RFC 9110, section 7.8), which is not read here.
    if _has_body(header):
        body = ("Content-Length", "Transfer-Encoding")
        raise HandshakeError(400, "a WebSocket handshake has no body", fields=body)
    # A repeated field becomes a list, which fails every check here.
    if header("sec-websocket-version", "").strip(" \t") != _VERSION:
        supported = f"only WebSocket version {VERSION} is supported"
        raise HandshakeError(426, supported, _UPGRADE, fields=("Sec-WebSocket-Version",))
    key = header("sec-websocket-key", "").strip(" \t")
    if not _is_key(key):
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    if not is_allowed(request, allowed_origins):
        foreign = "connections from this origin are not allowed"
        if header("x-forwarded-host", "") in ("", header("host", "")):  # of a trusted proxy, Host has it
            raise HandshakeError(403, foreign, fields=("Origin", "Host"), setting="ALLOWED_ORIGINS")
        fields = ("Origin", "Host", "X-Forwarded-Host")
        raise HandshakeError(403, foreign, fields=fields, setting="ALLOWED_ORIGINS, or trusted_proxies")
    return key


def agree(
    request: "HttpRequest",
    key: str,
    subprotocols: Sequence[str] = (),
    extensions: Mapping[str, Negotiator] = {},
) -> Acceptance:
    """Negotiates the subprotocol and the extensions of a request that has passed `check`.

    Args:
        key: The result of `check`.
        subprotocols: The server's subprotocols; the client's first offer among them is chosen.
        extensions: The server's extensions by name.

    Raises:
        HandshakeError: 400, for malformed offers of extensions.
        Exception: An error of a negotiator, or a TypeError or ValueError for an invalid result of one.
    """
    header = _getter(request)
    subprotocol = None
    if subprotocols:
        offered = offered_subprotocols(header("sec-websocket-protocol", ""))
        subprotocol = next((name for name in offered if name in subprotocols), None)
    offers = header("sec-websocket-extensions", "")
    agreed: Sequence[Extension] = ()  # one object for all connections without extensions
    answer = ""
    if offers:
        agreed = negotiate(offers, extensions)
        answer = ", ".join([format_extension(extension.name, extension.parameters) for extension in agreed])
    return Acceptance(accept_key(key), subprotocol, agreed, answer)


def switching_protocols(acceptance: Acceptance, lines: bytes | None = None) -> bytes:
    """Returns the head of the 101 response of HTTP/1.1.

    Args:
        lines: Header lines of the host, each with its CRLF, in place of the additional fields of the acceptance.
    """
    key, subprotocol, _, extension_answer, headers = acceptance
    head = f"{_SWITCHING}Sec-WebSocket-Accept: {key}\r\n"
    if subprotocol is not None:
        head += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    if extension_answer:
        head += f"Sec-WebSocket-Extensions: {extension_answer}\r\n"
    if lines is None:
        for name, value in headers:
            head += f"{name}: {value}\r\n"
    return head.encode("latin-1") + (lines or b"") + b"\r\n"


def refusal_fields(error: HandshakeError) -> list[tuple[str, str]]:
    """Returns the header fields of the response to a refused request, in any version of HTTP."""
    fields = list(error.headers)
    if error.body and not any(name.lower() == "content-type" for name, _ in fields):
        fields.insert(0, ("Content-Type", "text/plain; charset=utf-8"))
    return fields


def reason_phrase(status: int) -> str:
    """Returns the reason phrase of a status line; "" for a status that is not registered."""
    from http import HTTPStatus  # slow to import, and needed only for refusals

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _date(fields: Sequence[tuple[str, str]]) -> bytes:
    """Returns the line of a Date, unless the fields of a response have one (RFC 9110, section 6.6.1)."""
    from email.utils import formatdate  # slow to import

    has_date = any(name.lower() == "date" for name, _ in fields)
    return b"" if has_date else f"Date: {formatdate(usegmt=True)}\r\n".encode()


def refusal(error: HandshakeError, head_only: bool = False, lines: bytes | None = None) -> bytes:
    """Returns the HTTP/1.1 response to a refused request; its Connection field announces the close.

    Args:
        head_only: Whether to omit the body, but not its length, as for HEAD.
        lines: Header lines of the host, each with its CRLF; None for a Date.
    """
    fields = refusal_fields(error)
    if lines is None:
        lines = _date(fields)
    upgrade = any(name == "Upgrade" for name, _ in fields)
    head = [
        f"HTTP/1.1 {error.status} {reason_phrase(error.status)}",
        "Connection: Upgrade, close" if upgrade else "Connection: close",
        *(f"{name}: {value}" for name, value in fields),
    ]
    body = error.body
    if error.status in BODILESS:
        body = b""
    else:
        head.append(f"Content-Length: {len(body)}")
    response = "\r\n".join([*head, ""]).encode("latin-1") + lines + b"\r\n"
    return response if head_only else response + body


def has_token(value: str, token: str) -> bool:
    """Whether a comma-separated field value has a member, in any case."""
    value = value.lower()
    return value == token or token in [member.strip(" \t") for member in value.split(",")]


def _getter(request: "HttpRequest") -> Callable[[str, str], str]:
    """Returns a function that looks up header fields, by a name in lower case and a default."""
    # Other hosts' headers have a `get` alone.
    get: Callable[[str, str], str] = getattr(request.headers, "by_name", request.headers).get
    return get


def _has_body(header: Callable[[str, str], str]) -> bool:
    return bool(header("content-length", "").strip(" \t0") or header("transfer-encoding", ""))


def _is_key(key: str) -> bool:
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except (binascii.Error, ValueError):
        return False


def offered_subprotocols(header: str) -> list[str]:
    """Returns the subprotocols that a client offers, the preferred one first."""
    return [name for word in header.split(",") if (name := word.strip(" \t"))]
