"""The workloads."""

from dataclasses import dataclass, replace

from ..selection import select

__all__ = ["CLIENT_WORKLOADS", "WORKLOADS", "Workload", "named"]

_UNITS = {
    "connect": "connects/s",
    "broadcast": "deliveries/s",
    "chat": "deliveries/s",
    "idle": "KiB",
    "receive": "messages per CPU second",
}


@dataclass(frozen=True)
class Workload:
    """One kind of load.

    Attributes:
        name: On the command line and in results.
        mode: Of the load client: "echo", "connect", "broadcast", "chat" or "idle"; of a measured client: "echo",
            "receive" or "connect".
        connections: Connections at a time.
        depth: Messages on their way on each; those that an idle connection has echoed before.
        size: Bytes of a message.
        text: Whether messages are text, mostly ASCII; else they are binary.
        tls: Whether connections are encrypted.
        deflate: Whether messages are compressed; they are JSON then.
        one_core: Whether both sides run on one core. Sides that take turns do not wait for the kernel to wake a
            sleeping core then, which takes longer than a message.
    """

    name: str
    mode: str = "echo"
    connections: int = 1
    depth: int = 1
    size: int = 32
    text: bool = False
    tls: bool = False
    deflate: bool = False
    one_core: bool = False

    @property
    def title(self) -> str:
        """The description."""
        return self._load + (", on one core" if self.one_core else "")

    @property
    def _load(self) -> str:
        if self.mode == "connect":
            return f"handshakes and closes, {self.connections} at a time"
        if self.mode == "receive":
            return f"1,000 messages/s of {_bytes(self.size)} received"
        if self.mode == "broadcast":
            flight = f", {self.depth} in flight" if self.depth > 1 else ""
            return f"broadcast to {self.connections:,}, {self._message}{flight}"
        if self.mode == "chat":
            return f"chat of {self.connections:,}, {self._message}, all publish"
        if self.mode == "idle":
            times = f" {self.depth} times" if self.depth > 1 else ""
            used = f" that echoed {_bytes(self.size)}{times}" if self.depth else ""
            used += ", compressed" if self.deflate else ""
            return f"memory of an idle connection{used}, {self.connections:,} open"
        parts = ["1 connection" if self.connections == 1 else f"{self.connections:,} connections"]
        parts.append(self._message)
        if self.depth > 1:
            parts.append(f"{self.depth} in flight")
        return ("TLS: " if self.tls else "") + ", ".join(parts)

    @property
    def _message(self) -> str:
        return _bytes(self.size) + (" of JSON, compressed" if self.deflate else " of text" if self.text else "")

    @property
    def unit(self) -> str:
        """Of its figures."""
        return _UNITS.get(self.mode, "messages/s")

    @property
    def path(self) -> str:
        """The path on the servers."""
        return "/broadcast" if self.mode in ("broadcast", "chat", "receive") else "/"

    @property
    def lower_is_better(self) -> bool:
        return self.mode == "idle"

    def small(self) -> "Workload":
        """The same with fewer connections, for a quick look."""
        return replace(self, connections=max(self.connections // 10, 1))


def _bytes(size: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


WORKLOADS: tuple[Workload, ...] = (
    Workload("ping"),
    Workload("ping-one-core", one_core=True),
    Workload("pipeline", depth=64),
    Workload("c100", connections=100),
    Workload("c1000", connections=1000),
    Workload("1k", depth=4, size=1024),
    Workload("16k", depth=4, size=16 * 1024),
    Workload("1m", depth=2, size=1024 * 1024),
    Workload("text", depth=4, size=1024, text=True),
    Workload("deflate", connections=20, size=1024, text=True, deflate=True),
    Workload("deflate-16k", connections=20, size=16 * 1024, text=True, deflate=True),
    Workload("tls", tls=True),
    Workload("tls-16k", depth=4, size=16 * 1024, tls=True),
    Workload("connect", "connect", connections=16),
    Workload("broadcast", "broadcast", connections=100),
    Workload("broadcast-1000", "broadcast", connections=1000, size=128),
    Workload("broadcast-16k", "broadcast", connections=500, size=16 * 1024),
    Workload("broadcast-1k", "broadcast", connections=200, size=1024, text=True),
    Workload("broadcast-deflate", "broadcast", connections=200, size=1024, text=True, deflate=True),
    Workload("burst", "broadcast", connections=100, depth=8),
    Workload("burst-1000", "broadcast", connections=1000, depth=8, size=128),
    Workload("burst-16k", "broadcast", connections=500, depth=8, size=16 * 1024),
    Workload("burst-1k", "broadcast", connections=200, depth=8, size=1024, text=True),
    Workload("burst-deflate", "broadcast", connections=200, depth=8, size=1024, text=True, deflate=True),
    Workload("chat", "chat", connections=100, size=64, text=True),
    Workload("idle", "idle", connections=2000, depth=0),
    Workload("idle-used", "idle", connections=2000),
    Workload("idle-deflate", "idle", connections=1000, depth=10, size=1024, text=True, deflate=True),
)

CLIENT_WORKLOADS: tuple[Workload, ...] = (
    Workload("ping-one-core", one_core=True),
    Workload("depth64-one-core", depth=64, one_core=True),
    Workload("1k-one-core", size=1024, one_core=True),
    Workload("1m-one-core", size=1024 * 1024, one_core=True),
    Workload("receive-one-core", "receive", size=200, one_core=True),
    Workload("connect-one-core", "connect", one_core=True),
    Workload("ping"),
    Workload("depth64", depth=64),
    Workload("1k", size=1024),
    Workload("1m", size=1024 * 1024),
    Workload("receive", "receive", size=200),
    Workload("connect", "connect"),
)
"""Those of clients, which are measured against the floor."""


def named(names: str | None, among: tuple[Workload, ...] = WORKLOADS) -> list[Workload]:
    """Workloads by their names, in that order; all of them for None.

    Raises:
        ValueError: There is no such workload.
    """
    return select(names or "all", among, "workload")
