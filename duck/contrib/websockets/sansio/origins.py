"""Origins of pages (RFC 6454) and host names, and the sets of allowed ones."""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

__all__ = ["AllowedOrigins", "HostPatterns", "Origin", "allowed_origins", "host_of", "is_allowed", "origin_of"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB = {"ws": "http", "wss": "https"}  # some clients send the scheme of the connection, not of the page

_SCHEME = r"([a-z][a-z0-9+.-]*)://"
_HOST = r"(\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()+;=-]+)"
_PORT = r"(?::([0-9]{0,5}))?"
_AUTHORITY = re.compile(_HOST + _PORT)
_ORIGIN = re.compile(_SCHEME + _HOST + _PORT)
_ENTRY = re.compile(_SCHEME + r"(\*\.)?" + _HOST + r"(?::([0-9]{1,5}))?/?")

# Origins of pages without a host: sandboxed frames and data: URLs in all browsers, local files in some.
_OPAQUE = frozenset({"null", "file://"})

_MOST_CACHED = 512  # characters of a cached pair of origin and host


class Origin(NamedTuple):
    """Scheme, host and port in normalized form.

    Attributes:
        port: None for the default of a scheme other than http and https.
    """

    scheme: str
    host: str
    port: int | None


def origin_of(text: str) -> Origin | None:
    """Parses the value of an Origin field in lower case; returns None for an invalid value."""
    match = _ORIGIN.fullmatch(text)
    return None if match is None else _origin(*match.groups())


def host_of(text: str, scheme: str) -> Origin | None:
    """Returns the origin of a scheme and a Host field's value in lower case; None for an invalid value."""
    match = _AUTHORITY.fullmatch(text)
    return None if match is None else _origin(scheme, *match.groups())


def _origin(scheme: str, host: str, port: str | None) -> Origin | None:
    scheme = _WEB.get(scheme, scheme)
    number = int(port) if port else _DEFAULT_PORTS.get(scheme)
    if number is not None and number > 65535:
        return None
    if host[0] == "[":
        import ipaddress  # slow to import, and needed only for such hosts

        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    return Origin(scheme, host, number)


class HostPatterns:
    """A set of host names. `*.name` contains the subdomains of a name at any depth, never the name itself.

    Args:
        names: Names and patterns in lower case.
    """

    __slots__ = ("_names", "_suffixes")

    def __init__(self, names: Iterable[str]) -> None:
        names = set(names)
        self._names = frozenset(name for name in names if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))

    def __contains__(self, host: str) -> bool:
        return host in self._names or (host.endswith(self._suffixes) and not host.startswith("."))


class AllowedOrigins:
    """The set of origins of a list such as `ALLOWED_ORIGINS`.

    Args:
        entries: `scheme://host`, with a port other than the default one; `scheme://*.host` for subdomains; `null` and
            `file://` for pages without a host; `*` for all.

    Raises:
        TypeError: The entries are one str, or an entry is not a str.
        ValueError: An entry cannot be the origin of a page. The message gives a valid form.
    """

    __slots__ = ("_all", "_hosts", "_opaque")

    def __init__(self, entries: Collection[str]) -> None:
        hosts: dict[tuple[str, int | None], set[str]] = {}
        opaque = set()
        for entry in checked_names(entries, "origins", "https://example.org"):
            text = entry.lower()
            if text == "*" or text in _OPAQUE:
                opaque.add(text)
                continue
            scheme, host, port = _entry(text)
            hosts.setdefault((scheme, port), set()).add(host)
        self._all = "*" in opaque
        self._opaque = frozenset(opaque)
        self._hosts = {where: HostPatterns(names) for where, names in hosts.items()}

    def __contains__(self, text: str) -> bool:
        """Whether the set contains an origin, given as the value of an Origin field in lower case."""
        if self._all or text in self._opaque:
            return True
        origin = origin_of(text)
        return origin is not None and origin.host in self._hosts.get((origin.scheme, origin.port), ())


def _entry(text: str) -> Origin:
    """Parses an entry in lower case; the host of the result may be a pattern."""
    match = _ENTRY.fullmatch(text)
    origin = None if match is None else _origin(match[1], match[3], match[4])
    if match is None or origin is None or not _is_possible(origin, match[2]):
        raise ValueError(f"has {text!r}, which cannot be the origin of a page: {_advice(text)}")
    return origin._replace(host=(match[2] or "") + origin.host)


def _is_possible(origin: Origin, wildcard: str | None) -> bool:
    """Whether a page can have such an origin. A file has no host, and an address has no subdomains."""
    if origin.scheme == "file" or origin.port == 0:
        return False
    if wildcard is None:
        return True
    return ":" not in origin.host and not origin.host.rpartition(".")[2].isdigit() and origin.host[0] != "."


def _advice(text: str) -> str:
    if "://" not in text:
        return f"write its scheme too, as in 'https://{text.lstrip('/').partition('/')[0] or 'example.org'}'"
    if text.startswith("file:"):
        return "write 'file://' for files"
    if not text.isascii():
        return "write its host as browsers send it, in ASCII, as in 'https://xn--bcher-kva.example'"
    scheme, _, rest = text.partition("://")
    authority = re.split(r"[/?#]", rest)[0].rpartition("@")[2]
    plain = f"{scheme}://{authority}"
    if plain != text and _ENTRY.fullmatch(plain):
        return f"write only scheme, host and port, as in {plain!r}"
    return "write 'https://example.org', 'https://example.org:8443', or 'https://*.example.org' for its subdomains"


def checked_names(names: object, kind: str, example: str) -> Collection[str]:
    """Returns `names` if it is a collection of str. A single str is refused, although it contains str.

    Raises:
        TypeError: `names` is not such a collection. The message gives a valid form.
    """
    if isinstance(names, str):
        raise TypeError(f"is a list of {kind}, not one str: write [{names!r}]")
    if not isinstance(names, Collection) or isinstance(names, (bytes, bytearray, memoryview)):
        raise TypeError(f"is a list of {kind}, such as [{example!r}], not {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"is a list of {kind}, each a str such as {example!r}, and not {name!r}")
    return names


@lru_cache(maxsize=64)
def _compiled(entries: tuple[str, ...]) -> AllowedOrigins:
    return AllowedOrigins(entries)


def allowed_origins(entries: Collection[str]) -> AllowedOrigins:
    """Returns the `AllowedOrigins` of a list, cached by its entries; raises the same errors."""
    return _compiled(tuple(checked_names(entries, "origins", "https://example.org")))


def is_allowed(request: "HttpRequest", allowed: Sequence[str] | None = None) -> bool:
    """Whether the page that sent a request may connect; foreign pages could act for their visitor (CWE-1385).

    Args:
        request: Only its headers and `secure` are used. A request without Origin is not from a browser, and is allowed.
        allowed: The entries of an `AllowedOrigins`; None for the origin of the request's own host.
    """
    field = request.headers.get("origin")
    if field is None:
        return True
    origin = field.strip(" \t").lower()
    if not origin:
        return True
    if allowed is not None:
        return origin in allowed_origins(allowed)
    host = request.headers.get("host", "").strip(" \t").lower()
    is_cached = len(origin) + len(host) <= _MOST_CACHED
    check = _is_same_origin if is_cached else _is_same_origin.__wrapped__
    return check(origin, host, request.secure)


@lru_cache  # most browsers come from the same few origins
def _is_same_origin(origin: str, host: str, secure: bool) -> bool:
    """Whether a host serves pages of this origin.

    A page may be served over TLS that ends at a proxy, so `https` may meet a plain connection, but never the reverse.

    Args:
        origin: The value of Origin in lower case.
        host: The value of Host in lower case.
        secure: Whether the connection is encrypted.
    """
    page = origin_of(origin)
    if page is None or page.scheme not in ("http", "https") or (secure and page.scheme != "https"):
        return False
    return page == host_of(host, page.scheme)
