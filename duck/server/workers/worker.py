"""A worker: one of several processes that serve the same sockets, started, watched and stopped by a supervisor.

A worker is a new interpreter, not a fork: a fork would share the locks and the event loop of an imported application,
and would keep its code when SIGHUP replaces the workers. Its job arrives as a pickle through a socket, whose other end
the supervisor holds:

    supervisor -> worker   a `Boot`, then b"s" to stop, or b"r" to stop because another worker serves; its end: stop
                           b"m" to report the numbers of connections
    worker -> supervisor   one line of JSON, {"addresses": [...], "page": ...} once it serves, or {"failed": ...}
                           {"stats": {...}} at each b"m", and at the end

An error after that line goes to the worker's log.

In a worker the environment variable `DUCK_WORKERS` is the number of workers.
"""

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import pickle
import runpy
import signal
import socket
import ssl as tls
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from duck.contrib.websockets.logging import traceback_of
from duck.signal_handlers import handle

from ..application.lifespan import LifespanError
from ..application.target import Target, load
from ..errors import ServingError
from ..listening.tls import checked_context
from ..options import Options
from ..process.deadline import Deadline
from ..process.log_config import LogOptions
from ..process.loops import LOOPS, loop_factory
from ..process.signals import end_by, on_signals, outlast_signals
from ..process.until_stopped import Stop, serve_until_stopped
from ..server import Server

__all__ = ["Boot", "Job", "is_worker", "main"]

logger = logging.getLogger("duck.server")

_COUNT, _PID = "DUCK_WORKERS", "DUCK_WORKER_PID"  # child processes of a worker inherit them, but have another PID


@dataclass(frozen=True, slots=True)
class Job:
    """The job of a worker.

    Attributes:
        target: The application, or its name as for `duck serve`.
        options: The options of the server.
        loop: The name of the event loop.
        ssl: Creates the TLS context; None without TLS.
        logs: The logging options; None if the application configures logging.
    """

    target: Target | str
    options: Options
    loop: str
    ssl: Callable[[], tls.SSLContext] | None
    logs: LogOptions | None = None


class Boot(NamedTuple):
    """The start instructions of a worker.

    Attributes:
        argv: `sys.argv`.
        main: The main module to import, as a module name or a file; None if it is not needed.
        job: The pickled job, which may name objects of the main module.
        workers: The number of workers.
    """

    argv: list[str]
    main: str | Path | None
    job: bytes
    workers: int

    @classmethod
    def of(cls, job: Job, workers: int) -> "Boot":
        """Prepares the start of workers, for a job that may name objects of this process's main module.

        Raises:
            TypeError: The job cannot be pickled.
        """
        try:
            pickled = pickle.dumps(job)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"workers import the application anew: {error}; define routes, views, the lifespan and the function for"
                " ssl at the top of a module, and give no lambda, local function or TLS context"
            ) from error
        main = None if isinstance(job.target, str) else _main_module()
        return cls(sys.argv, main, pickled, workers)


def _main_module() -> str | Path | None:
    module = sys.modules["__main__"]
    name = getattr(getattr(module, "__spec__", None), "name", None)
    if name is not None:
        return None if name.rpartition(".")[2] == "__main__" else str(name)  # `python -m package` guards nothing
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).absolute()


def is_worker() -> bool:
    """Whether this process is a worker."""
    return os.environ.get(_PID) == str(os.getpid())


def main(supervisor: int, listeners: list[int]) -> None:
    """Serves as a worker; called with the supervisor's `sys.path`.

    Args:
        supervisor: The file of the socket to the supervisor.
        listeners: The files of the listening sockets.
    """
    # A terminal that closes, or `systemctl kill`, sends it to each process. The supervisor replaces this one.
    handle([signal.SIGHUP], lambda signum: None)
    control = _own(supervisor)
    report = _Report(control)
    with control:
        try:
            with control.makefile("rb") as stream:
                boot: Boot = pickle.load(stream)
            _serve(boot, listeners, control, report)
            outlast_signals()
        except (Exception, SystemExit) as error:
            report.failed(error)
            sys.exit(1)


def _own(file: int) -> socket.socket:
    """Takes over a socket of the supervisor. A child process that inherited it could keep the address bound."""
    sock = socket.socket(fileno=file)
    sock.set_inheritable(False)
    return sock


class _Report:
    """Writes reports to the supervisor, each a line of JSON."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._serves = False

    def serves(self, server: Server) -> None:
        """Reports that the worker accepts connections."""
        self._serves = True
        self._write({"addresses": server.addresses, "page": server.routes.first_page})

    def stats(self, server: Server) -> None:
        """Reports the counts of connections."""
        with contextlib.suppress(OSError):  # the supervisor has ended, or does not read
            self._write({"stats": server.stats().as_dict()})

    def failed(self, error: BaseException) -> None:
        """Reports the error that ends the worker; logs it once the supervisor reads no more."""
        report = _failure(error)
        if self._serves:
            cause = error.__cause__ if isinstance(error, LifespanError) else error
            logger.error("%s", report["failed"], exc_info=traceback_of(cause))
            return
        with contextlib.suppress(OSError):
            self._control.setblocking(True)  # the report may be longer than the buffer of the socket
            self._write(report)

    def _write(self, line: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(line).encode() + b"\n")


def _failure(error: BaseException) -> dict[str, Any]:
    """Describes an error for the supervisor: message, traceback if it helps, and exit status."""
    if isinstance(error, ServingError):
        return {"failed": str(error), "details": error.details, "status": error.status}
    details = "".join(traceback.format_exception(error))
    return {"failed": f"a worker failed: {type(error).__name__}: {error}", "details": details, "status": 1}


def _serve(boot: Boot, listeners: list[int], control: socket.socket, report: _Report) -> None:
    os.environ.update({_COUNT: str(boot.workers), _PID: str(os.getpid())})
    sys.argv[:] = boot.argv
    if boot.main is not None:
        _import_main(boot.main)
    job: Job = pickle.loads(boot.job)
    if job.logs is not None:
        job.logs.apply()
    if job.options.worker_timeout:
        faulthandler.enable()  # writes the traceback at the SIGABRT that ends a worker whose event loop is blocked
    if job.loop in LOOPS:  # now, because a file beside the application may hide uvloop, or have the other loop
        loop_factory(job.loop)
    target = load(job.target) if isinstance(job.target, str) else job.target
    sockets = [_own(file) for file in listeners]
    stop = Stop(Deadline(job.options.patience))
    serving: Server | None = None

    @contextlib.contextmanager
    def ready(server: Server) -> Iterator[None]:
        nonlocal serving
        serving = server
        report.serves(server)
        yield

    async def run() -> None:
        _listen_to_supervisor(control, stop, report_stats)
        context = checked_context(job.ssl()) if job.ssl else None
        await serve_until_stopped(target, job.options, sockets, context, stop, ready)
        report_stats()

    def report_stats() -> None:
        if serving is not None:
            report.stats(serving)

    runner = asyncio.Runner(loop_factory=loop_factory(job.loop))
    try:
        with on_signals(partial(stop.from_signal, runner.get_loop())), runner:
            runner.run(run())
    finally:
        stop.deadline.met()


def _listen_to_supervisor(control: socket.socket, stop: Stop, report_stats: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    control.setblocking(False)

    def receive() -> None:
        try:
            orders = control.recv(16)  # those that have been sent since the last read
        except BlockingIOError:
            return
        except ConnectionError:
            orders = b""
        if b"m" in orders:
            report_stats()
        if orders and not orders.strip(b"m"):
            return
        if not orders:
            loop.remove_reader(control)
            if stop.is_set():  # a second order, or the supervisor was killed: nothing would wait for this process
                end_by(signal.SIGTERM)
            logger.error("the supervisor is gone, so this worker stops")
        stop.set(replaced=b"r" in orders)

    loop.add_reader(control, receive)


def _import_main(where: str | Path) -> None:
    """Imports the supervisor's main module as `__mp_main__`, as multiprocessing does.

    Code inside `if __name__ == "__main__":` does not run, and pickles that name objects of `__main__` find them.
    """
    module = types.ModuleType("__mp_main__")
    if isinstance(where, str):
        found = runpy.run_module(where, run_name="__mp_main__", alter_sys=True)
    else:
        found = runpy.run_path(str(where), run_name="__mp_main__")
    module.__dict__.update(found)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
