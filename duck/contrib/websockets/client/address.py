"""The parts of a WebSocket URL that a client needs (RFC 6455, section 3), and the resolution of redirects."""

import base64
import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

__all__ = ["Address"]

_SAFE = "%/:;=@!$&'()*+,?~-._[]"  # characters that are not escaped in a path or a query
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PORTS = {False: 80, True: 443}


class Address(NamedTuple):
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
    credentials: tuple[str, str] | None = None

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Parses a URL.

        Args:
            url: `ws://` or `wss://`; `http` and `https` mean the same. Non-ASCII host names are encoded by IDNA, and
                paths as UTF-8.

        Raises:
            ValueError: The URL is of another form, has a fragment, or its host or port is impossible.
        """
        if re.search(r"[\x00-\x20\x7f]", url):
            raise ValueError(f"{url!r} has a space or a control character: percent-encode it")
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme.lower())
        if scheme is None or not parts.hostname:
            raise ValueError(f"{url!r} is no WebSocket URL, such as 'wss://example.org/chat'")
        if "#" in url:
            raise ValueError(f"{url!r} has a fragment, which cannot be sent: remove it, or write %23 for #")
        try:
            host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
            port = parts.port
        except (UnicodeError, ValueError) as error:
            raise ValueError(f"{url!r} has a host or port that cannot be: {error}") from None
        secure = scheme == "wss"
        target = quote(parts.path or "/", _SAFE) + (f"?{quote(parts.query, _SAFE)}" if parts.query else "")
        credentials = None
        if parts.username is not None:
            credentials = unquote(parts.username), unquote(parts.password or "")
        return cls(secure, host, _PORTS[secure] if port is None else port, target, credentials)

    @property
    def netloc(self) -> str:
        """The value of Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.secure] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, without credentials."""
        return f"{'wss' if self.secure else 'ws'}://{self.netloc}{self.target}"

    @property
    def authorization(self) -> str | None:
        """The value of Authorization for the credentials (RFC 7617)."""
        if self.credentials is None:
            return None
        return "Basic " + base64.b64encode(":".join(self.credentials).encode()).decode()

    def is_same_host(self, other: "Address") -> bool:
        """Whether credentials for this address may be sent to the other."""
        return (self.host.lower(), self.port, self.secure) == (other.host.lower(), other.port, other.secure)

    def redirected(self, location: str) -> "Address":
        """Returns the address in the Location of a redirect.

        Raises:
            ValueError: It is no WebSocket URL, or leads from an encrypted connection to a plain one.
        """
        base = f"{'https' if self.secure else 'http'}://{self.netloc}{self.target}"
        target = Address.parse(urljoin(base, location).partition("#")[0])
        if self.secure and not target.secure:
            raise ValueError(f"{location!r} leads from wss to ws, which would not be encrypted any more")
        if target.credentials is None and self.is_same_host(target):
            target = target._replace(credentials=self.credentials)
        return target
