"""The supervisor of workers: it binds once, starts processes that serve the same sockets, and monitors them.

    SIGTERM, SIGINT  all workers drain and stop; the supervisor ends as the last
    SIGHUP           each worker is replaced, one after the other; the old one stops once the new one serves
    SIGTTIN          one more worker
    SIGTTOU          one worker less, if there are several

A worker that ends is replaced at once. If its successor fails early as well, the next ones follow after pauses that
double each time; SIGHUP ends a pause. The supervisor gives up after a few failures in a row, unless a worker has
served for a while. It runs no code of the application.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from duck.contrib.websockets.metrics import Stats
from duck.contrib.websockets.protocol.stepping import is_cancelled

from ..errors import ServingError
from ..options import Options
from ..process.exposition import exposing
from ..process.ready import announce_ready
from ..process.signals import call_in_loop, on_signals
from ..process.systemd import notify, notify_reloading
from .worker import Boot, Job, is_worker
from .worker_process import WorkerError, WorkerProcess, outcome
from .worker_sockets import WorkerSockets

__all__ = ["WorkersUnavailableError", "supervise"]

logger = logging.getLogger("duck.server")

_STEADY = 5.0  # seconds of service after which the end of a worker is not a failed start
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0  # seconds before a worker is restarted, from the second failure in a row on
_ATTEMPTS = 5  # failed starts in a row before the supervisor gives up
_GRACE = 2.0  # seconds beyond its own deadline after which a worker is killed


class WorkersUnavailableError(ServingError, RuntimeError):
    """This process can have no workers."""


class Slot:
    """One of the desired workers. If its process ends, another one is started.

    Attributes:
        worker: The serving worker.
        sockets: The sockets that it accepts connections from.
        failures: Consecutive workers that have ended before or soon after they served.
        wanted: Set while the worker is to be replaced by one that starts from now on.
        renewal: Resolved with whether it has been replaced.
        keeper: The task that keeps the place filled.
    """

    def __init__(self) -> None:
        self.worker: WorkerProcess | None = None
        self.sockets: list[socket.socket] = []
        self.failures = 0
        self.renewal: asyncio.Future[bool] | None = None
        self.wanted = asyncio.Event()
        self.keeper: asyncio.Task[None] | None = None

    def answer(self, replaced: bool) -> None:
        """Resolves the pending renewal."""
        if self.renewal is not None and not self.renewal.done():
            self.renewal.set_result(replaced)


class Supervisor:
    """Keeps a number of workers running.

    Args:
        boot: The start instructions of a worker.
        worker_sockets: The owner of the sockets.
        options: The options of the workers' servers.
        stop: Set to give the order to stop.
    """

    def __init__(self, boot: Boot, worker_sockets: WorkerSockets, options: Options, stop: asyncio.Event) -> None:
        self._boot = boot
        self._worker_sockets = worker_sockets
        self._startup_timeout = options.startup_timeout
        self._worker_timeout = options.worker_timeout
        self._patience = options.patience + _GRACE
        self._slots: list[Slot] = []
        self._keepers: set[asyncio.Task[None]] = set()
        self._workers: set[WorkerProcess] = set()
        self._leaving: dict[WorkerProcess, asyncio.Task[None]] = {}  # have ended
        self._past = Stats()  # of all workers that have ended
        self._all_serve = False
        self._proven = False  # a worker has served for a while
        self._service: tuple[list[str], str | None] = [], None  # for `announce_ready`
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = stop
        self._renewing: asyncio.Task[None] | None = None
        self._successor: asyncio.Task[None] | None = None  # starts in place of a serving worker
        self._again = False

    async def run(self) -> None:
        """Starts the workers, and keeps them running until the order to stop.

        Raises:
            WorkerError: The workers cannot be started, or one has failed as it stopped.
        """
        loop = asyncio.get_running_loop()
        for _ in range(self._boot.workers):
            self._add_slot()
        stopping = loop.create_task(self._stop.wait())
        both: set[asyncio.Future[Any]] = {stopping, self._failed}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for slot in self._slots:
            self._worker_sockets.put_back(slot.sockets)
        self._worker_sockets.close()
        notify("STOPPING=1")
        if self._renewing is not None:
            self._renewing.cancel()
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        workers = {*self._workers}
        await self._end(workers)
        await asyncio.sleep(0)  # for callbacks at the end of a process
        if self._failed.done():
            self._failed.result()
        for worker in workers:
            if worker.serves and worker.ended.result() != 0:
                raise WorkerError(f"worker {worker.pid} {outcome(worker.ended.result())} as it stopped; see its log")

    def grow(self) -> None:
        """Adds a worker."""
        if not self._ending():
            self._add_slot()
            self._count()

    def shrink(self) -> None:
        """Stops a worker, unless it is the only one."""
        if self._ending():
            return
        if len(self._slots) == 1:
            logger.warning("SIGTTOU does not stop the only worker; SIGTERM does")
            return
        slot = self._slots.pop()
        assert slot.keeper is not None
        slot.keeper.add_done_callback(lambda _: self._leave(slot))
        slot.keeper.cancel()
        self._count()

    def _ending(self) -> bool:
        return self._stop.is_set() or self._failed.done()

    def _count(self) -> None:
        self._boot = self._boot._replace(workers=len(self._slots))
        logger.info("the number of workers is %d from now on", len(self._slots))

    def _add_slot(self) -> None:
        slot = Slot()
        self._slots.append(slot)
        slot.keeper = asyncio.get_running_loop().create_task(self._keep(slot))
        self._keepers.add(slot.keeper)
        slot.keeper.add_done_callback(self._keepers.discard)

    def _leave(self, slot: Slot) -> None:
        """Stops the worker of a slot that has been removed."""
        if slot.worker is not None:
            self._retire(slot.worker)
        self._worker_sockets.put_back(slot.sockets)
        slot.answer(True)
        self._note_service()

    def renew(self) -> None:
        """Replaces each worker, one after the other; a successor that has not started yet is given up for a newer."""
        if self._ending():
            return
        if self._renewing is not None and not self._renewing.done():
            self._again = True
            if self._successor is not None:
                self._successor.cancel()  # it may hang because of a fault that has been corrected since
            return
        self._renewing = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        notify_reloading()
        await self._replace_all()
        notify("READY=1")

    async def _replace_all(self) -> None:
        while True:
            self._again = False
            for slot in self._slots:
                slot.renewal = asyncio.get_running_loop().create_future()
                slot.wanted.set()
                if not await slot.renewal:
                    break
            if not self._again:
                return

    async def _keep(self, slot: Slot) -> None:
        """Keeps a worker running in a slot."""
        try:
            while True:
                await self._fill(slot)
                self._note_service()
                while not await self._has_ended(slot):
                    await self._replace(slot)
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)

    async def _has_ended(self, slot: Slot) -> bool:
        """Waits until the worker of a slot has ended, or is to be replaced; returns whether it has ended."""
        loop = asyncio.get_running_loop()
        worker = slot.worker
        assert worker is not None
        since = loop.time()
        watching: list[asyncio.Task[Any]] = [loop.create_task(slot.wanted.wait())]
        if self._worker_timeout:
            watching.append(loop.create_task(self._end_blocked(worker)))
        try:
            await asyncio.wait({worker.ended, *watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in watching:
                task.cancel()
        if not worker.ended.done():
            return False
        slot.worker = None
        logger.error("worker %d %s; another is started", worker.pid, outcome(worker.ended.result()))
        slot.failures = 0 if loop.time() - since >= _STEADY else slot.failures + 1
        if slot.failures >= _ATTEMPTS and not self._proven:
            raise WorkerError(
                f"{slot.failures} workers in a row have ended within {_STEADY:g} s of service; the last"
                f" {outcome(worker.ended.result())}: see its log"
            )
        return True

    async def _replace(self, slot: Slot) -> None:
        """Starts a successor of a serving worker, which goes on if the successor fails."""
        self._successor = starting = asyncio.get_running_loop().create_task(self._start(slot))
        try:
            await starting
        except WorkerError as error:
            logger.error("the workers are not replaced, because a new one fails: %s", error.described())
            slot.answer(False)
        except asyncio.CancelledError as error:
            if is_cancelled(error):
                raise
            slot.answer(False)  # for a later order

    async def _end_blocked(self, worker: WorkerProcess) -> None:
        """Ends a worker once its event loop is blocked for too long."""
        await worker.blocked(self._worker_timeout)
        words = "worker %d is ended: its event loop has been blocked for %g s (--worker-timeout), see the traceback"
        logger.error(words, worker.pid, self._worker_timeout)
        await worker.abort()

    async def _fill(self, slot: Slot) -> None:
        """Starts workers until one serves.

        Raises:
            WorkerError: The first workers have reported a failure, or too many have failed while none serves.
        """
        while True:
            if slot.failures > 1:  # the first replacement starts at once
                # Meanwhile the other workers accept its connections.
                self._worker_sockets.put_back(slot.sockets)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(_FIRST_PAUSE * 2 ** (slot.failures - 2), _LONGEST_PAUSE)):
                        await slot.wanted.wait()  # the cause of the failures may have been corrected
            try:
                await self._start(slot)
                return
            except WorkerError as error:
                slot.failures += 1
                if error.is_known and not self._all_serve:
                    raise
                none_serves = not self._all_serve or not any(other.worker for other in self._slots)
                if none_serves and slot.failures >= _ATTEMPTS:
                    raise WorkerError(f"{slot.failures} workers in a row have failed; the last: {error}") from error
                logger.error("%s", error.described())
                slot.answer(False)

    async def _start(self, slot: Slot) -> None:
        """Starts a worker, and stops the one that it replaces once it serves.

        Both in one step: a slot that is removed then knows the worker that it has to stop.
        """
        slot.wanted.clear()
        try:
            slot.sockets = slot.sockets or self._worker_sockets.take()
            worker = await WorkerProcess.start(self._boot, [sock.fileno() for sock in slot.sockets])
        except OSError as error:
            raise WorkerError(f"cannot start a worker: {error.strerror or error}", is_known=True) from error
        self._workers.add(worker)
        worker.ended.add_done_callback(lambda _: self._forget(worker))
        try:
            self._service = addresses, _ = await worker.ready(self._startup_timeout)
        except BaseException:
            self._retire(worker)
            raise
        logger.info("worker %d serves %s", worker.pid, ", ".join(addresses))
        if not self._proven:
            asyncio.get_running_loop().call_later(_STEADY, self._prove, worker)
        replaced, slot.worker = slot.worker, worker
        if replaced is not None:
            self._retire(replaced)
        if not slot.wanted.is_set():
            slot.answer(True)

    def _prove(self, worker: WorkerProcess) -> None:
        self._proven = self._proven or not worker.ended.done()

    def _retire(self, worker: WorkerProcess) -> None:
        """Stops a worker while others continue."""
        worker.stop(replaced=True)
        asyncio.get_running_loop().call_later(self._patience, self._kill, worker)

    def _kill(self, worker: WorkerProcess) -> None:
        """Ends a worker that has not ended by itself."""
        if not worker.ended.done():
            words = "worker %d has not ended within %g s, and is killed: its event loop is blocked, or a thread hangs"
            logger.error(words, worker.pid, self._patience)
            worker.kill()

    async def _end(self, workers: set[WorkerProcess]) -> None:
        """Stops all workers, and kills those that have not ended in time."""
        if not workers:
            return
        for worker in workers:
            worker.stop()
        _, late = await asyncio.wait({worker.ended for worker in workers}, timeout=self._patience)
        for worker in workers:
            self._kill(worker)
        if late:
            await asyncio.wait(late)

    def _forget(self, worker: WorkerProcess) -> None:
        self._workers.discard(worker)
        self._leaving[worker] = asyncio.get_running_loop().create_task(self._keep_stats(worker))

    async def _keep_stats(self, worker: WorkerProcess) -> None:
        """Adds the last numbers of a worker that has ended to those of its predecessors."""
        last = await worker.last_stats()
        worker.close()
        self._past += last
        del self._leaving[worker]

    async def stats(self) -> Stats:
        """Returns the numbers of the connections of all workers, also of those that have ended."""
        await asyncio.gather(*(worker.measure() for worker in self._workers))
        if self._leaving:  # their last reports may not have been read
            await asyncio.wait([*self._leaving.values()])
        return sum((worker.stats for worker in (*self._workers, *self._leaving)), self._past)

    def _note_service(self) -> None:
        """Announces the service once all workers serve."""
        if not self._all_serve and all(slot.worker for slot in self._slots):
            self._all_serve = True
            announce_ready(*self._service)


def supervise(job: Job, sockets: Sequence[socket.socket], workers: int, reload: Sequence[Path] = ()) -> None:
    """Serves with worker processes until SIGINT or SIGTERM.

    Args:
        job: The job of each worker.
        sockets: Bound sockets to listen on; none for the address in the options.
        workers: The number of workers at the start.
        reload: Folders; a change of a Python file in them replaces the workers.

    Raises:
        OSError: The address is not available.
        WorkersUnavailableError: The process can have no workers.
        TypeError: The job cannot be pickled.
        WorkerError: The workers cannot be started, or one has failed as it stopped.
    """
    if is_worker():
        raise WorkersUnavailableError(
            "a worker imports the main module, which starts workers: put that behind `if __name__ == '__main__':`"
        )
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        raise WorkersUnavailableError("workers need a POSIX system, and are started from the main thread")
    if getattr(sys, "frozen", False):  # `sys.executable` would start this program again, in each worker
        raise WorkersUnavailableError(
            "workers need a Python interpreter, and a frozen program has none: start the program once for each process"
        )
    changes = _changes(reload) if reload else None

    async def main() -> None:
        async with WorkerSockets.at(job.options, sockets) as worker_sockets:
            own = replace(job, options=replace(job.options, metrics=None))  # the supervisor has those of all
            supervisor = Supervisor(Boot.of(own, workers), worker_sockets, job.options, stop)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, supervisor.renew)
            loop.add_signal_handler(signal.SIGTTIN, supervisor.grow)
            loop.add_signal_handler(signal.SIGTTOU, supervisor.shrink)
            watching = None if changes is None else loop.create_task(_watch(changes, supervisor))
            try:
                async with exposing(job.options.metrics, supervisor.stats):
                    await supervisor.run()
            finally:
                if watching is not None:
                    watching.cancel()

    stop = asyncio.Event()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it were ignored, the kernel would discard the exit statuses
    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    with on_signals(partial(call_in_loop, runner.get_loop(), stop.set)), runner:
        runner.run(main())


def _changes(folders: Sequence[Path]) -> AsyncIterator[Any]:
    """Returns an iterator over changes of Python files in folders.

    Raises:
        WorkersUnavailableError: watchfiles is not installed.
    """
    try:
        import watchfiles
    except ModuleNotFoundError:
        raise WorkersUnavailableError("reloading needs watchfiles: pip install 'duck-websockets[reload]'") from None
    log = logging.getLogger("watchfiles")
    if log.level == logging.NOTSET:  # its line about the number of changes repeats that of `_watch`
        log.setLevel(logging.WARNING)
    # A folder of another user, such as the files of a database, would end the watch of all others.
    found: AsyncIterator[Any] = watchfiles.awatch(
        *folders, watch_filter=watchfiles.PythonFilter(), ignore_permission_denied=True
    )
    return found


async def _watch(changes: AsyncIterator[Any], supervisor: Supervisor) -> None:
    try:
        async for files in changes:
            logger.info("%s changed; the workers are replaced", ", ".join(sorted({path for _, path in files})))
            supervisor.renew()
    except Exception as error:  # such as the limit of the system on watched folders
        logger.error("changes of files replace no workers from now on: %s", error)
