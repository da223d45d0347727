"""Heads of upgrade requests, and the head that accepts one."""

import re
from collections.abc import Iterable, Mapping

from duck.contrib.websockets.sansio.handshake import accept_key

__all__ = ["FIELDS", "KEY", "LINES", "UPGRADE", "agreed", "fields", "head", "upgrade"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The sample of RFC 6455, section 1.3; its Sec-WebSocket-Accept is s3pPLMBiTxaQ9kYGzzhZRbK+xOo=."""

FIELDS = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def fields(headers: Mapping[str, str] | Iterable[tuple[str, str]] = (), without: Iterable[str] = ()) -> dict[str, str]:
    """The fields of a valid upgrade request, with `headers` added or replaced, and without some."""
    left_out = set(without)
    return {name: value for name, value in {**FIELDS, **dict(headers)}.items() if name not in left_out}


def head(target: str = "/", *lines: str, method: str = "GET") -> bytes:
    """The head of a request with `lines` as its fields."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def upgrade(
    target: str = "/",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    *,
    without: Iterable[str] = (),
    method: str = "GET",
) -> bytes:
    """The head of an upgrade request with the result of `fields`."""
    lines = (f"{name}: {value}" for name, value in fields(headers, without).items())
    return head(target, *lines, method=method)


LINES = tuple(f"{name}: {value}" for name, value in fields(without=["Host"]).items())
"""The fields of an upgrade request except Host, for `head`."""

UPGRADE = upgrade()
"""The head of a valid upgrade request for `/`."""


def agreed(request: bytes) -> bytes:
    """The head of a response that accepts an upgrade request, without an extension."""
    key = re.search(rb"(?i)\r\nSec-WebSocket-Key: (\S+)", request)
    assert key is not None, request
    accept = accept_key(key[1].decode())
    fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    return f"HTTP/1.1 101 Switching Protocols\r\n{fields}".encode()
