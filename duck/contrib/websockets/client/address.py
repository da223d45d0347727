"""`Address`: the parts of a WebSocket URL that a client needs (RFC 6455, section 3), and the target of a redirect."""

import dataclasses
import re
from functools import cached_property, lru_cache
from urllib.parse import quote, unquote, urljoin

from ..credentials import basic_authorization, check_user, port_of, split_url, without_password

__all__ = ["Address"]

_SAFE = "%/:;=@!$&'()*+,?~-._[]"  # characters that are not escaped in a path or a query
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PORTS = {False: 80, True: 443}
_PRINTABLE = "".join(map(chr, range(33, 127)))
_BRACKETED = re.compile(r"\[[^]]*:[^]]*](:.*)?")  # an IPv6 address and a port
_FORBIDDEN = re.compile(r"[%<>[\\\]^|]")  # in names
# Hosts with one address, or with addresses that fail at once; uvloop cannot connect to an address with a zone.
_DIRECT = re.compile(r"[^%]*(:[^%]*|\.\d+)|localhost")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Address:
    """The address of a server.

    Attributes:
        secure: Whether the connection is encrypted: `wss`.
        host: A name in ASCII, or an IP address without brackets.
        port: The port number.
        target: Path and query, percent-encoded.
        credentials: User and password of the URL, or None.
    """

    secure: bool
    host: str
    port: int
    target: str
    credentials: tuple[str, str] | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Parses a URL.

        Args:
            url: `ws://` or `wss://`; `http` and `https` are synonyms of them. Non-ASCII host names are encoded by IDNA,
                and paths as UTF-8.

        Raises:
            TypeError: The URL is not a str.
            ValueError: The URL has another form or a fragment, or its host or port is invalid.
        """
        if not isinstance(url, str):
            raise TypeError(f"a URL is a str, not {url!r}")
        return _parse(url)

    @property
    def zoneless_host(self) -> str:
        """The host without the zone of an IPv6 address, which only this machine knows (RFC 6874, section 4)."""
        return self.host.partition("%")[0]

    @cached_property
    def is_direct(self) -> bool:
        """Whether the loop can connect to the host without Happy Eyeballs."""
        return _DIRECT.fullmatch(self.host) is not None

    @property
    def server_hostname(self) -> str:
        """The name that the certificate must have: without the final dot of an absolute name (RFC 6066, section 3)."""
        return self.zoneless_host.removesuffix(".")

    @cached_property  # an address serves many connections
    def netloc(self) -> str:
        """The value of Host."""
        host = f"[{self.zoneless_host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.secure] else f"{host}:{self.port}"

    @cached_property
    def url(self) -> str:
        """The whole URL, without credentials."""
        return f"{'wss' if self.secure else 'ws'}://{self.netloc}{self.target}"

    @property
    def authorization(self) -> str | None:
        """The value of Authorization for the credentials."""
        return None if self.credentials is None else basic_authorization(*self.credentials)

    def is_same_host(self, other: "Address") -> bool:
        """Whether credentials for this address may be sent to the other."""
        return self is other or (
            (self.host.lower(), self.port, self.secure) == (other.host.lower(), other.port, other.secure)
        )

    def redirected(self, location: str) -> "Address":
        """Returns the address in the Location of a redirect.

        Raises:
            ValueError: It is not a WebSocket URL, or leads from an encrypted connection to a plain one.
        """
        location = quote(location.encode("latin-1"), _PRINTABLE)  # spaces and UTF-8 occur in practice
        base = f"{'https' if self.secure else 'http'}://{self.netloc}{self.target}"
        target = Address.parse(urljoin(base, location).partition("#")[0])
        if target.host == self.zoneless_host:
            target = dataclasses.replace(target, host=self.host)
        if self.secure and not target.secure:
            raise ValueError(f"{location!r} leads from wss to ws, so the connection would not be encrypted any more")
        if target.credentials is None and self.is_same_host(target):
            target = dataclasses.replace(target, credentials=self.credentials)
        return target


def _host(name: str, place: str) -> str:
    """Returns the host of a URL as a name to resolve.

    Args:
        name: The host, without brackets.
        place: Host and port, with brackets. Before Python 3.12.9 and 3.13.2, `urlsplit` drops the text around them.

    Raises:
        ValueError: The name has a character that no name has, or a label is empty or too long.
    """
    if _BRACKETED.fullmatch(place):
        return name.replace("%25", "%", 1)  # the zone of an IPv6 address (RFC 6874)
    if not name.isascii():
        name = name.encode("idna").decode()
    if forbidden := _FORBIDDEN.search(place):
        raise ValueError(f"{forbidden[0]!r} is not allowed in a name")
    if ".." in name or name.startswith(".") or (len(name) > 63 and max(map(len, name.split("."))) > 63):
        raise ValueError("a label of the name is empty or has more than 63 characters")
    return name


@lru_cache  # parsing takes a tenth of a connect, and most programs connect to few URLs
def _parse(url: str) -> Address:
    if _UNPRINTABLE.search(url):
        raise ValueError(
            f"{without_password(url)!r} has a space, a control character or a lone surrogate: percent-encode it"
        )
    try:
        parts = split_url(url)
    except ValueError as error:  # brackets without an IPv6 address
        raise ValueError(f"{without_password(url)!r} is not a URL: {error}") from None
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None or not parts.hostname:
        raise ValueError(
            f"{without_password(url)!r} is not a WebSocket URL: write one such as 'wss://example.org/chat'"
        )
    if "#" in url:
        raise ValueError(
            f"{without_password(url)!r} has a fragment, which cannot be sent: remove it, or write %23 for #"
        )
    try:
        host = _host(parts.hostname, parts.netloc.rpartition("@")[2])
        port = port_of(parts)
    except (UnicodeError, ValueError) as error:
        raise ValueError(f"{without_password(url)!r} has an invalid host or port: {error}") from None
    secure = scheme == "wss"
    target = quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")
    credentials = None
    if parts.username is not None:
        credentials = unquote(parts.username), unquote(parts.password or "")
        check_user(credentials[0])
    return Address(secure, host, _PORTS[secure] if port is None else port, target, credentials)
