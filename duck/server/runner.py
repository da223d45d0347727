"""`run`: serves in this process, or with workers, until a signal. `duck serve` calls `run_target`."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl as tls
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from duck.contrib.websockets import CloseCode
from duck.stdio import prepare_standard_files
from duck.views import View

from .application.lifespan import Lifespan
from .application.target import Target, is_importing
from .limits import Limits, check_whole
from .listening.sockets import check_sockets
from .listening.tls import checked_context
from .options import Options
from .process.deadline import Deadline
from .process.loops import loop_factory
from .process.ready import announce_ready
from .process.signals import call_in_loop, on_hangup, on_signals
from .process.systemd import notify, notify_reloading
from .process.until_stopped import Stop, serve_until_stopped
from .server import Server
from .workers.supervisor import supervise
from .workers.worker import Job, is_worker

__all__ = ["run", "run_target"]

logger = logging.getLogger("duck.server")


def run(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | os.PathLike[str] | None = None,
    uds_mode: int | None = None,
    sockets: Sequence[socket.socket] = (),
    ssl: tls.SSLContext | Callable[[], tls.SSLContext] | None = None,
    lifespan: Lifespan | None = None,
    loop: str = "auto",
    workers: int = 1,
    startup_timeout: float = 60.0,
    worker_timeout: float = 0.0,
    drain: float = 0.0,
    shutdown_timeout: float = 10.0,
    shutdown_code: int = CloseCode.GOING_AWAY,
    health_path: str | None = None,
    limits: Limits | None = None,
    trusted_proxies: Iterable[str] = (),
    proxy_protocol: bool = False,
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] | None = None,
    metrics: str | None = None,
) -> None:
    """Serves an application until SIGINT or SIGTERM.

    The addresses are printed once connections are accepted. A second signal ends the process at once, unless it comes
    within a second: `timeout` and some shells send one twice. SIGHUP stops a server without `workers` and a function as
    `ssl`, unless it is ignored, as by `nohup`. Outside the main thread, where there are no signals, this never returns.

    Args:
        ssl: A TLS context, or a function that creates one; SIGHUP calls the function again, for new connections.
        loop: "uvloop", "asyncio", or "auto" for uvloop if installed; or `module:function` for a function that creates a
            loop.
        workers: The number of serving processes. Each imports the main module again, as those of multiprocessing do, so
            the call must be inside `if __name__ == "__main__":`. The routes, the views, the lifespan and the function
            for `ssl` must be importable. Each worker has its own event loop, limits and lifespan. SIGHUP replaces the
            workers one after the other, SIGTTIN adds one and SIGTTOU stops one. With 1 and no `worker_timeout`, this
            process itself serves.
        startup_timeout: Seconds for a worker to import the application and to start its lifespan.
        worker_timeout: Seconds for the event loop of a worker to answer the supervisor. A worker whose loop is blocked
            for longer is ended, with its traceback on stderr, and replaced. 0 for no limit.
        metrics: The address, as `HOST:PORT`, at which `/metrics` has the numbers of all workers for Prometheus.

    The other arguments and errors are those of `serve`.

    Raises:
        ExpositionError: The metrics cannot be served at their address, or prometheus_client is not installed.
        LoopError: The function for a loop cannot be found, or returns none; or uvloop is requested but not installed.
        RuntimeError: An event loop runs in this thread already, or `duck serve` imports the module that calls this.
        WorkersUnavailableError: The process can have no workers, or is one and imports the main module.
        WorkerError: The workers cannot be started, or one has failed as it stopped.
    """
    if is_importing():
        raise RuntimeError(
            "duck serve imports this module, which calls run: put that behind `if __name__ == '__main__':`"
        )
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("run starts an event loop, but one runs in this thread already: write async with serve(...)")
    prepare_standard_files()
    check_whole("workers", workers, 1)
    options = Options(
        host,
        port,
        uds=uds,
        uds_mode=uds_mode,
        drain=drain,
        startup_timeout=startup_timeout,
        worker_timeout=worker_timeout,
        shutdown_timeout=shutdown_timeout,
        shutdown_code=shutdown_code,
        health_path=health_path,
        limits=limits or Limits(),
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
        metrics=metrics,
    )
    check_sockets(sockets, uds)
    if workers > 1 or worker_timeout > 0 or is_worker():
        if not (ssl is None or callable(ssl)):
            raise TypeError("workers cannot share a TLS context: give a function as ssl that makes one")
        supervise(Job(Target(urlpatterns, lifespan), options, loop, ssl), sockets, workers)
    else:
        run_target(Target(urlpatterns, lifespan), options, sockets, ssl, loop)


def run_target(
    target: Target,
    options: Options,
    sockets: Sequence[socket.socket],
    ssl: tls.SSLContext | Callable[[], tls.SSLContext] | None,
    loop: str,
) -> None:
    """Serves an application, as `run` does, with options in one object."""
    stop = Stop(Deadline(options.patience))
    serving: Server | None = None
    hung_up = False

    @contextlib.contextmanager
    def ready(server: Server) -> Iterator[None]:
        nonlocal serving
        serving = server
        announce_ready(server.addresses, server.routes.first_page)
        if hung_up:
            renew()
        yield
        serving = None
        notify("STOPPING=1")

    def renew() -> None:
        nonlocal hung_up
        hung_up = True
        if serving is not None and callable(ssl):
            _renew(serving, ssl)

    runner = asyncio.Runner(loop_factory=loop_factory(loop))
    event_loop = runner.get_loop()  # before the signals are handled, by calls in it
    if callable(ssl):
        hangup = on_hangup(partial(call_in_loop, event_loop, renew))
    else:  # there is nothing to reload; as the end of a terminal it is an order to stop
        hangup = on_hangup(partial(stop.from_signal, event_loop), unless_ignored=True)
    try:
        # The signals are ours until the runner has ended, so that none becomes a KeyboardInterrupt.
        with on_signals(partial(stop.from_signal, event_loop)), hangup, runner:
            context = checked_context(ssl()) if callable(ssl) else ssl
            runner.run(serve_until_stopped(target, options, sockets, context, stop, ready))
    finally:
        stop.deadline.met()


def _renew(server: Server, make_context: Callable[[], tls.SSLContext]) -> None:
    """Renews the TLS context for new connections; keeps the old one if that fails."""
    notify_reloading()
    try:
        server.ssl = checked_context(make_context())
    except Exception as error:
        logger.error("the certificates cannot be read again, and the previous ones stay in use: %s", error)
    else:
        logger.info("the certificates have been read again")
    notify("READY=1")
