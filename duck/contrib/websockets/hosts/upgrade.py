"""The interface between a view and its host: the transport of an upgrade request, and the response to the request.

A host's request has an asyncio transport as `transport`, and the bytes behind its head as `content`. The host calls
`WebSocketView.start`, or awaits `WebSocketView.run`; from then on the view owns the transport. Before a host awaits
`run`, it pauses reading, so that no byte is lost.

A request of Duck Framework has a socket instead. `adopt` converts it, and `leave` closes it as the framework expects.
"""

import asyncio
from typing import TYPE_CHECKING, Protocol

from ..exceptions import ConnectionClosed
from ..protocol.lingering import LINGER_TIMEOUT, Lingering
from ..sansio.handshake import refusal, switching_protocols

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

    from ..exceptions import HandshakeError
    from ..sansio.handshake import Acceptance

__all__ = [
    "EARLY_LIMIT",
    "Responder",
    "accept",
    "adopt",
    "attach",
    "leave",
    "pause",
    "refuse",
]


EARLY_LIMIT = 65536
"""Bytes that are kept of what a peer sends before the response, before reading is paused."""


class Responder(Protocol):
    """A host that takes part in the response to an upgrade request, as `HttpRequest.responder`."""

    async def accept(self, acceptance: "Acceptance") -> bytes:
        """Answers an accepted request, or returns the response for the view to write.

        Returns:
            The head of the 101 response; empty if the host has answered.

        Raises:
            ConnectionClosed: The host has sent another response, or the peer has disconnected.
        """
        raise NotImplementedError

    def refuse(self, error: "HandshakeError") -> None:
        """Answers a refused request, and ends the connection."""


async def adopt(request: "HttpRequest") -> "HttpRequest":
    """Returns the request with an asyncio transport, for any host."""
    if _has_transport(request):
        return request
    from . import duckframework

    return await duckframework.adopt(request)


async def leave(request: "HttpRequest") -> None:
    """Ends `run` as its host requires; the last step of `run`."""
    if not _has_transport(request):
        from . import duckframework

        await duckframework.leave(request)


def _has_transport(request: "HttpRequest") -> bool:
    return hasattr(request, "transport")


async def accept(request: "HttpRequest", acceptance: "Acceptance") -> bytes:
    """Returns the head of the 101 response for `attach`; see `Responder.accept`."""
    responder: Responder | None = getattr(request, "responder", None)
    return switching_protocols(acceptance) if responder is None else await responder.accept(acceptance)


def attach(request: "HttpRequest", protocol: asyncio.BufferedProtocol, response: bytes) -> bytes:
    """Answers an upgrade request, and hands its transport to a protocol, which has to resume reading.

    Args:
        response: The head of the 101 response; empty if the host has answered.

    Returns:
        The bytes that the peer sent directly behind its request.

    Raises:
        ConnectionClosed: The peer has already disconnected, so the protocol would get no `connection_lost`.
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
    """Refuses a request, and ends the connection so that the peer can read the response."""
    responder: Responder | None = getattr(request, "responder", None)
    if responder is not None:
        responder.refuse(error)
        return
    transport = _transport(request)
    transport.write(refusal(error, head_only=request.method == "HEAD"))
    Lingering(transport, _linger_timeout(request))


def _linger_timeout(request: "HttpRequest") -> float:
    """Seconds for a refused peer to read the response: `Limits.linger_timeout` of the embedded server."""
    server = getattr(getattr(request, "application", None), "server", None)
    timeout: float = getattr(getattr(server, "limits", None), "linger_timeout", LINGER_TIMEOUT)
    return timeout


def pause(request: "HttpRequest") -> None:
    """Pauses reading until `attach` or `refuse`."""
    _transport(request).pause_reading()


def _transport(request: "HttpRequest") -> asyncio.Transport:
    if request.transport is None:
        raise RuntimeError("the request has no transport: run a WebSocketView on a request that a server has received")
    return request.transport
