"""`WorkerSockets`: the listening sockets of workers; the supervisor owns it."""

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from ..listening.sockets import UnixListener, balances, bind, bind_again
from ..options import Options

__all__ = ["WorkerSockets"]


class WorkerSockets:
    """Owns the listening sockets of workers.

    Of 600 connections, 50 at a time, four workers with a shared socket had 424, 140, 32 and 4, because the first worker
    to wake accepts all. So each worker has sockets of its own if the kernel balances connections over them, by
    SO_REUSEPORT on Linux: 163, 129, 166 and 142. The supervisor keeps the sockets open, so that connections in the
    backlog survive a worker. A socket that does not listen keeps the address while no worker has one.

    Attributes:
        shared: The sockets that all workers share: Unix sockets, and those bound by another process.
    """

    def __init__(self, shared: Sequence[socket.socket], keepers: Sequence[socket.socket]) -> None:
        self.shared = list(shared)
        self._keepers = keepers
        self._addresses = [(sock.family, sock.getsockname()) for sock in keepers]

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, options: Options, sockets: Sequence[socket.socket]) -> "AsyncIterator[WorkerSockets]":
        """Binds to the address in the options, unless bound sockets are given.

        Raises:
            OSError: The address is not available.
        """
        unix_listener: UnixListener | None = None
        keepers: Sequence[socket.socket] = ()
        if not sockets and options.uds is not None:
            unix_listener = UnixListener(options.uds, options.uds_mode)
            sockets = [unix_listener.socket]
        elif not sockets:
            # Without SO_REUSEPORT, which would not detect another server at the address.
            sockets = await bind(options.host, options.port)
            if all(map(balances, sockets)):
                for sock in sockets:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # from now on workers may share it
                keepers, sockets = sockets, ()
        owner = cls(sockets, keepers)
        try:
            yield owner
        finally:
            owner.close()
            if unix_listener is not None:
                unix_listener.unlink()

    def close(self) -> None:
        """Closes the sockets in this process, which does not accept connections."""
        for sock in (*self.shared, *self._keepers):
            sock.close()

    def take(self) -> list[socket.socket]:
        """Returns the sockets for a worker."""
        return bind_again(self._addresses) if self._addresses else self.shared

    def put_back(self, sockets: list[socket.socket]) -> None:
        """Closes and forgets a worker's own sockets."""
        if sockets is not self.shared:
            for sock in sockets:
                sock.close()
            sockets.clear()
