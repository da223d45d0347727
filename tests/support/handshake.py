"""Heads of upgrade requests."""

from collections.abc import Iterable, Mapping

__all__ = ["FIELDS", "KEY", "LINES", "UPGRADE", "fields", "head", "upgrade"]

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
