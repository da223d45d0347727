"""`serve`: a server that runs for the duration of a block."""

import contextlib
import os
import socket
import ssl as tls
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any

from duck.contrib.websockets import CloseCode
from duck.views import View

from .application.lifespan import Lifespan, running_lifespan
from .application.target import Target
from .limits import Limits
from .listening.sockets import check_sockets, closed_on_failure
from .listening.tls import checked_context
from .options import Options
from .server import Server

__all__ = ["serve", "serve_target"]


@contextlib.asynccontextmanager
async def serve(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | os.PathLike[str] | None = None,
    uds_mode: int | None = None,
    sockets: Sequence[socket.socket] = (),
    ssl: tls.SSLContext | None = None,
    lifespan: Lifespan | None = None,
    drain: float = 0.0,
    shutdown_timeout: float = 10.0,
    shutdown_code: int = CloseCode.GOING_AWAY,
    health_path: str | None = None,
    limits: Limits | None = None,
    trusted_proxies: Iterable[str] = (),
    proxy_protocol: bool = False,
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] | None = None,
) -> AsyncIterator[Server]:
    """Serves an application for the duration of the block.

    Args:
        urlpatterns: The routes, or one `View` class for every path.
        host: A name or an address; None for every interface, by IPv4 and IPv6.
        port: 0 for a free one, which is then the server's `port`.
        uds: The path of a Unix socket to listen on instead.
        uds_mode: Its permissions; None for those of a replaced socket, or else 0o666, for any user.
        sockets: Bound sockets to listen on instead, which are closed at the end.
        ssl: A TLS context.
        lifespan: Called with the server; returns an async context manager, which is entered before the first connection
            is accepted, and left after the last has ended. Its value is the server's `state`, which views have as
            `self.server.state`.
        drain: Seconds over which WebSockets are closed in even steps at the end of the block, so that their clients do
            not return all at once. Meanwhile handshakes are refused by 503 with Retry-After.
        shutdown_timeout: Seconds for views and their handlers to end after that, and then for the lifespan.
        shutdown_code: The close code for clients: 1001, or 1012 for a restart.
        health_path: A path for health checks, answered by 200, or by 503 once the server drains, whatever the Host of
            the request.
        limits: The limits on clients.
        trusted_proxies: IP addresses and networks of the proxies whose `X-Forwarded-For`, `-Proto` and `-Host`, or
            `Forwarded`, are trusted, and `unix` for clients of a Unix socket.
        proxy_protocol: Whether their connections begin with a header of the PROXY protocol, version 1 or 2; those of
            others have none. Needs a loop that can watch sockets, which Windows' proactor cannot.
        allowed_hosts: The names and addresses by which clients may address the server, such as `localhost` and
            `*.example.org`; requests with another Host are answered 421. Empty for any.
        allowed_origins: The `ALLOWED_ORIGINS` of views without their own.

    Raises:
        OSError: The address is not available.
        LifespanError: The lifespan has failed, or did not end in time. If it failed at its start, nothing has been
            served.
        TypeError, ValueError: A route, a trusted proxy, a host or an origin is malformed, a time is not a number of
            seconds, or `ssl` is no TLS context of a server, or a socket cannot be listened on.
    """
    options = Options(
        host,
        port,
        uds=uds,
        uds_mode=uds_mode,
        drain=drain,
        shutdown_timeout=shutdown_timeout,
        shutdown_code=shutdown_code,
        health_path=health_path,
        limits=limits or Limits(),
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
    )
    check_sockets(sockets, uds)
    async with serve_target(Target(urlpatterns, lifespan), options, sockets, ssl) as server:
        yield server


@contextlib.asynccontextmanager
async def serve_target(
    target: Target, options: Options, sockets: Sequence[socket.socket], ssl: tls.SSLContext | None
) -> AsyncIterator[Server]:
    """Serves an application, as `serve` does, with options in one object."""
    if ssl is not None:
        checked_context(ssl)
    server = Server(target.urlpatterns, options)
    async with contextlib.AsyncExitStack() as stack:
        with closed_on_failure(sockets):
            await stack.enter_async_context(running_lifespan(target.lifespan, server, options.shutdown_timeout))
        try:
            await server.listen(sockets, ssl)
            yield server
        finally:
            await server.close()
