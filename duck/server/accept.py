"""Accepts the connections that come to listening sockets: a few at a time, and none for a while once files run out."""

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["BACKLOG", "Acceptor", "LoopAcceptor"]

logger = logging.getLogger("duck.server")

BACKLOG = 4096
"""Connections that the kernel holds until they are accepted; it caps the figure at its own."""

_TOGETHER = 16  # accepted at most before the loop looks at anything else
_BY_UVLOOP = 4  # as many listening descriptors; 8 brought nothing more, with 16 or with 64 clients at a time

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """Accepts what comes to one listening socket.

    The loops' own servers would do that too late: asyncio's accepts as many connections as its backlog is long before a
    protocol hears of the first, and none of them tells of a connection before its TLS handshake has ended.

    Args:
        loop: The running loop.
        sock: Listens.
        accepted: Takes the socket of a connection and the address of its peer.

    Attributes:
        socket: Listens.
        PAUSE: Seconds without accepting, once there is no file or memory for another connection.
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
        """Accept nothing more, and close the socket."""
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
        """The socket is readable."""
        for _ in range(_TOGETHER):
            try:
                sock, address = self.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._failed(error)
                self._loop.remove_reader(self.socket)
                self._pause = self._loop.call_later(self.PAUSE, self._resume)
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
    """Has uvloop accept plain connections, which costs less than in Python, and is told to a protocol at once.

    uvloop accepts one connection for each listening descriptor in a turn. Connections that come together are faster
    done together: what one of them has brought into the processor's caches, the code above all, serves the others. So
    the socket is there under some descriptors. Where no file is left for a connection, libuv closes it.

    Attributes:
        socket: Listens.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._servers: list[asyncio.Server] = []

    @staticmethod
    def suits(loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the loop is uvloop's."""
        return type(loop).__module__ == "uvloop"

    async def start(self, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Begin to accept.

        Args:
            factory: Makes the protocol of a connection.
        """
        listen: Any = loop.create_server
        if self.socket.family == socket.AF_UNIX:
            listen = loop.create_unix_server
            if sys.version_info >= (3, 13):  # the file belongs to the one who has bound the socket
                listen = partial(listen, cleanup_socket=False)
        files = [os.dup(self.socket.fileno()) for _ in range(_BY_UVLOOP - 1)]
        for sock in [self.socket, *(socket.socket(fileno=file) for file in files)]:
            self._servers.append(await listen(factory, sock=sock, backlog=BACKLOG))

    def close(self) -> None:
        """Accept nothing more, and close the socket."""
        for server in self._servers:
            server.close()
        self.socket.close()
