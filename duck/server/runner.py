"""Runs a server as the main thing a process does: picks the loop, and stops on signals."""

import asyncio
import contextlib
import importlib
import signal
import ssl as tls
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from duck.views import View

from .limits import Limits
from .server import serve

__all__ = ["LOOPS", "loop_factory", "run"]

LOOPS = ("auto", "asyncio", "uvloop")

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


def run(
    urlpatterns: Iterable[Mapping[str, Any]] | type[View],
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    uds: str | None = None,
    ssl: tls.SSLContext | None = None,
    loop: str = "auto",
    shutdown_timeout: float = 10.0,
    limits: Limits | None = None,
    trusted_proxies: Iterable[str] = (),
) -> None:
    """Serve an application until the process is told to stop by SIGINT or SIGTERM.

    The addresses are printed once connections are accepted. A second signal ends the process at
    once. Outside of the main thread, where there are no signals, this never returns.

    Args:
        loop: "uvloop", "asyncio", or "auto" for uvloop where it is installed.

    The other arguments, and what is raised, are those of `serve`.

    Raises:
        ModuleNotFoundError: uvloop is wanted and not installed.
    """

    async def main() -> None:
        stop = asyncio.Event()
        running_loop = asyncio.get_running_loop()
        with _on_signals(lambda: running_loop.call_soon_threadsafe(stop.set)):
            async with serve(
                urlpatterns,
                host,
                port,
                uds=uds,
                ssl=ssl,
                shutdown_timeout=shutdown_timeout,
                limits=limits,
                trusted_proxies=trusted_proxies,
            ) as server:
                for address in server.addresses:
                    print(f"listening on {address}", flush=True)
                await stop.wait()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(main())


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
    """Call `stop` on the first signal that asks the process to end, and let a second one end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(signum: int, frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
