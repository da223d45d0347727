"""What a trusted proxy says of the client behind it, in `X-Forwarded-For` and `X-Forwarded-Proto`."""

import ipaddress
from collections.abc import Iterable

from duck.http.headers import Headers
from duck.http.request import ClientAddress

from .addresses import parse_address

__all__ = ["Proxies"]


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

    def client(self, peer: ClientAddress, headers: Headers, secure: bool) -> tuple[ClientAddress, bool]:
        """The client that a request is from: its address, and whether its connection is encrypted.

        Args:
            peer: Who is connected to us.
            headers: Those of the request.
            secure: Whether the connection to us is encrypted.

        Returns:
            What is known of the client: of the addresses that a chain of proxies names, the last that is not a trusted
            proxy's itself, for the client can have made up those before. Its port is not known, and 0.
        """
        if not self._trusts(peer):
            return peer, secure
        proto = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        if proto in ("https", "wss", "http", "ws"):
            secure = proto in ("https", "wss")
        for name in reversed(headers.get("x-forwarded-for", "").split(",")):
            try:
                peer = (str(parse_address(name.strip())), 0)
            except ValueError:
                break
            if not self._trusts(peer):
                break
        return peer, secure

    def _trusts(self, peer: ClientAddress) -> bool:
        if not isinstance(peer, tuple):
            return self._unix
        address = parse_address(peer[0])
        return any(address in network for network in self._networks)
