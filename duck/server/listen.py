"""Opens the sockets that a server listens on, and says where they are."""

import asyncio
import errno
import ipaddress
import os
import socket
import stat
from contextlib import suppress
from typing import Any

__all__ = ["UnixListener", "bind", "duplicates", "url"]

_ACCEPTED_TOGETHER = 4  # 8 brought nothing more, with 16 or with 64 clients at a time

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def bind(host: str | None, port: int) -> socket.socket | None:
    """A TCP socket bound to an IP address; None for what the event loop is to resolve, a name or a zone.

    uvloop resolves whatever it is given in a pool of threads, and a process of one thread is better
    off: only where threads share its files does the kernel count who uses one, at every call.

    Raises:
        OSError: The address cannot be had.
    """
    if host is None or "%" in host:
        return None
    try:
        family = _FAMILIES[ipaddress.ip_address(host).version]
    except ValueError:
        return None
    # asyncio turns Nagle's algorithm off only where the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def duplicates(listener: asyncio.Server) -> list[socket.socket]:
    """Its sockets under further descriptors, to listen on as well, for a loop that accepts one connection a turn.

    uvloop accepts one for each descriptor. Connections that come together are faster done together: what one of them
    has brought into the processor's caches, the code above all, serves the others.
    """
    if type(listener.get_loop()).__module__ != "uvloop":
        return []  # asyncio accepts all there are
    files = [sock.fileno() for sock in listener.sockets] * (_ACCEPTED_TOGETHER - 1)
    return [socket.socket(fileno=os.dup(file)) for file in files]


class UnixListener:
    """A listening Unix socket, and its place in the file system.

    The file's permissions are what the process's umask leaves.
    """

    def __init__(self, path: str) -> None:
        """Bind to a path; a socket there that nobody listens on any more is replaced.

        Raises:
            OSError: Another process listens there, or it is not a socket, or not ours to make.
        """
        self.path = path
        _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(path)
        except OSError:
            self.socket.close()
            raise
        self._inode = os.stat(path).st_ino

    def unlink(self) -> None:
        """Remove the file, unless another server has put its own there."""
        with suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone.

    Raises:
        OSError: A server answers there, or there is something that is no socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)
                return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def url(listener: Any, secure: bool) -> str:
    """Where a listening socket is to be found, as a URL.

    Args:
        listener: The socket.
        secure: Whether it expects TLS.
    """
    address = listener.getsockname()
    scheme = "wss" if secure else "ws"
    if not isinstance(address, tuple):
        return f"{scheme}+unix:{os.fsdecode(address)}"
    host, port = address[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
