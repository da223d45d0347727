"""The limits on the number of connections, in total and per address (`Limits.connections`)."""

import asyncio
import ipaddress
import logging
from collections import Counter

from duck.contrib.websockets.metrics import Metrics
from duck.http.request import ClientAddress

from ..addresses import parse_address
from ..limits import Limits

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["ConnectionLimiter", "Permit"]

logger = logging.getLogger("duck.server")

_RESERVE = 64  # files that a process opens besides its connections
_WARN_EVERY = 60.0  # seconds


class Permit:
    """The permission of a connection to be open. All connections that count for no address may share one."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: "ConnectionLimiter") -> None:
        self._limiter = limiter

    def assign(self, address: ClientAddress) -> bool:
        """Counts the connection for another address, such as the one reported by a proxy.

        Returns:
            Whether that address has room. If not, the connection counts for no address.
        """
        return True

    def unassign(self) -> None:
        """Ends the count for the address of the connection."""

    def release(self) -> None:
        """Removes the connection from the count."""
        self._limiter.count -= 1


class _AddressPermit(Permit):
    """The permit of a connection that counts for its address."""

    __slots__ = ("_group",)

    def __init__(self, limiter: "ConnectionLimiter") -> None:
        super().__init__(limiter)
        self._group: str | None = None

    def assign(self, address: ClientAddress) -> bool:
        group = _group(address)
        if group != self._group:
            self.unassign()
            if not self._limiter.acquire_address(group):
                return False
            self._group = group
        return True

    def release(self) -> None:
        super().release()
        self.unassign()

    def unassign(self) -> None:
        if self._group is not None:
            self._limiter.release_address(self._group)
            self._group = None


class ConnectionLimiter:
    """Counts the connections of one server, and limits them.

    Args:
        limits: The limits of the server.
        metrics: Counts the refusals, of a connection or of an address that a trusted proxy names.

    Attributes:
        limit: The limit on connections; None for no limit.
        per_address: The limit on connections from one address; None for no limit.
        count: The current number of connections.
        shared: The permit of all connections if addresses are not limited.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        files = _files()
        self.limit = limits.connections if limits.connections is not None else files
        self._bound = "the limit of open files (ulimit -n)" if limits.connections is None else "Limits.connections"
        if files is not None and self.limit is not None and self.limit > files:
            # Without free files uvloop closes connections, and logs nothing.
            words = "Limits.connections is %d, but the limit of open files allows %d: raise that limit (ulimit -n)"
            logger.warning(words, self.limit, files)
        self.per_address = limits.connections_per_address
        self.count = 0
        self.shared = Permit(self)
        self._groups: Counter[str] = Counter()
        self._metrics = metrics
        self._warned = float("-inf")

    @property
    def is_full(self) -> bool:
        """Whether no further connection has room."""
        return self.limit is not None and self.count >= self.limit

    def acquire(self) -> Permit | None:
        """Counts a connection; it counts for an address after `Permit.assign`.

        Returns:
            Its permit; None if there is no room, and then it is not counted.
        """
        if self.is_full:
            self._note(f"{self.limit} connections are open, as many as {self._bound} allows: more are refused")
            return None
        self.count += 1
        return self.shared if self.per_address is None else _AddressPermit(self)

    def acquire_address(self, group: str) -> bool:
        """Counts a connection for a group of addresses.

        Returns:
            Whether the group has room. If not, the connection is not counted.
        """
        if self.per_address is not None and self._groups[group] >= self.per_address:
            self._note(f"{group or 'the Unix socket'} has {self.per_address} connections: more from there are refused")
            return False
        self._groups[group] += 1
        return True

    def release_address(self, group: str) -> None:
        """Removes a connection from its group."""
        self._groups[group] -= 1
        if not self._groups[group]:
            del self._groups[group]

    def _note(self, words: str) -> None:
        """Counts a refusal, and warns of it once a minute."""
        self._metrics.counters.note(("refused", "no_room"))
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
