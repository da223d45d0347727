"""A client's proxies: the choice by the environment, and a socket through a proxy.

The library python-socks, the extra `proxy`, speaks SOCKS and HTTP CONNECT.
"""

import os
import socket
import sys
import urllib.request
from typing import Any
from urllib.parse import SplitResult, unquote

from ..credentials import port_of, split_url, without_password
from ..logging import printable
from .address import Address

__all__ = ["ProxyError", "connect_through", "proxy_for"]

_VARIABLES = {False: ("ws", "http", "socks", "all"), True: ("wss", "https", "socks", "all")}

# The names in the environment of a POSIX system. Other spellings, such as Http_Proxy, are ignored.
_KEYS = frozenset(
    os.fsencode(variable)
    for names in _VARIABLES.values()
    for name in names
    for variable in (f"{name}_proxy", f"{name}_proxy".upper())
)

# The schemes of proxies, with the type of the library, and whether the proxy resolves names.
_SCHEMES = {
    "http": ("HTTP", None),
    "socks": ("SOCKS5", None),
    "socks4": ("SOCKS4", None),
    "socks4a": ("SOCKS4", True),
    "socks5": ("SOCKS5", None),
    "socks5h": ("SOCKS5", True),
}

_MOST_QUOTED = 200  # characters of a proxy's answer that are quoted in the error


class ProxyError(OSError):
    """A proxy was unreachable, or rejected the connection."""


def proxy_for(address: Address) -> str | None:
    """Returns the URL of the environment's proxy for an address, or None.

    The variables are those of urllib: `https_proxy` for `wss`, `http_proxy` for `ws`, then `socks_proxy` and
    `all_proxy`, except for the hosts of `no_proxy`. `wss_proxy` and `ws_proxy` precede all of them.
    """
    if not _may_have_proxies():
        return None
    proxies = urllib.request.getproxies()
    found = next((proxies[name] for name in _VARIABLES[address.secure] if proxies.get(name)), None)
    if found is None or urllib.request.proxy_bypass(f"{address.host}:{address.port}"):
        return None
    return found


def _may_have_proxies() -> bool:
    """Whether urllib might find a proxy. Its search through all variables costs a quarter of a connect."""
    variables: Any = getattr(os.environ, "_data", None)  # a missing name in os.environ would cost 10 000 instructions
    if sys.platform in ("darwin", "win32") or type(variables) is not dict:  # the system has proxy settings too
        return True
    return not variables.keys().isdisjoint(_KEYS)


async def connect_through(proxy: str, address: Address) -> socket.socket:
    """Connects to an address through a proxy; returns the socket.

    Args:
        proxy: `http://host:port`, `socks5://host:port` or `socks4://host:port`, with user and password if required.
            With `socks5h` and `socks4a` the proxy resolves the name.

    Raises:
        ModuleNotFoundError: python-socks is not installed.
        ProxyError: The connection failed.
        ValueError: The URL is not that of a proxy.
    """
    try:
        import python_socks
        from python_socks.async_.asyncio import Proxy
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a proxy needs python-socks: pip install 'duck-websockets[proxy]'; no_proxy in the environment, or"
            " connect(..., proxy=None), avoids the proxy"
        ) from None
    try:
        scheme, parts = _parsed(proxy)
        port = port_of(parts)
        if parts.hostname is None or port is None:
            missing = "port" if parts.hostname else "host"
            raise ValueError(f"it has no {missing}; write one such as http://proxy.example:3128")
        parts.hostname.encode("idna")
    except ValueError as error:  # UnicodeError: a label of the name is empty or too long
        raise ValueError(f"{without_password(proxy)!r} is not the URL of a proxy: {error}") from None
    kind, remote_lookup = _SCHEMES[scheme]
    # `Proxy.from_url` ignores a user without a password, and so does python-socks as a whole before version 3.2.
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    through = Proxy(python_socks.ProxyType[kind], parts.hostname, port, user, password, remote_lookup)
    try:
        return await through.connect(address.zoneless_host, address.port)
    except (python_socks.ProxyError, python_socks.ProxyConnectionError, python_socks.ProxyTimeoutError) as error:
        words = printable(str(error)[:_MOST_QUOTED])
        raise ProxyError(f"the proxy did not connect to {address.netloc}: {words}") from error


def _parsed(proxy: str) -> tuple[str, SplitResult]:
    """Returns the scheme of a proxy's URL, http if there is none, and the URL as one of HTTP."""
    scheme, separator, rest = proxy.partition("://")
    if not separator:
        scheme, rest = "http", proxy
    if scheme.lower() not in _SCHEMES:
        raise ValueError("its scheme is not http, socks5, socks5h, socks4 or socks4a")
    return scheme.lower(), split_url(f"http://{rest}")
