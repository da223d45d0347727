"""Runs a server as the main thing a process does: picks the loop, and stops on signals."""

import asyncio
import contextlib
import importlib
import logging
import signal
import socket
import ssl as tls
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from duck.contrib.websockets import CloseCode
from duck.views import View

from .limits import Limits
from .options import Options
from .server import Server, serving

__all__ = ["LOOPS", "loop_factory", "outlast_signals", "run", "run_options"]

logger = logging.getLogger("duck.server")

LOOPS = ("auto", "asyncio", "uvloop")

_SAME_SIGNAL = 1.0  # seconds in which a second signal is taken for the first
_LAST = 1.0  # seconds in which what still runs behind the server must end

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


def run(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | None = None,
    uds_mode: int | None = None,
    sockets: Sequence[socket.socket] = (),
    ssl: tls.SSLContext | Callable[[], tls.SSLContext] | None = None,
    loop: str = "auto",
    shutdown_timeout: float = 10.0,
    shutdown_code: int = CloseCode.GOING_AWAY,
    limits: Limits | None = None,
    trusted_proxies: Iterable[str] = (),
    proxy_protocol: bool = False,
    allowed_hosts: Collection[str] = (),
    allowed_origins: Collection[str] | None = None,
) -> None:
    """Serve an application until the process is told to stop by SIGINT or SIGTERM.

    The addresses are printed once connections are accepted. A second signal ends the process at once, unless it comes
    within a second: `timeout` and some shells send one twice. Outside of the main thread, where there are no signals,
    this never returns.

    Args:
        ssl: How to encrypt; or a function that makes that, and is called again on SIGHUP, for new connections.
        loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed.

    The other arguments, and what is raised, are those of `serve`.

    Raises:
        ModuleNotFoundError: uvloop is wanted and not installed.
    """
    options = Options(
        host,
        port,
        uds=uds,
        uds_mode=uds_mode,
        shutdown_timeout=shutdown_timeout,
        shutdown_code=shutdown_code,
        limits=limits or Limits(),
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
    )
    run_options(urlpatterns, options, sockets, ssl, loop)


def run_options(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    options: Options,
    sockets: Sequence[socket.socket] = (),
    ssl: tls.SSLContext | Callable[[], tls.SSLContext] | None = None,
    loop: str = "auto",
) -> None:
    """Serve an application, as `run` does, by options in one object."""
    stop = asyncio.Event()

    async def main() -> None:
        async with serving(urlpatterns, options, sockets, ssl() if callable(ssl) else ssl) as server:
            for address in server.addresses:
                print(f"listening on {address}", flush=True)
            with _on_hangup(partial(_renew, server, ssl) if callable(ssl) else None):
                await stop.wait()
        await _end_tasks(server)

    def on_signal() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            runner.get_loop().call_soon_threadsafe(stop.set)

    runner = asyncio.Runner(loop_factory=loop_factory(loop))
    with _on_signals(on_signal), runner:  # until the runner has ended, lest a signal becomes a KeyboardInterrupt
        runner.run(main())


def _renew(server: Server, make_context: Callable[[], tls.SSLContext]) -> None:
    """Have new connections encrypted anew; by what there was before, if that fails."""
    try:
        server.ssl = make_context()
    except Exception as error:
        logger.error("cannot read the certificates again, and go on with those before: %s", error)
    else:
        logger.info("the certificates have been read again")


@contextlib.contextmanager
def _on_hangup(callback: Callable[[], None] | None) -> Iterator[None]:
    """Call back on SIGHUP, in the loop."""
    if callback is None or not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def on_signal(signum: int, frame: object) -> None:
        loop.call_soon_threadsafe(callback)

    before = signal.signal(signal.SIGHUP, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


async def _end_tasks(server: Server) -> None:
    """Cancel all that still runs, as the runner does, but do not wait for ever for it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    _, hung = await asyncio.wait(tasks, timeout=_LAST)
    for task in hung:
        if not server.hung:
            logger.error("%r did not end though cancelled, and was given up", task)
        _forget(task)


def _forget(task: "asyncio.Task[Any]") -> None:
    """Let the runner not wait for a task, and nobody free it: its coroutine would go on even when it is closed."""
    asyncio._unregister_task(task)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    ctypes = importlib.import_module("ctypes")
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop of that name, one of `LOOPS`.

    Raises:
        ModuleNotFoundError: uvloop is wanted and not installed.
        ValueError: There is no loop of that name.
    """
    if name not in LOOPS:
        raise ValueError(f"{name!r} is not one of {', '.join(LOOPS)}")
    if name != "asyncio":
        try:
            factory: Callable[[], asyncio.AbstractEventLoop]
            factory = importlib.import_module("uvloop").new_event_loop
            return factory
        except ModuleNotFoundError:
            if name == "uvloop":
                raise
    return asyncio.new_event_loop


@contextlib.contextmanager
def _on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` on the first signal that asks the process to end, and let a later one end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _take_signals(stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlast_signals() -> None:
    """For a process that ends by itself: a signal is not to make that a failure; only one that comes later ends it."""
    if threading.current_thread() is threading.main_thread():
        _take_signals(lambda: None)


def _take_signals(stop: Callable[[], object]) -> dict[int, Any]:
    first: float | None = None

    def on_signal(signum: int, frame: object) -> None:
        nonlocal first
        if first is None:
            first = time.monotonic()
            stop()
        elif time.monotonic() - first >= _SAME_SIGNAL:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    return {number: signal.signal(number, on_signal) for number in _SIGNALS}
