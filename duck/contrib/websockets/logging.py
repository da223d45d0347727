"""Log lines of connections, through the standard `logging` module under `duck.contrib.websockets`."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

__all__ = ["get_django_formatted_log", "get_duck_formatted_log", "log_event", "log_message", "logger"]

logger = logging.getLogger("duck.contrib.websockets")

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def _lines(debug_message: str | list[str] | None) -> list[str]:
    lines = [debug_message or ""] if not isinstance(debug_message, list) else debug_message
    # What a peer sent must not begin a line of its own or steer the terminal.
    return [line.translate(_CONTROLS) for line in lines]


def get_django_formatted_log(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> str:
    """One line a message, headed by the time: `[22/Nov/2026 10:30:00] message`."""
    first, *rest = _lines(debug_message)
    return "\n".join([f"[{datetime.now():%d/%b/%Y %H:%M:%S}] {first}", *rest])


def get_duck_formatted_log(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> str:
    """A message, what belongs to it as branches below, and the peer's address as the last branch."""
    first, *rest = _lines(debug_message)
    address = getattr(request, "client_address", None) or ("unknown", "unknown")
    branches = [f"  ├── {line}" for line in rest]
    return "\n".join([f"[{datetime.now():%Y-%m-%d %H:%M:%S}] {first}", *branches, f"  └── ADDR {list(address)}"])


def log_message(request: "HttpRequest | None" = None, debug_message: str | list[str] | None = None) -> None:
    """Logs at INFO what happened to a connection; formats nothing when INFO is off."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", get_duck_formatted_log(request, debug_message))


def log_event(request: "HttpRequest", event: str, *words: object) -> None:
    """Logs a step of a connection as `log_message` does: `/path [WebSocket] [EVENT] words`."""
    if logger.isEnabledFor(logging.INFO):
        log_message(request, " ".join([f"{request.path} [WebSocket] [{event}]", *map(str, words)]).rstrip())
