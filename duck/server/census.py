"""The limits on the number of connections, in total and per address (`Limits.connections`)."""

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

_RESERVE = 64  # files that a process opens besides its connections
_WARN_EVERY = 60.0  # seconds


class Place:
    """The place of a connection without an address. All such connections may share one."""

    __slots__ = ("_census",)

    def __init__(self, census: "Census") -> None:
        self._census = census

    def move(self, address: ClientAddress) -> bool:
        """Assigns the connection to another address, as named by a proxy.

        Returns:
            Whether that address has room. If not, the connection counts for no address.
        """
        return True

    def detach(self) -> None:
        """Detaches the connection from its address."""

    def leave(self) -> None:
        """Removes the connection from the count."""
        self._census.present -= 1


class _OwnPlace(Place):
    """The place of a connection with an address."""

    __slots__ = ("_group",)

    def __init__(self, census: "Census") -> None:
        super().__init__(census)
        self._group: str | None = None

    def move(self, address: ClientAddress) -> bool:
        group = _group(address)
        if group != self._group:
            self.detach()
            if not self._census.join(group):
                return False
            self._group = group
        return True

    def leave(self) -> None:
        super().leave()
        self.detach()

    def detach(self) -> None:
        if self._group is not None:
            self._census.part(self._group)
            self._group = None


class Census:
    """The connections of one server.

    Attributes:
        limit: The limit on connections; None for no limit.
        per_address: The limit on connections from one address; None for no limit.
        present: The current number of connections.
        anywhere: The place of all connections if addresses are not limited.
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
        """Whether no further connection has room."""
        return self.limit is not None and self.present >= self.limit

    def enter(self) -> Place | None:
        """Counts a connection, without an address until it moves.

        Returns:
            Its place; None without room, and then it is not counted.
        """
        if self.is_full:
            self._warn(f"{self.limit} connections are open: more are refused")
            return None
        self.present += 1
        return self.anywhere if self.per_address is None else _OwnPlace(self)

    def join(self, group: str) -> bool:
        """Counts a connection for a group of addresses.

        Returns:
            Whether the group has room. If not, the connection is not counted.
        """
        if self.per_address is not None and self._groups[group] >= self.per_address:
            self._warn(f"{group or 'the Unix socket'} has {self.per_address} connections: more from there are refused")
            return False
        self._groups[group] += 1
        return True

    def part(self, group: str) -> None:
        """Removes a connection from its group."""
        self._groups[group] -= 1
        if not self._groups[group]:
            del self._groups[group]

    def _warn(self, words: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            logger.warning("%s", words)


def _group(address: ClientAddress) -> str:
    """Returns the group of an address: an IPv6 host owns a whole network of 64 bits."""
    if not isinstance(address, tuple):
        return ""
    host = parse_address(address[0])
    if host.version == 6:
        return f"{ipaddress.IPv6Address(int(host) >> 64 << 64)}/64"
    return str(host)


def _files() -> int | None:
    """Returns the number of connections that the limit of open files allows."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else max(limit - _RESERVE, 1)
