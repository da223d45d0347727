"""The listening sockets of workers."""

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .listen import UnixListener, balances, bind, bind_again
from .options import Options

__all__ = ["Listener"]


class Listener:
    """Has the sockets that workers accept connections from.

    Of 600 connections that came 50 at a time, four workers that share a socket had 424, 140, 32 and 4: the first that
    wakes takes all that is there. So each has sockets of its own where the kernel spreads connections over them, with
    SO_REUSEPORT on Linux: 163, 129, 166 and 142. The supervisor keeps them open, so that connections that wait to be
    accepted are not lost with a worker.

    Attributes:
        shared: The sockets that all workers share: Unix sockets, and those that somebody else has bound.
    """

    def __init__(self, shared: Sequence[socket.socket], addresses: Sequence[tuple[int, Any]]) -> None:
        self.shared = list(shared)
        self._addresses = addresses

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, options: Options, sockets: Sequence[socket.socket]) -> "AsyncIterator[Listener]":
        """Bind to the address in the options, unless there are bound sockets.

        Raises:
            OSError: The address cannot be had.
        """
        unix_listener: UnixListener | None = None
        addresses: list[tuple[int, Any]] = []
        if not sockets and options.uds is not None:
            unix_listener = UnixListener(options.uds, options.uds_mode)
            sockets = [unix_listener.socket]
        elif not sockets:
            # Without SO_REUSEPORT, which would not find out that another server listens there.
            sockets = await bind(options.host, options.port)
            if all(map(balances, sockets)):
                addresses = [(sock.family, sock.getsockname()) for sock in sockets]
                for sock in sockets:
                    sock.close()
                sockets = []
        listener = cls(sockets, addresses)
        try:
            yield listener
        finally:
            listener.close()
            if unix_listener is not None:
                unix_listener.unlink()

    def close(self) -> None:
        """Close the shared sockets in this process, where nobody accepts connections."""
        for sock in self.shared:
            sock.close()

    def take(self) -> list[socket.socket]:
        """The sockets for a worker."""
        return bind_again(self._addresses) if self._addresses else self.shared

    def put_back(self, sockets: list[socket.socket]) -> None:
        """Close sockets that a worker had to itself, and forget them."""
        if sockets is not self.shared:
            for sock in sockets:
                sock.close()
            sockets.clear()
