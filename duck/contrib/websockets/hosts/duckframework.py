"""Duck Framework as a host: conversion of a request's socket to an asyncio transport, and the end of `run`.

Inside the framework this package replaces the framework's own. The framework reads a request, creates a view for it,
awaits the view's `run`, and then closes the socket. So `run` must not return before the transport has closed the
socket.
"""

import asyncio
import contextlib
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ..exceptions import ConnectionClosed

if TYPE_CHECKING:
    from duck.http.request import HttpRequest

__all__ = ["UpgradeRequest", "adopt", "leave"]

_PAUSE = 0.005  # seconds between two checks of a socket that is about to be closed


class UpgradeRequest:
    """A request of the framework with the attributes of `duck.http.request.HttpRequest` that a view uses.

    Args:
        request: The framework's request.
        transport: The connection.
        secure: Whether the connection is encrypted.
    """

    def __init__(self, request: Any, transport: asyncio.Transport, secure: bool) -> None:
        self.method: str = request.method
        self.path: str = request.path
        self.http_version: str = request.http_version.removeprefix("HTTP/")
        self.headers = SimpleNamespace(get=request.get_header)
        self.client_address = request.client_address
        self.META: dict[str, Any] = request.META
        self.secure = secure
        self.transport = transport
        self.content = bytes(request.content or b"")  # bytes read behind the head
        self._request = request

    @property
    def cookies(self) -> dict[str, str]:
        """The parsed cookies by name."""
        return dict(self._request.COOKIES)


async def adopt(request: Any) -> "HttpRequest":
    """Creates an asyncio transport, with reading paused, from the connection of a request.

    Raises:
        ConnectionClosed: The peer has disconnected.
        RequestError: The framework's error, for a stream of an HTTP/2 connection, which has no socket of its own.
    """
    client = request.client_socket
    if getattr(client, "h2_handling", False):
        from duck.exceptions.all import RequestError  # type: ignore[import-not-found]

        request.META["DEBUG_MESSAGE"] = "WebSocket Error: not on HTTP/2"
        raise RequestError("a WebSocket needs HTTP/1.1, and this is HTTP/2")
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    encrypted = getattr(client, "ssl_obj", None)
    try:
        transport, _ = await loop.connect_accepted_socket(_Paused, sock=client.raw_socket)
    except OSError:
        raise ConnectionClosed from None
    request.adopted = client.raw_socket
    if encrypted is not None:
        transport = TlsTransport(loop, transport, encrypted, client.ssl_inbio, client.ssl_outbio)
    adopted = UpgradeRequest(request, transport, encrypted is not None)
    return cast("HttpRequest", adopted)


async def leave(request: Any) -> None:
    """Ends `run` as the framework requires after a view that has answered by itself.

    Raises:
        ExpectingNoResponse: Always; an exception of the framework.
    """
    from duck.exceptions.all import ExpectingNoResponse  # pyright: ignore[reportMissingImports]

    socket = getattr(request, "adopted", None)
    # The transport has been closed, but it closes the socket a few passes of the loop later.
    while socket is not None and socket.fileno() >= 0:  # noqa: ASYNC110
        await asyncio.sleep(_PAUSE)
    request.client_socket.close()
    raise ExpectingNoResponse("a WebSocketView answers by itself")


class _Paused(asyncio.Protocol):
    """A placeholder with reading paused, until another protocol replaces it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


class TlsTransport(asyncio.Transport):
    """TLS on a plain transport, after the framework has performed the TLS handshake.

    Args:
        loop: The event loop.
        plain: The transport of the records.
        tls: The state of TLS, on memory BIOs.
        incoming: The BIO for received records.
        outgoing: The BIO of records to send.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plain: asyncio.Transport,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._plain = plain
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._protocol: Any = asyncio.BufferedProtocol()
        self._reading = False
        self._ended = False  # whether the peer has ended its side
        plain.set_protocol(_Records(self))

    # From the plain transport

    def receive(self, data: bytes) -> None:
        """Handles received records."""
        self._incoming.write(data)
        self._decrypt()

    def receive_eof(self) -> None:
        """Handles the end of the stream."""
        if not self._ended:
            self._ended = True
            self._protocol.eof_received()

    @property
    def protocol(self) -> Any:
        """The receiver of the decrypted bytes."""
        return self._protocol

    def _decrypt(self) -> None:
        try:
            while self._reading and not self._ended and not self._plain.is_closing():
                protocol = self._protocol  # each read may change it
                buffer = protocol.get_buffer(-1)
                size = self._tls.read(len(buffer), buffer)
                if not size:
                    raise ssl.SSLZeroReturnError
                protocol.buffer_updated(size)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.receive_eof()
            self.close()
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def _flush(self) -> None:
        records = self._outgoing.read()
        if records and not self._plain.is_closing():
            self._plain.write(records)

    # For its protocol

    def write(self, data: Any) -> None:
        if self.is_closing() or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def close(self) -> None:
        if self._plain.is_closing():
            return
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()  # writes a close_notify, without a wait for the peer's
        self._flush()
        self._plain.close()

    def abort(self) -> None:
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._plain.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._tls.context
        if name == "ssl_object":
            return self._tls
        return self._plain.get_extra_info(name, default)

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self.is_closing():
            self._reading = True
            self._plain.resume_reading()
            self._loop.call_soon(self._decrypt)  # bytes received already, with the request or before a pause

    def is_reading(self) -> bool:
        return self._reading

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._plain.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._plain.set_write_buffer_limits(high, low)


class _Records(asyncio.Protocol):
    """Forwards the events of the plain transport to the TLS transport."""

    def __init__(self, transport: TlsTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.receive(data)

    def eof_received(self) -> None:
        self._transport.receive_eof()

    def pause_writing(self) -> None:
        self._transport.protocol.pause_writing()

    def resume_writing(self) -> None:
        self._transport.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.protocol.connection_lost(exc)
