"""Who is connected: how many connections there are, in all and from each address, and whom there is no room for."""

import asyncio
import ipaddress
import logging
from collections import Counter

from duck.http.request import ClientAddress

from .addresses import parse_address
from .limits import Limits

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["Census", "Place"]

logger = logging.getLogger("duck.server")

_RESERVE = 64  # files that a process has open beside its connections
_WARN_EVERY = 60.0  # seconds


class Place:
    """The place of a connection that counts as nobody's: all of them may have the same."""

    __slots__ = ("_census",)

    def __init__(self, census: "Census") -> None:
        self._census = census

    def move(self, address: ClientAddress) -> bool:
        """Makes it a connection from another address, as a proxy tells.

        Returns:
            Whether there is room for it. Where not, it counts as nobody's.
        """
        return True

    def part(self) -> None:
        """Makes it nobody's."""

    def leave(self) -> None:
        """Counts the connection out."""
        self._census.present -= 1


class _OwnPlace(Place):
    """The place of a connection from some address."""

    __slots__ = ("_group",)

    def __init__(self, census: "Census") -> None:
        super().__init__(census)
        self._group: str | None = None

    def move(self, address: ClientAddress) -> bool:
        group = _group(address)
        if group != self._group:
            self.part()
            if not self._census.join(group):
                return False
            self._group = group
        return True

    def leave(self) -> None:
        super().leave()
        self.part()

    def part(self) -> None:
        if self._group is not None:
            self._census.part(self._group)
            self._group = None


class Census:
    """The connections of one server.

    Attributes:
        limit: Connections that there may be; None for no limit.
        per_address: Connections that there may be from each address; None for no limit.
        present: Connections that there are.
        anywhere: The place of all connections where their addresses do not matter.
    """

    def __init__(self, limits: Limits) -> None:
        self.limit = limits.connections if limits.connections is not None else _files()
        self.per_address = limits.connections_per_address
        self.present = 0
        self.anywhere = Place(self)
        self._groups: Counter[str] = Counter()
        self._warned = float("-inf")

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another connection from anywhere."""
        return self.limit is not None and self.present >= self.limit

    def enter(self) -> Place | None:
        """Counts a connection in, as nobody's until it moves.

        Returns:
            Its place; None where there is no room for it, and it has not been counted.
        """
        if self.is_full:
            self._warn(f"{self.limit} connections are open: more are refused")
            return None
        self.present += 1
        return self.anywhere if self.per_address is None else _OwnPlace(self)

    def join(self, group: str) -> bool:
        """Counts a connection as one of a group's.

        Returns:
            Whether there is room for it. Where not, it has not been counted.
        """
        if self.per_address is not None and self._groups[group] >= self.per_address:
            self._warn(f"{group or 'the Unix socket'} has {self.per_address} connections: more from there are refused")
            return False
        self._groups[group] += 1
        return True

    def part(self, group: str) -> None:
        """Counts it out of the group."""
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
