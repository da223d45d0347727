"""`HttpRequest`: a request for a view, small enough to be kept as long as its WebSocket."""

import asyncio
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, overload

from .headers import HeaderField, Headers

__all__ = ["Headers", "HttpRequest"]

ClientAddress = tuple[str, int] | str | None

_LONGEST = 200  # characters of a target in the repr, which log lines contain


class HttpRequest:
    """The head of a request, and its connection.

    Attributes:
        method: The method as received, such as "GET".
        target: The request target as received, undecoded.
        path: The target's path, percent-decoded as UTF-8.
        query_string: The part of the target after "?", undecoded.
        http_version: "1.1" or "1.0".
        headers: The header fields.
        client_address: (host, port); the path of a Unix socket; None for a peer without a name.
        secure: Whether the connection is encrypted.
        transport: The connection; None if the server keeps it.
        content: The body of a POST request; the bytes received after the head of an upgrade request.
        application: An object whose `server` is the running server.
        scope: The ASGI scope after its middleware; None on the embedded server.
        responder: An `upgrade.Responder` of the server for the response to an upgrade request; None if the view writes
            the response to the transport.
        metrics: The `metrics.Metrics` of the server, which counts its connections; None for no counting.
    """

    __slots__ = (
        "_meta",
        "application",
        "client_address",
        "content",
        "headers",
        "http_version",
        "method",
        "metrics",
        "path",
        "query_string",
        "responder",
        "scope",
        "secure",
        "target",
        "transport",
    )

    def __init__(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Headers | Mapping[str, str] | Iterable[HeaderField] = (),
        *,
        http_version: str = "1.1",
        client_address: ClientAddress = None,
        secure: bool = False,
        transport: asyncio.Transport | None = None,
        content: bytes = b"",
        application: Any = None,
        scope: MutableMapping[str, Any] | None = None,
    ) -> None:
        """Describes a request. The arguments have the names of the attributes.

        Args:
            headers: `Headers`, a mapping, or pairs of name and value, str or bytes.

        Raises:
            ValueError: The target is not a URL, or a header field contains a control character.
        """
        self.method = method
        self.target = target
        self.path, self.query_string = _split(target)
        self.http_version = http_version
        if not isinstance(headers, Headers):
            fields: Any = headers.items() if isinstance(headers, Mapping) else headers
            headers = Headers(fields)
        self.headers = headers
        self.client_address = client_address
        self.secure = secure
        self.transport = transport
        self.content = content
        self.application = application
        self.scope = scope
        self.responder: Any = None
        self.metrics: Any = None
        self._meta: dict[str, Any] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The decoded query string, as a list of values for each name. Each access parses it again."""
        from urllib.parse import parse_qs  # slow to import, and most targets have no query

        return parse_qs(self.query_string, keep_blank_values=True)

    @property
    def form(self) -> dict[str, list[str]]:
        """The fields of a submitted HTML form, as a list of values for each name. Each access parses them again.

        Empty for a body of another type than `application/x-www-form-urlencoded`.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip(" \t").lower()
        if kind != "application/x-www-form-urlencoded":
            return {}
        from urllib.parse import parse_qs

        return parse_qs(self.content.decode(errors="replace"), keep_blank_values=True)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by their names (RFC 6265, section 4.2.1). Each access parses them again.

        Malformed cookies are omitted. Of several with the same name the first is used, because its path is the most
        specific.
        """
        found: dict[str, str] = {}
        for line in self.headers.getall("cookie"):
            for pair in line.split(";"):
                name, equals, value = pair.partition("=")
                if equals and (name := name.strip(" \t")):
                    value = value.strip(" \t")
                    quoted = len(value) > 1 and value[0] == value[-1] == '"'
                    found.setdefault(name, value[1:-1] if quoted else value)
        return found

    @property
    def META(self) -> dict[str, Any]:
        """Notes of a server or a view about this request; empty at first."""
        if self._meta is None:
            self._meta = {}
        return self._meta

    @property
    def client_socket(self) -> Any:
        """The transport's socket; None without a transport."""
        return self.transport.get_extra_info("socket") if self.transport else None

    @overload
    def get_header(self, name: str, default: str) -> str: ...

    @overload
    def get_header(self, name: str, default: str | None = None) -> str | None: ...

    def get_header(self, name: str, default: str | None = None) -> str | None:
        """Returns the value of a header field; see `Headers.get`."""
        return self.headers.get(name, default)

    def __repr__(self) -> str:
        target = self.target if len(self.target) <= _LONGEST else f"{self.target[:_LONGEST]}..."
        return f"<HttpRequest {self.method} {target!r}>"


def _split(target: str) -> tuple[str, str]:
    """Returns the decoded path and the raw query of a request target (RFC 9112, section 3.2)."""
    if "://" in target and not target.startswith("/"):
        from urllib.parse import urlsplit

        url = urlsplit(target)
        path, query = url.path or "/", url.query
    else:
        # urlsplit() would parse "//name/..." as a host.
        path, _, query = target.partition("#")[0].partition("?")
    if "%" in path:
        from urllib.parse import unquote

        path = unquote(path, errors="replace")
    return path, query
