"""A tunnel through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6).

The library python-socks takes the first segment of TCP for the whole answer.
"""

import asyncio
import re
import socket

from ..credentials import basic_authorization

__all__ = ["open_tunnel"]

_MOST_HEAD = 65536  # bytes
_LONGEST_END = 4  # bytes of an empty line and the end of the line before
_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] +(\d{3}(?: [^\r\n]*)?)\r?\n")


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
    received = bytearray()
    while True:
        searched = max(len(received) - _LONGEST_END, 0)
        data = await loop.sock_recv(sock, _MOST_HEAD)
        if not data:
            raise OSError("it ended the connection" + (" in the middle of its answer" if received else ""))
        received += data
        while end := _END.search(received, searched):
            answer = _STATUS_LINE.match(received)
            if answer is None:
                raise OSError(f"its answer is not HTTP/1.1: {bytes(received[: end.start()])!r}")
            status = answer[1].decode("latin-1")
            if status[0] == "2":
                if len(received) > end.end():
                    raise OSError("it sent data behind its answer, before the request of the client")
                return
            if status[0] != "1":
                raise OSError(status)
            del received[: end.end()]  # an interim response
            searched = 0
        if len(received) >= _MOST_HEAD:
            raise OSError(f"its answer is over {_MOST_HEAD} bytes")


def _request(host: str, port: int, credentials: tuple[str, str] | None) -> bytes:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n"
    if credentials is not None:
        lines += f"Proxy-Authorization: {basic_authorization(*credentials)}\r\n"
    return f"{lines}\r\n".encode("ascii")
