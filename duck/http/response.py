"""An HTTP response and its serialization."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["HttpResponse"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # bytes beyond ASCII are opaque (RFC 9110, section 5.5)

# These fields describe the length of the message and the end of the connection, which the host decides.
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


class HttpResponse:
    """The response of a view.

    Attributes:
        content: The body.
        status: The status code.
        headers: Pairs of name and value, the content type first.
    """

    __slots__ = ("content", "headers", "status")

    def __init__(
        self,
        content: str | bytes = b"",
        status: int = 200,
        content_type: str = "text/html; charset=utf-8",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        """Makes a response.

        Args:
            content: The body; a str is sent as UTF-8.
            status: 200 to 599.
            content_type: The Content-Type, unless `headers` has one; "" for none.
            headers: Further header fields: a mapping, or pairs of name and value where a name is repeated.

        Raises:
            TypeError: The content is neither a str nor bytes, the status is no int, or a field is no pair of str.
            ValueError: The status is not final, a name is not a token, a value contains a control character or a
                character outside of Latin-1, or a field belongs to the host.
        """
        if isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, bytes | bytearray | memoryview):
            advice = ": for JSON, give json.dumps(...) and content_type='application/json'"
            raise TypeError(f"the content of a response is a str or bytes, not {type(content).__name__}{advice}")
        self.content = bytes(content)
        self.status = status
        fields: Any = tuple(headers.items() if isinstance(headers, Mapping) else headers)
        if content_type and not any(str(name).lower() == "content-type" for name, _ in fields):
            fields = (("Content-Type", content_type), *fields)
        self.headers: tuple[tuple[str, str], ...] = fields
        self.check()

    def check(self) -> None:
        """Checks the attributes, which may have been changed.

        Raises:
            TypeError: The content is not bytes, the status is no int, or a field is no pair of str.
            ValueError: See `HttpResponse`.
        """
        if not isinstance(self.content, bytes):
            raise TypeError(f"the content of a response is bytes, not {type(self.content).__name__}")
        if not isinstance(self.status, int):
            raise TypeError(f"the status of a response is an int, not {self.status!r}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"{self.status} is not the status of a final response: use one from 200 to 599")
        for name, value in self.headers:
            if not (isinstance(name, str) and isinstance(value, str)):
                raise TypeError(f"the name and the value of a header field are str, not {name!r}: {value!r}")
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a header field: use a token (RFC 9110, section 5.6.2)")
            if name.lower() in _FRAMING:
                raise ValueError(f"{name} is set by the server: leave it out")
            if _CONTROL.search(value):
                raise ValueError(f"control character in {name}: {value!r}")
            try:
                value.encode("latin-1")
            except UnicodeEncodeError:
                raise ValueError(f"character beyond Latin-1 in {name}: {value!r}") from None

    def to_bytes(self, head_only: bool = False, close: bool = False) -> bytes:
        """The bytes of the response.

        Args:
            head_only: Omit the body but not its length, as for HEAD.
            close: Announce the end of the connection after this response.
        """
        from http import HTTPStatus  # slow to import, and a server of WebSockets alone sends no page

        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = ""
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in _dated(self.headers)]
        has_body = self.status not in {204, 304}
        if has_body:
            lines.append(f"Content-Length: {len(self.content)}")
        if close:
            lines.append("Connection: close")
        head = "\r\n".join([*lines, "\r\n"]).encode("latin-1")
        return head + self.content if has_body and not head_only else head

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.content)} bytes>"


def _dated(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the header fields of a response with a Date, unless they have one (RFC 9110, section 6.6.1)."""
    from email.utils import formatdate  # slow to import

    fields = list(fields)
    if any(name.lower() == "date" for name, _ in fields):
        return fields
    return [("Date", formatdate(usegmt=True)), *fields]
