"""`AllowedHosts`: the names by which clients may address a server; and the check of `allowed_origins`.

The owner of a page can let the name of its host resolve to any address, including that of a server on the visitor's
machine or network (DNS rebinding). For the browser the page and the server then have the same origin. Only the name in
the request's Host shows that the request is not meant for the server.
"""

import ipaddress
from collections.abc import Collection

from duck.contrib.websockets.sansio.origins import AllowedOrigins, HostPatterns, checked_names, host_of

__all__ = ["AllowedHosts", "checked_origins"]


class AllowedHosts:
    """The host names of a server, on any port.

    Args:
        names: Names and IP addresses, such as `localhost` and `127.0.0.1`; `*.example.org` for subdomains.

    Raises:
        TypeError, ValueError: An entry is none of these; the message gives a valid form.
    """

    def __init__(self, names: Collection[str]) -> None:
        try:
            self._patterns = HostPatterns(map(_host, checked_names(names, "hosts", "localhost")))
        except (TypeError, ValueError) as error:
            raise type(error)(f"allowed_hosts {error}") from None

    def __contains__(self, field: str) -> bool:
        """Whether the value of a Host field is one of the names."""
        host = host_of(field.lower(), "http")
        return host is not None and host.host.removesuffix(".") in self._patterns


def _host(name: str) -> str:
    """Normalizes a name for comparison."""
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    plain = name.lower().removesuffix(".")
    base = plain.removeprefix("*.")
    origin = host_of(base, "http")
    if origin is not None and origin.host == base and base[0] != ".":
        return plain
    advice = "write 'localhost', '127.0.0.1', or '*.example.org' for its subdomains"
    if "/" in name or (origin is not None and origin.host != base):
        advice = "write its name alone, without scheme and port"
    elif not name.isascii():
        advice = "write it as browsers send it, in ASCII, as in 'xn--bcher-kva.example'"
    raise ValueError(f"has {name!r}, which is not a host: {advice}")


def checked_origins(origins: Collection[str]) -> Collection[str]:
    """Checks origins for use as a view's `ALLOWED_ORIGINS`.

    Raises:
        TypeError, ValueError: The origins are invalid; the message gives a valid form.
    """
    try:
        AllowedOrigins(origins)
    except (TypeError, ValueError) as error:
        raise type(error)(f"allowed_origins {error}") from None
    return origins
