"""A client's proxies: the choice by the environment, and a socket through a proxy.

`tunnel` speaks HTTP CONNECT; the library python-socks, the extra `proxy`, speaks SOCKS.
"""

import os
import socket
import sys
import urllib.request
from typing import Any
from urllib.parse import SplitResult, unquote

from ..credentials import check_user, port_of, split_url, without_password
from ..logging import printable, text_of
from .address import Address
from .happy_eyeballs import connect_to
from .tunnel import open_tunnel

__all__ = ["ProxyError", "connect_through", "proxy_for"]

_VARIABLES = {False: ("ws", "http", "socks", "all"), True: ("wss", "https", "socks", "all")}

# The names in the environment of a POSIX system. Other spellings, such as Http_Proxy, are ignored.
_KEYS = frozenset(
    os.fsencode(variable)
    for names in _VARIABLES.values()
    for name in names
    for variable in (f"{name}_proxy", f"{name}_proxy".upper())
)

# The schemes of SOCKS proxies, with the type of the library, and whether the proxy resolves names.
_SOCKS = {
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
        ModuleNotFoundError: python-socks is not installed, and the proxy is one of SOCKS.
        ProxyError: The connection failed.
        ValueError: The URL is not that of a proxy.
    """
    try:
        scheme, parts = _parsed(proxy)
        port = port_of(parts)
        if parts.hostname is None or port is None:
            missing = "port" if parts.hostname else "host"
            raise ValueError(f"it has no {missing}; write one such as http://proxy.example:3128")
        parts.hostname.encode("idna")
        credentials = _credentials(scheme, parts)
    except ValueError as error:  # UnicodeError: a label of the name is empty or too long
        raise ValueError(f"{without_password(proxy)!r} is not the URL of a proxy: {error}") from None
    try:
        if scheme == "http":
            return await _through_http(parts.hostname, port, credentials, address)
        return await _through_socks(scheme, parts.hostname, port, credentials, address)
    except OSError as error:
        words = printable(text_of(error)[:_MOST_QUOTED])
        raise ProxyError(f"the proxy did not connect to {address.netloc}: {words}") from error


async def _through_http(host: str, port: int, credentials: tuple[str, str] | None, address: Address) -> socket.socket:
    sock = await connect_to(host, port)
    try:
        await open_tunnel(sock, address.zoneless_host, address.port, credentials)
    except BaseException:
        sock.close()
        raise
    return sock


async def _through_socks(
    scheme: str, host: str, port: int, credentials: tuple[str, str] | None, address: Address
) -> socket.socket:
    try:
        import python_socks
        from python_socks.async_.asyncio import Proxy
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a SOCKS proxy needs python-socks: pip install 'duck-websockets[proxy]'; no_proxy in the environment, or"
            " connect(..., proxy=None), avoids the proxy"
        ) from None
    kind, remote_lookup = _SOCKS[scheme]
    # `Proxy.from_url` ignores a user without a password, and so does python-socks as a whole before version 3.2.
    user, password = credentials or ("", "")
    through = Proxy(python_socks.ProxyType[kind], host, port, user, password, remote_lookup)
    try:
        return await through.connect(address.zoneless_host, address.port)
    except (python_socks.ProxyError, ValueError) as error:  # ValueError: the answer has a name that is not UTF-8
        raise OSError(text_of(error)) from error


def _parsed(proxy: str) -> tuple[str, SplitResult]:
    """Returns the scheme of a proxy's URL, http if there is none, and the URL as one of HTTP."""
    scheme, separator, rest = proxy.partition("://")
    if not separator:
        scheme, rest = "http", proxy
    if scheme.lower() not in ("http", *_SOCKS):
        raise ValueError("its scheme is not http, socks5, socks5h, socks4 or socks4a")
    return scheme.lower(), split_url(f"http://{rest}")


def _credentials(scheme: str, parts: SplitResult) -> tuple[str, str] | None:
    """Returns user and password of a proxy's URL, or None.

    Raises:
        ValueError: The protocol of the proxy cannot send them.
    """
    if not parts.username:
        return None
    user, password = unquote(parts.username), unquote(parts.password or "")
    if scheme == "http":
        check_user(user)
    elif not (user.isascii() and password.isascii() and max(len(user), len(password)) < 256):
        raise ValueError("user and password for SOCKS are ASCII, of at most 255 characters")
    return user, password
