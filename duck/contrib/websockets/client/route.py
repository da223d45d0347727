"""The way from a client to a server: the options of a connection that are not settings, checked as they are given."""

import socket
import ssl as tls
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from .address import Address
from .options import Headers, advice_on

__all__ = ["Route", "pairs_of"]

# Fields for the host of the user's URL alone.
_PERSONAL = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
_LONGEST_NAME = 255  # bytes of a host name in TLS


def pairs_of(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Returns header fields as pairs, for repeated use: after a redirect, or by the next connection.

    Raises:
        TypeError: The fields are not pairs of str.
    """
    if headers == ():
        return ()
    given: Any = headers.items() if isinstance(headers, Mapping) else headers
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"headers are a mapping of names to values, or pairs of them, not {given!r}")
    pairs = tuple(given)
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(word, str) for word in pair)):
            raise TypeError(f"a header field is a name and a value, both str, not {pair!r}")
    return pairs


def _instance(name: str, types: tuple[type, ...], words: str) -> Callable[[Any], Any]:
    """Returns a check for the instances of some types."""

    def check(value: Any) -> Any:
        if not isinstance(value, types):
            raise TypeError(f"{name} is {words}, not {value!r}")
        return value

    return check


_a_context = _instance("ssl", (tls.SSLContext, bool, NoneType), "an ssl.SSLContext, False or None")
_a_hostname = _instance("server_hostname", (str, NoneType), "a str or None")
_a_socket = _instance("sock", (socket.socket, NoneType), "a connected socket.socket")


def _ssl(value: Any) -> Any:
    if isinstance(_a_context(value), tls.SSLContext) and value.protocol == tls.PROTOCOL_TLS_SERVER:
        raise ValueError("ssl is the context of a server: a client has one of ssl.create_default_context()")
    return value


def _server_hostname(value: Any) -> Any:
    try:
        encoded = (_a_hostname(value) or "").encode("idna")
    except UnicodeError as error:
        raise ValueError(f"server_hostname is not a name: {error}: {value!r}") from None
    if b"\0" in encoded or len(encoded) > _LONGEST_NAME:
        raise ValueError(f"server_hostname is not a name, which has no NUL and at most 255 characters: {value!r}")
    return value


def _sock(value: Any) -> Any:
    if isinstance(_a_socket(value), tls.SSLSocket):  # a loop cannot read it
        raise TypeError(f"sock is a socket without TLS, which a URL with wss adds, not {value!r}")
    return value


def _cookies(value: Any) -> Any:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"cookies are a mapping of names to values, not {value!r}")
    cookies = {name: getattr(content, "coded_value", content) for name, content in value.items()}  # of a Morsel
    for name, content in cookies.items():
        if ";" in f"{name}{content}" or "=" in str(name):
            raise ValueError(f"the cookie {name!r}: {content!r} would be misread: percent-encode ; and =")
    return cookies


def _redirects(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"max_redirects is a number of redirects, 0 or more, not {value!r}")
    return value


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "ssl": _ssl,
    "server_hostname": _server_hostname,
    "unix": _instance("unix", (object,), "a path"),
    "sock": _sock,
    "proxy": _instance("proxy", (str, bool, NoneType), "a URL, True for the environment's, or None for none"),
    "headers": pairs_of,
    "origin": _instance("origin", (str, NoneType), "a str or None"),
    "cookies": _cookies,
    "user_agent": _instance("user_agent", (str, NoneType), "a str or None"),
    "max_redirects": _redirects,
}
"""The options of a route, and for each a function that checks a value, and returns it as the route keeps it."""


class Route:
    """The way to a server; `Options` explains each attribute. It does not change.

    Args:
        options: The given options, which are checked. The others have the defaults of the class.

    Raises:
        TypeError: An option is unknown, or has the wrong type.
        ValueError: An option is out of bounds, or two contradict each other.
    """

    ssl: tls.SSLContext | bool | None = None
    server_hostname: str | None = None
    unix: str | None = None
    sock: socket.socket | None = None
    proxy: str | bool | None = True
    headers: Sequence[tuple[str, str]] = ()
    origin: str | None = None
    cookies: Mapping[str, str] = {}
    user_agent: str | None = "duck-websockets"
    max_redirects: int = 5

    def __init__(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if name not in _CHECKS:
                advice = advice_on(name) or "see duck.contrib.websockets.client.Options"
                raise TypeError(f"{name!r} is not an option of a client: {advice}")
            setattr(self, name, _CHECKS[name](value))
        if len(options) > 1:
            self._check_pairs()

    def _check_pairs(self) -> None:
        """Checks that no options contradict each other."""
        ways = ("unix", self.unix), ("sock", self.sock), ("proxy", isinstance(self.proxy, str) and self.proxy)
        chosen = [name for name, value in ways if value]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} are different ways to a server: choose one")
        if self.origin is not None and any(name.lower() == "origin" for name, _ in self.headers):
            raise ValueError("both origin and headers have an Origin: leave one out")

    def fields(self, address: Address, is_first: bool) -> Sequence[tuple[str, str]]:
        """Returns the header fields of a request, except its User-Agent.

        Args:
            address: The address of the request.
            is_first: Whether the host is that of the user's URL, not of a redirect; only then private fields are sent.
        """
        given = self.headers
        if not is_first:
            given = [(name, value) for name, value in given if name.lower() not in _PERSONAL]
        if self.origin is None and not self.cookies and address.credentials is None:
            return given
        names = {name.lower() for name, _ in given}
        fields = []
        if self.origin is not None:
            fields.append(("Origin", self.origin))
        if address.authorization is not None and "authorization" not in names:
            fields.append(("Authorization", address.authorization))
        if is_first and self.cookies:
            cookies = [f"{name}={value}" for name, value in self.cookies.items()]
            if "cookie" in names:  # there is only one such field (RFC 6265, section 5.4)
                cookies = [value for name, value in given if name.lower() == "cookie"] + cookies
                given = [(name, value) for name, value in given if name.lower() != "cookie"]
            fields.append(("Cookie", "; ".join(cookies)))
        return [*fields, *given]
