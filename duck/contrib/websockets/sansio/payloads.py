"""Payloads: their types, and the rules of close frames (RFC 6455, section 5.5.1) and of text messages (section 8.1)."""

import operator
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any

from .. import codec
from ..exceptions import ProtocolError
from ..opcodes import CloseCode

__all__ = [
    "Data",
    "check_close",
    "check_text",
    "checked_opcode",
    "close_payload",
    "parse_close",
    "parts_of",
    "payload_of",
]

Data = str | bytes | bytearray | memoryview
"""The data of a message to send, or of one of its fragments."""

_PIECE = 1 << 16  # bytes or characters of a file

# The codes of RFC 6455 and its registry that a close frame may contain. Those from 3000 to 4999 belong to libraries and
# applications.
_STANDARD = frozenset(range(1000, 1015)) - {1004, 1005, 1006}

# Most connections end with a standard code without a reason: the payload of each such code, and the reverse.
_PAYLOADS = {code: code.to_bytes(2) for code in _STANDARD}
_PARSED: dict[bytes, tuple[int, str]] = {payload: (code, "") for code, payload in _PAYLOADS.items()}
_PARSED[b""] = CloseCode.NO_STATUS_RCVD, ""


def _may_be_sent(code: int) -> bool:
    return code in _STANDARD or 3000 <= code <= 4999


def check_close(code: int, reason: str = "") -> None:
    """Checks the content of a close frame, before the connection changes (sections 5.5.1 and 7.4).

    Raises:
        TypeError: The code is not an int, or the reason is not a str.
        ValueError: A close frame must not contain the code, or the reason has lone surrogates.
    """
    if reason == "" and isinstance(code, int) and code in _STANDARD:
        return
    if not isinstance(code, int):
        raise TypeError(f"a close code is an int, not {code!r}")
    if not _may_be_sent(code):
        raise ValueError(f"close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999")
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close frame is a str, not {reason!r}")
    reason.encode()


def parse_close(payload: bytes) -> tuple[int, str]:
    """Returns code and reason of a close frame (section 5.5.1); code 1005 if it has none.

    Raises:
        ProtocolError: The payload is one byte, the code may not be sent, or the reason is not UTF-8 (1007).
    """
    known = _PARSED.get(payload)
    if known is not None:
        return known
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not _may_be_sent(code):
        raise ProtocolError("invalid close code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError("close reason is not UTF-8", CloseCode.INVALID_DATA) from None


def payload_of(data: Any) -> bytes | None:
    """Returns the bytes of str and bytes-like data; None for an iterable of parts.

    Raises:
        TypeError: The data is none of these.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    try:
        return memoryview(data).tobytes()
    except TypeError:
        if isinstance(data, dict):
            raise TypeError("a dict is not a message: use send_json") from None
        if isinstance(data, (Iterable, AsyncIterable)):
            return None
        kind = type(data).__name__
        raise TypeError(f"a message is str, bytes-like or an iterable of them, not {kind}") from None


def parts_of(data: Iterable[Any]) -> Iterable[Any]:
    """Returns the parts of a message; those of an open file are pieces, because its lines have any length."""
    return _pieces(data) if all(hasattr(data, name) for name in ("read", "readline", "seekable")) else data


def _pieces(file: Any) -> Iterator[Any]:
    """Reads a file by pieces; a pipe or a terminal as its data comes, a text of them by lines."""
    read = getattr(file, "read1", None)  # of a buffered file
    if read is None:
        read = file.read if file.seekable() or hasattr(file, "readinto") else file.readline
    while piece := read(_PIECE):
        yield piece


def checked_opcode(opcode: Any) -> int:
    """Returns the number of an opcode; raises TypeError unless it is an int, or converts to one without loss."""
    if isinstance(opcode, int):
        return opcode
    try:
        return operator.index(opcode)
    except TypeError:
        raise TypeError(f"an opcode is an OpCode or its number, not {opcode!r}") from None


def check_text(payload: bytes, state: int = 0, fin: bool = True) -> int:
    """Raises ValueError for invalid UTF-8, which must not be sent in a text message (section 8.1).

    Args:
        payload: The payload of the message, or of a fragment.
        state: The result for the previous fragment; 0 for the first.
        fin: Whether the payload ends the message.

    Returns:
        The state for the next fragment, which may begin inside a character.
    """
    state = codec.utf8_state(payload, state)
    if state and (fin or state == codec.UTF8_REJECT):
        raise ValueError(codec.NOT_TEXT)
    return state


def close_payload(code: int, reason: str) -> bytes:
    """Returns the payload of a close frame; a reason that is too long is cut at a character (section 5.5).

    Raises:
        TypeError, ValueError: See `check_close`.
    """
    if reason == "" and isinstance(code, int) and code in _PAYLOADS:
        return _PAYLOADS[code]
    check_close(code, reason)
    cut = reason.encode()[:123]
    return code.to_bytes(2) + cut.decode(errors="ignore").encode()
