"""A tunnel through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6).

The library python-socks, which speaks SOCKS here, takes the first segment of TCP for the whole answer.
"""

import asyncio
import socket

from ..credentials import basic_authorization
from ..exceptions import InvalidHandshake
from ..sansio.response import Response

__all__ = ["open_tunnel"]

_MOST_HEAD = 65536  # bytes
_END = b"\r\n\r\n"


async def open_tunnel(sock: socket.socket, host: str, port: int, credentials: tuple[str, str] | None) -> None:
    """Asks a proxy for a connection to a host.

    Args:
        sock: A socket that is connected to the proxy.
        host: A name or an IP address, without brackets.
        credentials: User and password for the proxy, or None.

    Raises:
        OSError: The proxy has refused, or its answer is not that of HTTP/1.1.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _request(host, port, credentials))
    status = 100
    head = rest = b""
    while status < 200:  # interim responses precede the answer
        head, rest = await _receive_head(loop, sock, rest)
        try:
            status = Response(head).status
        except InvalidHandshake as error:
            raise OSError(str(error)) from None
    if status >= 300:
        raise OSError(head.partition(b"\r\n")[0].partition(b" ")[2].decode("latin-1"))  # with the reason of the proxy
    if rest:
        raise OSError("it sent data behind its answer, before the request of the client")


def _request(host: str, port: int, credentials: tuple[str, str] | None) -> bytes:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n"
    if credentials is not None:
        lines += f"Proxy-Authorization: {basic_authorization(*credentials)}\r\n"
    return f"{lines}\r\n".encode("ascii")


async def _receive_head(loop: asyncio.AbstractEventLoop, sock: socket.socket, early: bytes) -> tuple[bytes, bytes]:
    """Returns the head of a response, and the bytes behind it."""
    received = bytearray(early)
    searched = 0
    while (end := received.find(_END, searched)) < 0:
        if len(received) >= _MOST_HEAD:
            raise OSError(f"its answer is over {_MOST_HEAD} bytes")
        searched = max(len(received) - len(_END), 0)
        data = await loop.sock_recv(sock, _MOST_HEAD)
        if not data:
            raise OSError("it ended the connection" + (" in the middle of its answer" if received else ""))
        received += data
    end += len(_END)
    return bytes(received[:end]), bytes(received[end:])
