"""Who is connected: how many connections there are, in all and from each address, and whom there is no room for."""

import asyncio
import ipaddress
import logging
from collections import Counter
from typing import Any

from duck.http.request import ClientAddress

from .addresses import parse_address
from .limits import Limits

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["Census"]

logger = logging.getLogger("duck.server")

_RESERVE = 64  # files that a process has open beside its connections
_WARN_EVERY = 60.0  # seconds


class Census:
    """The connections of one server.

    Attributes:
        limit: Connections that there may be; None for no limit.
        per_address: Connections that there may be from each address; None for no limit.
        present: Connections that there are.
    """

    def __init__(self, limits: Limits) -> None:
        self.limit = limits.connections if limits.connections is not None else _files()
        self.per_address = limits.connections_per_address
        self.present = 0
        self._groups: Counter[Any] = Counter()
        self._warned = float("-inf")

    def enter(self, address: ClientAddress) -> bool:
        """Counts a connection in.

        Returns:
            Whether there is room for it. Where not, it has not been counted.
        """
        if self.limit is not None and self.present >= self.limit:
            self._warn(f"{self.limit} connections are open: more are refused")
            return False
        if self.per_address is not None:
            group = _group(address)
            if self._groups[group] >= self.per_address:
                self._warn(f"{group} has {self.per_address} connections: more from there are refused")
                return False
            self._groups[group] += 1
        self.present += 1
        return True

    def leave(self, address: ClientAddress) -> None:
        """Counts it out."""
        self.present -= 1
        if self.per_address is not None:
            group = _group(address)
            self._groups[group] -= 1
            if not self._groups[group]:
                del self._groups[group]

    def _warn(self, words: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            logger.warning("%s", words)


def _group(address: ClientAddress) -> str:
    """Whom an address belongs to: an IPv6 host has all the addresses of a network of 64 bits."""
    if not isinstance(address, tuple):
        return ""
    host = parse_address(address[0])
    if host.version == 6:
        return f"{ipaddress.IPv6Address(int(host) >> 64 << 64)}/64"
    return str(host)


def _files() -> int | None:
    """Connections that the limit of open files leaves room for."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else max(limit - _RESERVE, 1)
