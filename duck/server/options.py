"""`Options`: the options of serving, shared by `serve`, `run`, the command line and worker processes."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from duck.contrib.websockets import CloseCode

from .addresses import split_address
from .limits import Limits, check_seconds, check_whole

__all__ = ["Options"]

_GRACE = 5.0  # seconds for cancelled tasks and for threads to end, beyond the other times of a shutdown
_SHUTDOWN_CODES = (CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a server.

    All values can be pickled. Objects of one process, such as sockets and TLS contexts, are passed separately.

    Attributes:
        host: A name or an address; None for every interface, by IPv4 and IPv6.
        port: The TCP port; 0 for a free one.
        uds: The path of a Unix socket to listen on instead.
        uds_mode: The permissions of that socket; None for those of the replaced socket, or else 0o666.
        drain: Seconds over which a server that shuts down closes its WebSockets one by one; 0 for all at once.
        shutdown_timeout: Seconds for views and their handlers to end after that, and then for the lifespan.
        startup_timeout: Seconds for a worker to start to serve.
        worker_timeout: Seconds for the event loop of a worker to answer the supervisor; 0 for no limit.
        shutdown_code: The close code for clients: 1001, or 1012 for a restart.
        health_path: The path that answers health checks: 200, or 503 once the server drains; None for no such path.
        limits: Limits on clients.
        trusted_proxies: IP addresses and networks of trusted proxies; `unix` for clients of a Unix socket.
        proxy_protocol: Whether the connections of those proxies begin with a header of the PROXY protocol.
        allowed_hosts: The names by which clients may address the server; empty for any.
        allowed_origins: The `ALLOWED_ORIGINS` of views without their own.
        metrics: The address of the metrics for Prometheus, as `HOST:PORT`; None for none.

    Raises:
        TypeError, ValueError: The host is not a str, the port or the permissions are out of bounds, or no Unix socket
            has the permissions, a time is not a number of seconds, the limits are no `Limits`, the code is neither 1001
            nor 1012, no proxy is trusted to send headers of the PROXY protocol, or the address of the metrics has no
            port.
    """

    host: str | None = "127.0.0.1"
    port: int = 8000
    uds: str | os.PathLike[str] | None = None
    uds_mode: int | None = None
    drain: float = 0.0
    shutdown_timeout: float = 10.0
    startup_timeout: float = 60.0
    worker_timeout: float = 0.0
    shutdown_code: int = CloseCode.GOING_AWAY
    health_path: str | None = None
    limits: Limits = field(default_factory=Limits)
    trusted_proxies: Iterable[str] = ()
    proxy_protocol: bool = False
    allowed_hosts: Collection[str] = ()
    allowed_origins: Collection[str] | None = None
    metrics: str | None = None

    def __post_init__(self) -> None:
        if not (self.host is None or isinstance(self.host, str)):
            raise TypeError(f"host must be one name or address, or None for every interface, not {self.host!r}")
        check_whole("port", self.port, 0, 65535)
        if self.uds_mode is not None:
            check_whole("uds_mode", self.uds_mode, 0, 0o777)
            if self.uds is None:
                raise ValueError("uds_mode is of no use without uds: it sets the permissions of that Unix socket only")
        for name in ("drain", "shutdown_timeout", "startup_timeout", "worker_timeout"):
            check_seconds(name, getattr(self, name))
        if not isinstance(self.limits, Limits):
            raise TypeError(f"limits must be a Limits, not {self.limits!r}")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol needs trusted_proxies: otherwise any client could claim any address")
        if self.metrics is not None:
            split_address(self.metrics)
        if self.shutdown_code not in _SHUTDOWN_CODES:
            raise ValueError(f"shutdown_code must be 1001 or, for a restart, 1012, not {self.shutdown_code!r}")

    @property
    def patience(self) -> float:
        """Seconds from the order to stop by which a process must have ended; views and lifespan have a timeout each."""
        return self.drain + 2 * self.shutdown_timeout + _GRACE
