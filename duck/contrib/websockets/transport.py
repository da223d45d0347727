"""The seam to hosts: how a view gets from the request that a host hands it to the asyncio transport below.

A host gives requests whose `transport` is an asyncio transport with reading paused, and whose `content` is what was
read behind the head. From `attach` or `refuse` on the transport belongs to the view.
"""

import asyncio
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

__all__ = ["attach", "plain_socket", "receive_buffer", "refuse"]

_BUFFER_SIZE = 262144  # the most that one read gives; stays in the second-level cache
_KEEP = 4194304  # bytes of freed memory that the allocator should keep at hand
_LINGER = 2.0  # seconds for a refused peer to read why

# One buffer serves all connections of a thread, because a loop that waits for readiness fills and empties it within
# one callback. It holds nothing between callbacks.
_scratch = threading.local()


def receive_buffer(loop: asyncio.AbstractEventLoop) -> bytearray:
    """Where the connections of `loop` receive, unless `Connection.get_buffer` knows better."""
    if sys.platform == "win32" and isinstance(loop, asyncio.ProactorEventLoop):
        return bytearray(_BUFFER_SIZE)  # a proactor reads while other callbacks run
    try:
        buffer: bytearray = _scratch.buffer
    except AttributeError:
        buffer = _scratch.buffer = bytearray(_BUFFER_SIZE)
        # glibc's malloc sets its thresholds by the largest block that it has seen freed. Without this one, the pages of
        # each large message go back to the kernel and are zeroed again for the next: 1 MiB echoes cost 1.8 times more.
        bytes(_KEEP)
    return buffer


def plain_socket(transport: asyncio.BaseTransport) -> int:
    """The file descriptor that carries just what is written to the transport; -1 where there is none, as under TLS."""
    if sys.platform == "win32" or transport.get_extra_info("sslcontext") is not None:
        return -1
    socket = transport.get_extra_info("socket")
    return socket.fileno() if socket is not None else -1


def attach(request: "HttpRequest", protocol: asyncio.BufferedProtocol, response: bytes) -> bytes:
    """Answers an upgrade request and hands its transport over; reading stays paused.

    Args:
        response: The head of the 101 response.

    Returns:
        What the peer sent right behind its request.
    """
    transport = _transport(request)
    transport.write(response)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    early, request.content = request.content, b""
    return early


def refuse(request: "HttpRequest", response: bytes) -> None:
    """Answers a request that is no handshake, and ends the connection so that the peer gets to read the answer."""
    transport = _transport(request)
    transport.write(response)
    if not transport.can_write_eof():
        transport.close()
        return
    # With bytes of the peer unread, closing would reset the connection and destroy the answer on its way.
    transport.write_eof()
    loop = asyncio.get_running_loop()
    transport.set_protocol(_Discarding(receive_buffer(loop), loop.call_later(_LINGER, transport.abort)))
    transport.resume_reading()


def _transport(request: "HttpRequest") -> asyncio.Transport:
    if request.transport is None:
        raise RuntimeError("the request has no transport: a WebSocketView runs on a request that a host has received")
    return request.transport


class _Discarding(asyncio.BufferedProtocol):
    """Reads until the peer has closed."""

    def __init__(self, buffer: bytearray, deadline: asyncio.TimerHandle) -> None:
        self._buffer = buffer
        self._deadline = deadline

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
