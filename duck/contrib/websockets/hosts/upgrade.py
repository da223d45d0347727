"""The seam to hosts: how a view gets from the request that a host hands it to the asyncio transport below.

A host gives requests whose `transport` is an asyncio transport and whose `content` is what was read behind the head. It
hands them to `WebSocketView.start`, or awaits `WebSocketView.run`; then the transport is the view's. To await `run` it
must have paused reading, for nothing that comes in between may be lost.

One host is different: the requests of Duck Framework have a socket. `adopt` and `leave` see to that.
"""

import asyncio
from typing import TYPE_CHECKING, Protocol

from ..codec import ReceiveBuffer
from ..exceptions import ConnectionClosed
from ..protocol.loop import receive_buffer
from ..protocol.transports import end_stream
from ..sansio.handshake import refusal, switching_protocols
from . import duckframework

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

    from ..exceptions import HandshakeError
    from ..sansio.handshake import Acceptance

__all__ = [
    "Responder",
    "accept",
    "adopt",
    "attach",
    "leave",
    "pause",
    "refuse",
]

_LINGER = 2.0  # seconds for a refused peer to read why, where its host has no limit for that


class Responder(Protocol):
    """The part of a host in the answer to an upgrade request; `HttpRequest.responder`."""

    async def accept(self, acceptance: "Acceptance") -> bytes:
        """Answers a request that is accepted, or gives the response for the view to write.

        Returns:
            The head of the 101 response; empty where the host has answered.

        Raises:
            ConnectionClosed: The host has answered otherwise, or the peer has gone.
        """
        raise NotImplementedError

    def refuse(self, error: "HandshakeError") -> None:
        """Answers a request that is refused, and ends the connection."""


async def adopt(request: "HttpRequest") -> "HttpRequest":
    """The request with its transport, from whatever host it is."""
    return request if _has_transport(request) else await duckframework.adopt(request)


async def leave(request: "HttpRequest") -> None:
    """What is to be done when the connection has ended, before `run` does."""
    if not _has_transport(request):
        await duckframework.leave(request)


def _has_transport(request: "HttpRequest") -> bool:
    return hasattr(request, "transport")


async def accept(request: "HttpRequest", acceptance: "Acceptance") -> bytes:
    """The head of the 101 response for `attach`, as `Responder.accept`."""
    responder: Responder | None = getattr(request, "responder", None)
    return switching_protocols(acceptance) if responder is None else await responder.accept(acceptance)


def attach(request: "HttpRequest", protocol: asyncio.BufferedProtocol, response: bytes) -> bytes:
    """Answers an upgrade request and hands its transport over to a protocol, which has to see that it reads.

    Args:
        response: The head of the 101 response; empty where the host has answered.

    Returns:
        What the peer sent right behind its request.

    Raises:
        ConnectionClosed: The peer has gone meanwhile, and the protocol would not hear of it.
    """
    transport = _transport(request)
    if transport.is_closing():
        raise ConnectionClosed
    if response:
        transport.write(response)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    early, request.content = request.content, b""
    return early


def refuse(request: "HttpRequest", error: "HandshakeError") -> None:
    """Refuses a request, and ends the connection so that the peer gets to read the response."""
    responder: Responder | None = getattr(request, "responder", None)
    if responder is not None:
        responder.refuse(error)
        return
    transport = _transport(request)
    response = refusal(error, head_only=request.method == "HEAD")
    deadline = answer_last(transport, response, _linger_timeout(request))
    if deadline is not None:
        transport.set_protocol(_Discarding(receive_buffer(asyncio.get_running_loop()), deadline))
        if not transport.is_reading():
            transport.resume_reading()


def _linger_timeout(request: "HttpRequest") -> float:
    """Seconds for a refused peer to read why: `Limits.linger_timeout` of the embedded server."""
    server = getattr(getattr(request, "application", None), "server", None)
    timeout: float = getattr(getattr(server, "limits", None), "linger_timeout", _LINGER)
    return timeout


def answer_last(
    transport: asyncio.Transport, response: bytes, timeout: float | None = None
) -> asyncio.TimerHandle | None:
    """Writes the last that a peer is told, and ends the connection when the peer does, or after a while.

    Args:
        timeout: Seconds that the peer has to read it.

    Returns:
        What aborts it then, meanwhile what the peer sends is to be read; None if it closes at once, as with TLS.
    """
    transport.write(response)
    if not transport.can_write_eof():
        transport.close()
        return None
    # With bytes of the peer unread, closing would reset the connection and destroy the answer on its way.
    end_stream(transport)
    return asyncio.get_running_loop().call_later(_LINGER if timeout is None else timeout, transport.abort)


def pause(request: "HttpRequest") -> None:
    """Lets nothing come until `attach` or `refuse`."""
    _transport(request).pause_reading()


def _transport(request: "HttpRequest") -> asyncio.Transport:
    if request.transport is None:
        raise RuntimeError("the request has no transport: a WebSocketView runs on a request that a host has received")
    return request.transport


class _Discarding(asyncio.BufferedProtocol):
    """Reads until the peer has closed."""

    def __init__(self, buffer: ReceiveBuffer, deadline: asyncio.TimerHandle) -> None:
        self._buffer = buffer
        self._deadline = deadline

    def get_buffer(self, sizehint: int) -> memoryview:
        self._buffer = self._buffer.unused()
        return self._buffer.window

    def buffer_updated(self, nbytes: int) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
