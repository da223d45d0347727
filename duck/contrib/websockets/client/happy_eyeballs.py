"""Happy Eyeballs: connects to the first address of a host that answers (RFC 8305).

An address may be dead: that of a broken IPv6 network, or of a lost server among several. Without an answer, or an
error, an attempt to connect takes minutes. So the next address is tried after a short delay, while the last attempts
go on. The loops of asyncio can do the same, but not with eager tasks before Python 3.13, and those of uvloop cannot.
"""

import asyncio
import os
import socket
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any

__all__ = ["connect_to"]

_DELAY = 0.25  # seconds before the next address is tried in parallel

_Info = tuple[Any, ...]  # an element of the result of `socket.getaddrinfo`


async def connect_to(host: str, port: int) -> socket.socket:
    """Returns a connected socket.

    Raises:
        OSError: The name has no address, or no address has accepted the connection.
    """
    loop = asyncio.get_running_loop()
    infos = _interleaved(await _resolve(loop, host, port))
    if len(infos) == 1:
        return await _attempt(loop, infos[0])
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while infos or attempts:
            if infos:
                attempts.add(loop.create_task(_attempt(loop, infos.pop(0))))
            timeout = _DELAY if infos else None
            ended, _ = await asyncio.wait(attempts, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for attempt in ended:
                attempts.remove(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                errors.append(error)
    finally:
        for attempt in attempts:
            if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
                attempt.result().close()
            attempt.cancel()
    raise _merged(errors)


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Info]:
    """Returns the addresses of a host."""
    if "%" in host:  # uvloop drops the zone of an IPv6 address
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _interleaved(infos: Iterable[_Info]) -> list[_Info]:
    """Returns the addresses with the families in turn, so that a dead network delays an attempt once."""
    families: dict[Any, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    return [info for info in chain(*zip_longest(*families.values())) if info is not None]


async def _attempt(loop: asyncio.AbstractEventLoop, info: _Info) -> socket.socket:
    """Returns a socket that is connected to an address."""
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        if isinstance(loop, asyncio.BaseEventLoop):
            await loop.sock_connect(sock, address)
        else:  # uvloop's `sock_connect` drops the zone of an IPv6 address
            await _connect(loop, sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
    """Connects a socket; `loop.sock_connect` for a loop with `add_writer`."""
    try:
        sock.connect(address)
        return
    except BlockingIOError:
        pass
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(sock)
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, f"{os.strerror(error)}: {address[0]}")


def _merged(errors: list[BaseException]) -> BaseException:
    """Returns one error for those of several addresses."""
    failures = [error for error in errors if isinstance(error, OSError)]
    if len(failures) < len(errors):
        return errors[0]
    if len({error.errno for error in failures}) == 1:
        return OSError(failures[0].errno, "; ".join(dict.fromkeys(str(error.strerror) for error in failures)))
    return OSError("; ".join(dict.fromkeys(map(str, failures))))
