"""Opens the sockets that a server listens on, and says where they are."""

import asyncio
import errno
import ipaddress
import os
import socket
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = ["UnixListener", "balances", "bind", "bind_again", "url"]

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_MODE = 0o666


async def bind(host: str | None, port: int) -> list[socket.socket]:
    """TCP sockets bound to all the addresses of a host, with the same port.

    Args:
        host: An IP address, or a name; None for every interface, by IPv4 and IPv6.
        port: 0 for one that is free.

    Raises:
        OSError: An address cannot be had. One of a family that the machine has not is left out, if it is not the last.
    """
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, address in await _resolve(host, port):
            if sockets:
                port = sockets[0].getsockname()[1]
            try:
                sockets.append(_bind(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                failure = error
        if not sockets and failure is not None:
            raise failure
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


async def _resolve(host: str | None, port: int) -> list[tuple[int, Any]]:
    """The families and addresses of a host.

    An IP address is not given to the loop, which resolves in a pool of threads: a process of one thread is better off,
    as only where threads share its files does the kernel count who uses one, at every call.
    """
    if host is not None and "%" not in host:
        with suppress(ValueError):
            return [(_FAMILIES[ipaddress.ip_address(host).version], (host, port))]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind(family: int, address: Any, shared: bool = False) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def balances(sock: socket.socket) -> bool:
    """Whether the kernel spreads connections evenly over sockets that are bound to the address of this one."""
    return sys.platform == "linux" and sock.family in _FAMILIES.values()


def bind_again(addresses: Sequence[tuple[int, Any]]) -> list[socket.socket]:
    """TCP sockets bound to addresses that others of this user may share.

    Args:
        addresses: Families and addresses.

    Raises:
        OSError: An address cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            sockets.append(_bind(family, address, shared=True))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


class UnixListener:
    """A listening Unix socket, and its place in the file system."""

    def __init__(self, path: str, mode: int | None = None) -> None:
        """Bind to a path; a socket there that nobody listens on any more is replaced.

        Args:
            path: Where.
            mode: The file's permissions, whatever the umask; None for those of the socket that is replaced, or 0o666:
                whoever may reach the folder may connect, as a proxy under a user of its own must.

        Raises:
            OSError: Another process listens there, or it is not a socket, or not ours to make.
        """
        self.path = path
        replaced = _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(path)
            os.chmod(path, replaced if mode is None else mode)
        except OSError:
            self.socket.close()
            raise
        self._inode = os.stat(path).st_ino

    def unlink(self) -> None:
        """Remove the file, unless another server has put its own there."""
        with suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)


def _remove_stale(path: str) -> int:
    """Remove the socket of a server that is gone.

    Returns:
        Its permissions; those of a new socket where there was none.

    Raises:
        OSError: A server answers there, or there is something that is no socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _MODE
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)
                return stat.S_IMODE(mode)
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
