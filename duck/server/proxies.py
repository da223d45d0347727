"""What a trusted proxy says of the client behind it, in `X-Forwarded-For`, `-Proto` and `-Host`, or in `Forwarded`."""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from duck.http.headers import Headers
from duck.http.request import ClientAddress

from .addresses import parse_address, parse_node
from .forwarded import parse_forwarded

__all__ = ["Client", "Proxies"]

_X_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")

_HOST = re.compile(r"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Client(NamedTuple):
    """The client behind the proxies.

    Attributes:
        address: Its address; the port is 0 where no proxy tells it.
        secure: Whether its connection is encrypted.
        headers: Those of its request, with the Host that it has asked for.
    """

    address: ClientAddress
    secure: bool
    headers: Headers


class Proxies:
    """The proxies whose word is taken.

    Args:
        trusted: Their IP addresses or networks, such as `127.0.0.1` and `10.0.0.0/8`; `unix` for whoever comes by a
            Unix socket.

    Raises:
        ValueError: One of them is none of these.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        names = {trusted} if isinstance(trusted, str) else set(trusted)
        self._unix = "unix" in names
        try:
            self._networks = [ipaddress.ip_network(name) for name in names - {"unix"}]
        except ValueError as error:
            raise ValueError(f"a trusted proxy is an IP address, a network or unix: {error}") from None

    def client(self, peer: ClientAddress, headers: Headers, secure: bool) -> Client:
        """The client that a request is from, and what it has asked for.

        Where there are fields X-Forwarded-For, -Proto or -Host they hold, and Forwarded is not looked at: most proxies
        that set the first pass on the second as the client has written it.

        Args:
            peer: Who is connected to us.
            headers: Those of the request.
            secure: Whether the connection to us is encrypted.

        Returns:
            What is known of the client: of the addresses that a chain of proxies names, the last that is not a trusted
            proxy's itself, for the client can have made up those before.
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
        """By what the outermost trusted proxy says: it is the one that the client has spoken to."""
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
        """Whether it is one of them."""
        if not isinstance(peer, tuple):
            return self._unix
        address = parse_address(peer[0])
        return any(address in network for network in self._networks)


def _is_secure(proto: str, otherwise: bool) -> bool:
    proto = proto.lower()
    return proto in ("https", "wss") if proto in ("https", "wss", "http", "ws") else otherwise


def _with_host(headers: Headers, host: str) -> Headers:
    """The headers with the Host that the client has asked for; as they are where that is none."""
    if _HOST.fullmatch(host) is None:
        return headers
    return Headers([("host", host), *(field for field in headers.items() if field[0] != "host")])
