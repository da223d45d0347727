"""Acceptors of connections from listening sockets: a few at a time, with a pause after a shortage of files."""

import asyncio
import errno
import logging
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["BACKLOG", "Acceptor", "LoopAcceptor"]

logger = logging.getLogger("duck.server")

BACKLOG = 4096
"""The listen backlog; the kernel caps it at its own limit."""

_TOGETHER = 16  # connections accepted before the loop handles other events
_BY_UVLOOP = 4  # listening descriptors; 8 were no faster, with 16 or with 64 clients at a time

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts the connections of one listening socket.

    The servers of event loops report connections too late. asyncio's accepts a whole backlog of connections before a
    protocol is notified of the first, and none of them reports a connection before its TLS handshake has ended.

    Args:
        loop: The running loop.
        sock: The listening socket.
        accepted: Called with the socket of a connection and the address of its peer.

    Attributes:
        socket: The listening socket.
        PAUSE: Seconds without accepting, after a shortage of files or memory.
    """

    PAUSE = 1.0

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        accepted: Callable[[socket.socket, Any], None],
    ) -> None:
        self.socket = sock
        self._loop = loop
        self._accepted = accepted
        self._pause: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[None] | None = None
        sock.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Stops accepting, and closes the socket."""
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self.socket)
        self.socket.close()

    def _resume(self) -> None:
        self._pause = None
        try:
            self._loop.add_reader(self.socket, self._accept)
        except NotImplementedError:  # Windows' proactor
            self._waiting = self._loop.create_task(self._accept_by_proactor())

    def _accept(self) -> None:
        """Accepts pending connections; called when the socket is readable."""
        for _ in range(_TOGETHER):
            try:
                sock, address = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._loop.remove_reader(self.socket)
                self._pause = self._loop.call_later(self.PAUSE, self._resume)
                self._failed(error)  # last, because a filter of the log may raise
                return
            self._accepted(sock, address)

    async def _accept_by_proactor(self) -> None:
        while True:
            try:
                sock, address = await self._loop.sock_accept(self.socket)
            except OSError as error:
                self._failed(error)
                await asyncio.sleep(self.PAUSE)
            else:
                self._accepted(sock, address)

    def _failed(self, error: OSError) -> None:
        advice = "; raise the limit of open files, or lower --max-connections" if error.errno in _EXHAUSTED else ""
        logger.error("cannot accept connections for %g s: %s%s", self.PAUSE, error.strerror or error, advice)


class LoopAcceptor:
    """Lets uvloop accept plain connections, which costs less than Python code, and notifies a protocol at once.

    In each pass of the loop, uvloop accepts one connection per listening descriptor. Simultaneous connections are
    faster as a batch, because the processor's caches then hold the code loaded by the first one. So the socket is
    registered under several descriptors. If no descriptor is left for a connection, libuv closes it.

    Attributes:
        socket: The listening socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._servers: list[asyncio.Server] = []

    @staticmethod
    def suits(loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the loop is one of uvloop."""
        return type(loop).__module__ == "uvloop"

    async def start(self, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Starts to accept.

        Args:
            factory: Creates the protocol of a connection.
        """
        listen: Any = loop.create_server
        if self.socket.family == socket.AF_UNIX:
            listen = loop.create_unix_server
            if sys.version_info >= (3, 13):  # the file belongs to the binder of the socket
                listen = partial(listen, cleanup_socket=False)
        for sock in [self.socket, *(self.socket.dup() for _ in range(_BY_UVLOOP - 1))]:
            self._servers.append(await listen(factory, sock=sock, backlog=BACKLOG))

    def close(self) -> None:
        """Stops accepting, and closes the socket."""
        for server in self._servers:
            server.close()
        self.socket.close()
