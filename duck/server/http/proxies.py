"""`Proxies`: the client of a request as reported by trusted proxies (X-Forwarded-For, -Proto, -Host, or Forwarded)."""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from duck.http.headers import Headers
from duck.http.request import ClientAddress

from ..addresses import parse_address, parse_node
from .forwarded import parse_forwarded

__all__ = ["Client", "Proxies"]

_X_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")

_HOST = re.compile(r"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Client(NamedTuple):
    """The client behind the proxies.

    Attributes:
        address: The address of the client; port 0 if no proxy reports it.
        secure: Whether the client's connection is encrypted.
        headers: The headers of the request, with the Host of the client.
    """

    address: ClientAddress
    secure: bool
    headers: Headers


class Proxies:
    """The trusted proxies.

    Args:
        trusted: IP addresses or networks of proxies, such as `127.0.0.1` and `10.0.0.0/8`; `unix` for clients of a Unix
            socket.

    Raises:
        ValueError: An entry is none of these.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        names = {trusted} if isinstance(trusted, str) else set(trusted)
        self._unix = "unix" in names
        try:
            self._networks = [ipaddress.ip_network(name) for name in names - {"unix"}]
        except ValueError as error:
            raise ValueError(f"a trusted proxy is an IP address, a network or unix: {error}") from None

    def client(self, peer: ClientAddress, headers: Headers, secure: bool) -> Client:
        """Returns the client of a request, and its requested Host.

        If any of X-Forwarded-For, -Proto or -Host is present, Forwarded is ignored: most proxies that set the former
        pass on the client's own Forwarded.

        Args:
            peer: The peer of this server.
            headers: The headers of the request.
            secure: Whether the connection to this server is encrypted.

        Returns:
            The client. Its address is the last in the chain of proxies that is not itself a trusted proxy's, because
            the client can forge all earlier ones.
        """
        if not self.trusts(peer):
            return Client(peer, secure, headers)
        if any(name in headers for name in _X_FORWARDED):
            return self._by_x_forwarded(peer, headers, secure)
        return self._by_forwarded(peer, headers, secure)

    def _by_x_forwarded(self, peer: ClientAddress, headers: Headers, secure: bool) -> Client:
        proto, host = (headers.get(name, "").rpartition(",")[2].strip() for name in _X_FORWARDED[1:])
        for name in reversed(headers.get("x-forwarded-for", "").split(",")):
            try:
                peer = parse_node(name.strip())
            except ValueError:
                break
            if not self.trusts(peer):
                break
        return Client(peer, _is_secure(proto, secure), _with_host(headers, host))

    def _by_forwarded(self, peer: ClientAddress, headers: Headers, secure: bool) -> Client:
        """Returns the client as reported by the outermost trusted proxy, to which the client is connected."""
        host = ""
        for element in parse_forwarded(headers.get("forwarded", "")):
            secure = _is_secure(element.get("proto", ""), secure)
            host = element.get("host", host)
            try:
                peer = parse_node(element.get("for", ""))
            except ValueError:
                break
            if not self.trusts(peer):
                break
        return Client(peer, secure, _with_host(headers, host))

    def trusts(self, peer: ClientAddress) -> bool:
        """Whether the peer is a trusted proxy."""
        if not isinstance(peer, tuple):
            return self._unix
        address = parse_address(peer[0])
        return any(address in network for network in self._networks)


def _is_secure(proto: str, otherwise: bool) -> bool:
    proto = proto.lower()
    return proto in ("https", "wss") if proto in ("https", "wss", "http", "ws") else otherwise


def _with_host(headers: Headers, host: str) -> Headers:
    """Returns the headers with the Host reported for the client; unchanged if none is reported."""
    if _HOST.fullmatch(host) is None:
        return headers
    return Headers([("host", host), *(field for field in headers.items() if field[0] != "host")])
