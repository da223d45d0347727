"""The head of an upgrade request in ASGI terms, for hosts that run ASGI applications: `uvicorn.py`, and that of tests.

`duck.server` serves pages too, and reads requests of any kind by a reader of its own.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from ..sansio.handshake import offered_subprotocols
from ..sansio.host import check_host, split_absolute, with_host_of
from ..sansio.negotiation import TOKEN

__all__ = ["UpgradeHead", "header_lines"]

_NAME = re.compile(TOKEN.encode())
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class UpgradeHead:
    """The head of a request that asks for an upgrade, parsed by httptools.

    Args:
        data: The request up to the empty line.

    Attributes:
        method: The method.
        target: The target as received, undecoded.
        headers: The header fields; names in lower case. The host of an absolute target replaces Host.

    Raises:
        httptools.HttpParserError: The bytes are not a request.
        ValueError: There is not exactly one well-formed Host.
    """

    def __init__(self, data: bytes) -> None:
        from httptools import HttpParserUpgrade, HttpRequestParser

        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        parser = HttpRequestParser(self)
        with suppress(HttpParserUpgrade):
            parser.feed_data(data)
        self.method = parser.get_method().decode()
        self._check_host()
        self._origin_form = self.target
        if not self.target.startswith(b"/") and b"://" in self.target:
            self.headers = with_host_of(self.target, self.headers)
            self._check_host()
            _, self._origin_form = split_absolute(self.target)

    def _check_host(self) -> None:
        hosts = [value.decode("latin-1").strip() for name, value in self.headers if name == b"host"]
        check_host(", ".join(hosts) if hosts else None, required=True)

    # Callbacks of httptools

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def scope(self, secure: bool, root_path: str = "") -> dict[str, Any]:
        """Returns the entries of a scope that follow from the request; the host adds those about itself.

        Args:
            secure: Whether the connection is encrypted.
            root_path: The path at which the application is mounted.
        """
        raw_path, _, query_string = self._origin_form.partition(b"?")
        offered = b",".join(value for name, value in self.headers if name == b"sec-websocket-protocol")
        return {
            "type": "websocket",
            "http_version": "1.1",
            "scheme": "wss" if secure else "ws",
            "root_path": root_path,
            "path": root_path + unquote(raw_path.decode("latin-1")),
            "raw_path": root_path.encode() + raw_path,
            "query_string": query_string,
            "headers": self.headers,
            "subprotocols": offered_subprotocols(offered.decode("latin-1")),
        }


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns header fields as lines of a response.

    Raises:
        TypeError: A name or value is a str.
        ValueError: A field would break out of its line.
    """
    lines = []
    for name, value in headers:
        if isinstance(name, str) or isinstance(value, str):
            raise TypeError(f"name and value of a header are bytes, not {name!r}: {value!r}")
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise ValueError(f"invalid header {bytes(name)!r}: {bytes(value)!r}")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)
