"""Log records of connections, by the standard `logging` module under `duck.contrib.websockets`.

A record is always one line, because text of a peer is escaped. Handlers add time and level.
"""

import logging
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duck.http.request import ClientAddress, HttpRequest

    from .exceptions import HandshakeError

__all__ = [
    "access_logger",
    "cut",
    "end_of",
    "failures",
    "format_address",
    "get_django_formatted_log",
    "get_duck_formatted_log",
    "label",
    "log_access",
    "log_event",
    "log_failure",
    "log_message",
    "log_refusal",
    "logger",
    "printable",
    "text_of",
    "traceback_of",
]

logger = logging.getLogger("duck.contrib.websockets")

access_logger = logging.getLogger("duck.access")
"""Logs a line for each page and each handshake, at INFO; off unless its level is set."""
if access_logger.level == logging.NOTSET:  # keeps a level that was set before the import
    access_logger.setLevel(logging.WARNING)


failures: ContextVar[list[BaseException] | None] = ContextVar("failures", default=None)
"""Collects the arguments of `log_failure` for the connection of a test, in whose context they occur; else None."""

_SETTINGS = {  # by the reasons of the package's own close frames
    "message too big": "MAX_FRAME_SIZE, MAX_STREAM_SIZE or max_size",
    "no pong": "PONG_TIMEOUT",
    "nothing received for too long": "RECEIVE_TIMEOUT",
    "too many messages": "RATE_LIMIT",
    "too slow to read": "SLOW_CONSUMER",
}

_LONGEST = 200  # characters of a path, a header field or a reason, which may be a page of HTML


def cut(text: str) -> str:
    """Returns the first 200 characters of a peer's text."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def label(request: "HttpRequest") -> str:
    """Returns the address of the client, if it is known, and the path of a request for a log line."""
    path, address = cut(request.path), getattr(request, "client_address", None)
    return f"{format_address(address)} {path}" if address else path


def printable(text: str) -> str:
    """Returns a peer's text with line breaks and control characters escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(ord(character)) for character in text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def text_of(error: BaseException) -> str:
    """Returns the text of an error; the name of its type if it has none, as some errors of asyncio and uvloop."""
    return str(error) or type(error).__name__


def format_address(address: object) -> str:
    """Formats an address: `192.0.2.1:4711`, `[2001:db8::1]:4711`, or the path of a Unix socket; `-` for none."""
    if isinstance(address, tuple | list) and len(address) >= 2:
        host, port = str(address[0]), address[1]
        host = f"[{host}]" if ":" in host else host
        return printable(f"{host}:{port}" if port else host)
    return printable(str(address)) if address else "-"


def _line(debug_message: str | list[str] | None) -> str:
    """Joins messages to one line."""
    lines = [debug_message or ""] if not isinstance(debug_message, list) else debug_message
    return "; ".join(map(printable, lines))


def get_django_formatted_log(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> str:
    """Returns a line with the time, in the form of Django's development server: `[22/Nov/2026 10:30:00] message`."""
    from datetime import datetime

    return f"[{datetime.now():%d/%b/%Y %H:%M:%S}] {_line(debug_message)}"


def get_duck_formatted_log(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> str:
    """Returns a line with the address of the peer: `192.0.2.1:4711 message`."""
    return f"{format_address(getattr(request, 'client_address', None))} {_line(debug_message)}"


def log_message(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> None:
    """Logs an event of a connection at INFO; formats nothing while INFO is off."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", get_duck_formatted_log(request, debug_message))


def log_event(request: "HttpRequest", event: str, *words: object) -> None:
    """Logs a step of a connection at INFO: `/path [WebSocket] [EVENT] words`."""
    if logger.isEnabledFor(logging.INFO):
        log_message(request, " ".join([f"{cut(request.path)} [WebSocket] [{event}]", *map(str, words)]).rstrip())


def end_of(code: int | None, reason: object, is_ours: bool) -> str:
    """Returns the code and the reason of a connection's end for the log.

    Args:
        code: The close code.
        reason: The reason in the close frame, the broken rule, or the error of the network.
        is_ours: Whether this end has closed the connection; then the setting behind a limit follows.
    """
    setting = _SETTINGS.get(str(reason)) if is_ours else None
    return f"{code} {reason}".rstrip() + (f" (see {setting})" if setting else "")


def log_failure(error: BaseException, words: str, *args: object) -> None:
    """Logs an exception of a hook or another function of the application, with its traceback."""
    found = failures.get()
    if found is not None and not any(error is other for other in found):
        found.append(error)
    logger.error(words, *args, exc_info=traceback_of(error))


def traceback_of(
    error: BaseException | None,
) -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    """Returns the `exc_info` of a log record. `exc_info=error` omits the traceback of an error that is false."""
    return None if error is None else (type(error), error, error.__traceback__)


def log_refusal(request: "HttpRequest", error: "HandshakeError") -> None:
    """Logs a refused handshake, with the offending header fields and the setting that would accept it."""
    if logger.isEnabledFor(logging.INFO):
        details = [f"{name}: {cut(request.headers.get(name.lower(), '-'))}" for name in error.fields]
        if error.setting:
            details.append(f"see {error.setting}")
        log_event(request, "REFUSED", error.status, cut(str(error)), f"({'; '.join(details)})" if details else "")


def log_access(
    request: "HttpRequest | None", status: int, size: int | None = None, *, address: "ClientAddress" = None
) -> None:
    """Logs the response to a request, in the Common Log Format without names and times.

    Args:
        request: The request; None if the received bytes were not a request.
        status: Status of the response; 101 for an accepted handshake.
        size: Size of the response's body in bytes; None if unknown.
        address: Address of the client, for use without a request.
    """
    if access_logger.isEnabledFor(logging.INFO):
        line = "-"
        if request is not None:
            address = request.client_address
            # Duck Framework's requests have no target.
            target = printable(cut(getattr(request, "target", request.path))).replace('"', "\\x22")
            line = f"{request.method} {target} HTTP/{request.http_version}"
        access_logger.info('%s "%s" %d %s', format_address(address), line, status, "-" if size is None else size)
