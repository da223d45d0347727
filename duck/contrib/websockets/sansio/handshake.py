"""The opening handshake without I/O (RFC 6455, section 4): a request in, the 101 or a refusal out."""

import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from ..exceptions import HandshakeError
from ..extensions import Extension
from .negotiation import Negotiator, format_extension, negotiate
from .origins import allowed_origins as compiled
from .origins import host_of, origin_of

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

__all__ = ["MAGIC_STRING", "VERSION", "Acceptance", "accept", "accept_key", "refusal"]

MAGIC_STRING = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = 13

_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
_UPGRADE = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", str(VERSION)))


class Acceptance(NamedTuple):
    """What was agreed.

    Attributes:
        response: The head of the 101 response.
        subprotocol: The one chosen, or None.
        extensions: In the order in which they encode.
    """

    response: bytes
    subprotocol: str | None
    extensions: Sequence[Extension] = ()


def accept_key(key: str) -> str:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2)."""
    digest = hashlib.sha1((key + MAGIC_STRING).encode(), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def accept(
    request: "HttpRequest",
    *,
    subprotocols: Sequence[str] = (),
    allowed_origins: Sequence[str] | None = None,
    extensions: Mapping[str, Negotiator] = {},
) -> Acceptance:
    """Checks a request and agrees to it.

    Args:
        request: Only its method, HTTP version, headers and `secure` are looked at.
        subprotocols: Those that the server speaks; the first of the client's that is one of them is chosen.
        allowed_origins: The entries of an `AllowedOrigins`, whose pages may connect; None for the origin of the host
            itself. A request without Origin comes from no browser and is not checked.
        extensions: Those that the server has, by their names.

    Raises:
        HandshakeError: 400, 403, 405 or 426.
        Exception: What a negotiator has raised, or a TypeError or ValueError for an extension that cannot be answered.
    """
    if request.method != "GET":
        raise HandshakeError(405, "a WebSocket handshake is a GET request", (("Allow", "GET"),))
    if request.http_version != "1.1":
        raise HandshakeError(400, "a WebSocket handshake needs HTTP/1.1")
    header = request.headers.get
    if not _has_token(header("upgrade", ""), "websocket"):
        missing = "this is a WebSocket endpoint: missing Upgrade: websocket"
        raise HandshakeError(426, missing, _UPGRADE, fields=("Upgrade",))
    if not _has_token(header("connection", ""), "upgrade"):
        raise HandshakeError(400, "missing Connection: Upgrade", fields=("Connection",))
    # The protocol would change behind the body (RFC 9110, section 7.8), which nothing here reads.
    if getattr(request.headers, "announce_body", True) and _has_body(header):  # a host's own headers may not know
        body = ("Content-Length", "Transfer-Encoding")
        raise HandshakeError(400, "a WebSocket handshake has no body", fields=body)
    # A second field of a name makes its value a list, which no check here passes.
    if header("sec-websocket-version", "").strip(" \t") != str(VERSION):
        spoken = f"only WebSocket version {VERSION} is spoken here"
        raise HandshakeError(426, spoken, _UPGRADE, fields=("Sec-WebSocket-Version",))
    key = header("sec-websocket-key", "").strip(" \t")
    if not _is_key(key):
        raise HandshakeError(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    origin = header("origin", "").strip(" \t").lower()
    if origin:
        _check_origin(origin, request, allowed_origins)
    subprotocol = _choose_subprotocol(header("sec-websocket-protocol", ""), subprotocols) if subprotocols else None
    response = f"{_SWITCHING}Sec-WebSocket-Accept: {accept_key(key)}\r\n"
    if subprotocol is not None:
        response += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    offers = header("sec-websocket-extensions")
    agreed = negotiate(offers, extensions) if offers else []
    if agreed:
        answer = ", ".join(format_extension(extension.name, extension.parameters) for extension in agreed)
        response += f"Sec-WebSocket-Extensions: {answer}\r\n"
    return Acceptance(f"{response}\r\n".encode("latin-1"), subprotocol, agreed)


def refusal(error: HandshakeError, head_only: bool = False) -> bytes:
    """The response to a refused request; the connection ends with it.

    Args:
        head_only: Leave the body out but not its length, as for HEAD.
    """
    body = f"{error}\n".encode()
    upgrade = any(name == "Upgrade" for name, _ in error.headers)
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "Connection: Upgrade, close" if upgrade else "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in error.headers),
    ]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if head_only else head + body


def _has_token(value: str, token: str) -> bool:
    """Whether a comma-separated header has a member, in any case."""
    value = value.lower()
    return value == token or token in [member.strip(" \t") for member in value.split(",")]


def _has_body(header: Callable[[str, str], str]) -> bool:
    return bool(header("content-length", "").strip(" \t0") or header("transfer-encoding", ""))


def _is_key(key: str) -> bool:
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _choose_subprotocol(offered: str, spoken: Sequence[str]) -> str | None:
    words = (word.strip(" \t") for word in offered.split(","))
    return next((name for name in words if name and name in spoken), None)


def _check_origin(origin: str, request: "HttpRequest", allowed: Sequence[str] | None) -> None:
    """Refuses pages of foreign origins, which could act in their visitor's name (section 10.2; CWE-1385)."""
    if _is_same_origin(origin, request) if allowed is None else origin in compiled(allowed):
        return
    foreign = "connections from this origin are not allowed"
    raise HandshakeError(403, foreign, fields=("Origin", "Host"), setting="ALLOWED_ORIGINS")


def _is_same_origin(origin: str, request: "HttpRequest") -> bool:
    """Whether a page of this origin was served by the host that the request goes to.

    A page may be served over TLS that ends at a proxy, so `https` may meet a plain connection, but never the reverse.
    """
    page = origin_of(origin)
    if page is None or page.scheme not in ("http", "https") or (request.secure and page.scheme != "https"):
        return False
    return page == host_of(request.headers.get("host", "").strip(" \t").lower(), page.scheme)
