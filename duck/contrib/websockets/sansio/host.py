"""The host of a request: its Host field, or the authority of an absolute-form target (RFC 9112, section 3.2)."""

import re
from collections.abc import Iterable

from ..logging import cut

__all__ = ["check_host", "split_absolute", "with_host_of"]

_NAME = r"[A-Za-z0-9._~!$&'()*+,;=%-]*"
_LITERAL = r"\[[A-Za-z0-9._~!$&'()*+,;=:%-]+\]"
_HOST = re.compile(rf"(?:{_NAME}|{_LITERAL})(?::[0-9]*)?")  # RFC 9110, section 7.2
_AFTER_AUTHORITY = re.compile(rb"[/?#]")


def split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """Returns the authority of an absolute-form target, and the target in origin form."""
    rest = target.partition(b"://")[2]
    end = _AFTER_AUTHORITY.search(rest)
    position = len(rest) if end is None else end.start()
    authority, rest = rest[:position], rest[position:]
    return authority, rest if rest.startswith(b"/") else b"/" + rest


def with_host_of(target: bytes, fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns the fields with the host of an absolute-form target in place of Host (RFC 9112, section 3.2.2)."""
    authority, _ = split_absolute(target)
    return [(b"host", authority), *((name, value) for name, value in fields if name.lower() != b"host")]


def check_host(host: str | None, required: bool) -> None:
    """Checks that there is exactly one well-formed Host (RFC 9112, section 3.2).

    Args:
        host: Its value; several are joined by a comma and a space, which makes them malformed. None without Host.
        required: Whether the request must have it.

    Raises:
        ValueError: A required Host is missing, or Host is repeated or malformed.
    """
    if host is None:
        if required:
            raise ValueError("no Host")
    elif not _HOST.fullmatch(host):
        raise ValueError(f"a malformed or repeated Host: {cut(host)!r}")
