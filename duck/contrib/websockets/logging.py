"""Log lines of connections, through the standard `logging` module under `duck.contrib.websockets`.

A record is one line, whatever a peer has sent; time and level are the handler's to write.
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duck.http.request import ClientAddress, HttpRequest

    from .exceptions import HandshakeError

__all__ = [
    "access_logger",
    "format_address",
    "get_django_formatted_log",
    "get_duck_formatted_log",
    "log_access",
    "log_event",
    "log_message",
    "log_refusal",
    "logger",
    "printable",
]

logger = logging.getLogger("duck.contrib.websockets")

access_logger = logging.getLogger("duck.access")
"""A line for each page and each handshake, at INFO; off until its level is set."""
if access_logger.level == logging.NOTSET:  # else somebody has asked for it before the import
    access_logger.setLevel(logging.WARNING)


def printable(text: str) -> str:
    """Text of a peer as part of a line: what would begin another line or steer a terminal is shown as an escape."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(ord(character)) for character in text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def format_address(address: object) -> str:
    """The address of a client: `192.0.2.1:4711`, `[2001:db8::1]:4711`, the path of a Unix socket; `-` for none."""
    if isinstance(address, tuple | list) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        host = f"[{host}]" if ":" in host else host
        return printable(f"{host}:{port}" if port else host)
    return printable(str(address)) if address else "-"


def _line(debug_message: str | list[str] | None) -> str:
    """What belongs together, in one line."""
    lines = [debug_message or ""] if not isinstance(debug_message, list) else debug_message
    return "; ".join(map(printable, lines))


def get_django_formatted_log(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> str:
    """A line headed by the time, as Django's development server writes it: `[22/Nov/2026 10:30:00] message`."""
    return f"[{datetime.now():%d/%b/%Y %H:%M:%S}] {_line(debug_message)}"


def get_duck_formatted_log(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> str:
    """A line headed by the peer's address: `192.0.2.1:4711 message`."""
    return f"{format_address(getattr(request, 'client_address', None))} {_line(debug_message)}"


def log_message(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> None:
    """Logs at INFO what happened to a connection; formats nothing when INFO is off."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", get_duck_formatted_log(request, debug_message))


def log_event(request: "HttpRequest", event: str, *words: object) -> None:
    """Logs a step of a connection as `log_message` does: `/path [WebSocket] [EVENT] words`."""
    if logger.isEnabledFor(logging.INFO):
        log_message(request, " ".join([f"{request.path} [WebSocket] [{event}]", *map(str, words)]).rstrip())


def log_refusal(request: "HttpRequest", error: "HandshakeError") -> None:
    """Logs that a handshake is refused, with the header fields it is for and the setting that would let it in."""
    if logger.isEnabledFor(logging.INFO):
        details = [f"{name}: {request.headers.get(name.lower(), '-')}" for name in error.fields]
        if error.setting:
            details.append(f"see {error.setting}")
        log_event(request, "REFUSED", error.status, error, f"({'; '.join(details)})" if details else "")


def log_access(
    request: "HttpRequest | None", status: int, size: int | None = None, *, address: "ClientAddress" = None
) -> None:
    """Logs how a request was answered, in the Common Log Format without its names and times.

    Args:
        request: Its address, method and target are looked at; None for what is not a request.
        status: Of the answer; 101 for a handshake that was agreed to.
        size: Bytes of the answer's body; None where that is not told.
        address: The client's, where there is no request.
    """
    if access_logger.isEnabledFor(logging.INFO):
        line = "-"
        if request is not None:
            address = request.client_address
            # Duck Framework's requests have no target.
            target = printable(getattr(request, "target", request.path)).replace('"', "\\x22")
            line = f"{request.method} {target} HTTP/{request.http_version}"
        access_logger.info('%s "%s" %d %s', format_address(address), line, status, "-" if size is None else size)
