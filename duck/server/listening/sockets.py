"""Listening sockets: functions that bind them, `UnixListener`, and their URLs."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from duck.contrib.websockets.logging import format_address

from .accept import BACKLOG

__all__ = [
    "UnixListener",
    "balances",
    "bind",
    "bind_again",
    "check_listener",
    "check_sockets",
    "closed_on_failure",
    "url",
]

logger = logging.getLogger("duck.server")

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_MODE = 0o666

_ATTEMPTS = 10  # at a port that is free at every address of a host


@contextlib.contextmanager
def closed_on_failure(sockets: Iterable[socket.socket]) -> Iterator[None]:
    """Closes sockets if the block fails."""
    try:
        yield
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


def check_sockets(sockets: Sequence[socket.socket], uds: str | os.PathLike[str] | None) -> None:
    """Checks the sockets that an application has given.

    Args:
        sockets: The sockets.
        uds: The path of a Unix socket that it wants as well.

    Raises:
        ValueError: There are both, or a socket cannot be listened on.
    """
    if sockets and uds is not None:
        raise ValueError("uds and sockets each say where to listen; give one of them")
    for sock in sockets:
        try:
            check_listener(sock)
        except ValueError as error:
            raise ValueError(f"cannot listen on {sock!r}: {error}") from None


def check_listener(sock: socket.socket) -> None:
    """Checks a socket that this package has not opened.

    Raises:
        ValueError: It is neither a TCP socket nor a Unix stream socket, or it is not bound.
    """
    if sock.type != socket.SOCK_STREAM or sock.family not in (*_FAMILIES.values(), getattr(socket, "AF_UNIX", None)):
        raise ValueError("it is neither a TCP socket nor a Unix stream socket")
    name = sock.getsockname()
    if not (name[1] if isinstance(name, tuple) else name):
        raise ValueError("it has no address; bind it first")


async def bind(host: str | None, port: int) -> list[socket.socket]:
    """Returns TCP sockets bound to all addresses of a host, with the same port.

    Args:
        host: An IP address or a name; None for every interface, by IPv4 and IPv6.
        port: 0 for a free one.

    Raises:
        OSError: An address is not available. An address of a family that the machine lacks is skipped, unless it is the
            last.
    """
    addresses = await _resolve(host, port)
    for _ in range(_ATTEMPTS - 1 if port == 0 and len(addresses) > 1 else 0):
        try:
            return _bind_all(addresses, port)
        except OSError as error:  # another address than the first may have the port taken
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(addresses, port)


def _bind_all(addresses: Sequence[tuple[int, Any]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    with closed_on_failure(sockets):
        for family, address in addresses:
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
    return sockets


async def _resolve(host: str | None, port: int) -> list[tuple[int, Any]]:
    """Returns the families and addresses of a host.

    An IP address bypasses the loop's resolver, which uses threads. A process with a single thread is faster: the kernel
    counts references to files at every call only if threads share them.
    """
    if host is not None and "%" not in host:
        with contextlib.suppress(ValueError):
            return [(_FAMILIES[ipaddress.ip_address(host).version], (host, port))]
    try:
        if host is not None and "%" in host:  # uvloop drops the zone of an IPv6 address
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        else:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:  # such as an empty label
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind(family: int, address: Any, shared: bool = False) -> socket.socket:
    # asyncio disables Nagle's algorithm only if the protocol is named.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        error.filename = format_address(address)  # the message ends with it
        raise
    return sock


def balances(sock: socket.socket) -> bool:
    """Whether the kernel balances connections over sockets bound to the same address as this one."""
    return sys.platform == "linux" and sock.family in _FAMILIES.values()


def bind_again(addresses: Sequence[tuple[int, Any]]) -> list[socket.socket]:
    """Returns TCP sockets bound to addresses that other sockets of this user may share.

    Args:
        addresses: Families and addresses.

    Raises:
        OSError: An address is not available.
    """
    sockets: list[socket.socket] = []
    with closed_on_failure(sockets):
        for family, address in addresses:
            sockets.append(_bind(family, address, shared=True))
    return sockets


class UnixListener:
    """A listening Unix socket and its file."""

    def __init__(self, path: str | os.PathLike[str], mode: int | None = None) -> None:
        """Listens at a path; a stale socket there is replaced.

        Args:
            path: The path of the file.
            mode: The file's permissions, regardless of the umask; None for those of the replaced socket, or 0o666. Then
                any user with access to the folder can connect, such as the user of a proxy.

        Raises:
            OSError: Another process listens there, or the file is not a socket or cannot be created.
        """
        self.path = path = os.fspath(path)
        replaced = _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.bind(path)
            os.chmod(path, replaced if mode is None else mode)
            # At once, and not when a worker serves: until then another server would take the socket for a stale one.
            self.socket.listen(BACKLOG)
        except OSError as error:
            self.socket.close()
            if error.errno is None:  # the path is too long for an address
                raise OSError(errno.ENAMETOOLONG, str(error), path) from None
            error.filename = path
            raise
        self._identity = _identity(path)

    def unlink(self) -> None:
        """Removes the file, unless it belongs to another server by now. If that fails, a later server replaces it."""
        try:
            if _identity(self.path) == self._identity:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.warning("cannot remove %s: %s", self.path, error.strerror)


def _identity(path: str) -> tuple[int, int]:
    """Returns values that differ for files at a path one after the other. A file system may use an inode again."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns


def _remove_stale(path: str) -> int:
    """Removes the socket file of a server that is gone.

    Returns:
        Its permissions; without a file, those of a new socket.

    Raises:
        OSError: A server answers there, or the file is not a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return _MODE
    if stat.S_ISSOCK(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # a server that hangs may have a full backlog
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)
                return stat.S_IMODE(mode)
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def url(listener: Any, secure: bool) -> str:
    """Returns the URL of a listening socket.

    Args:
        listener: The socket.
        secure: Whether it expects TLS.
    """
    address = listener.getsockname()
    scheme = "wss" if secure else "ws"
    if not isinstance(address, tuple):
        path = os.fsdecode(address)  # that of an abstract socket begins with NUL, which systemd and others write as @
        return f"{scheme}+unix:{path.replace(chr(0), '@')}"
    host, port, *rest = address
    if any(rest):  # the address has a zone (RFC 6874)
        host += f"%25{socket.if_indextoname(rest[-1])}"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
