"""Dialing: from a URL to a transport with a successful handshake (name, proxy, TLS, request, response, redirects).

    dial -> a transport and its handshake, which has succeeded

`WebSocketClient.open` calls `dial`. Any failure closes the transport.
"""

import asyncio
import socket
import ssl as tls
from collections.abc import Coroutine, Mapping, Sequence
from functools import cache
from typing import Any

from ..exceptions import HandshakeRefused
from ..sansio.client_handshake import ClientHandshake
from ..sansio.negotiation import ClientOffer
from ..sansio.response import ResponseHeaders
from .address import Address
from .happy_eyeballs import connect_to
from .proxies import connect_through, proxy_for
from .route import Route

__all__ = ["Opening", "dial", "new_opening"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFUSAL_TIMEOUT = 2.0  # seconds for the content of a refusal after its head


async def dial(
    address: Address, route: Route, subprotocols: Sequence[str], extensions: Mapping[str, ClientOffer]
) -> tuple["Opening", Address]:
    """Connects, performs the handshake, and follows redirects.

    Returns:
        The protocol of the handshake, whose transport has reading paused; and the final address.

    Raises:
        HandshakeFailed: The server refused, or its response breaks the rules.
        OSError: The network, the proxy or TLS failed.
        ValueError: The options contradict each other, or cannot be sent.
    """
    first = address
    redirects = 0
    while True:
        is_first = address.is_same_host(first)
        opening = new_opening(address, route, is_first, subprotocols, extensions)
        await _connecting(address, route, opening, route.server_hostname if is_first else None)
        try:
            await opening.agreement
            return opening, address
        except HandshakeRefused as error:
            opening.transport.abort()
            redirects += 1
            address = _redirected(address, route, error, redirects)
        except BaseException:
            opening.transport.abort()
            raise


def new_opening(
    address: Address,
    route: Route,
    is_first: bool,
    subprotocols: Sequence[str],
    extensions: Mapping[str, ClientOffer],
) -> "Opening":
    """Returns the protocol of a new handshake.

    Args:
        is_first: See `Route.fields`.

    Raises:
        ValueError: An option cannot be sent.
    """
    fields = route.fields(address, is_first)
    # Positional arguments: keywords would cost as much again as the call.
    handshake = ClientHandshake(
        address.target, address.netloc, subprotocols, extensions, fields, route.user_agent, None
    )
    return Opening(asyncio.get_running_loop(), handshake)


def _redirected(address: Address, route: Route, error: HandshakeRefused, redirects: int) -> Address:
    """Returns the address to which a refusal redirects; raises the refusal if it does not redirect."""
    assert isinstance(error.headers, ResponseHeaders)
    locations = error.headers.get_all("location")
    if error.status not in _REDIRECTS or len(locations) != 1 or route.max_redirects == 0:
        raise error
    if route.sock is not None or route.unix is not None:
        raise error  # the next request would use a closed socket, or go to another host
    try:
        address = address.redirected(locations[0])
    except ValueError as cause:
        message = f"the redirect of the server cannot be followed: {cause}"
        raise HandshakeRefused(message, error.status, error.headers, error.body) from None
    if redirects > route.max_redirects:
        message = f"more than {route.max_redirects} redirects, the last one to {address.url}"
        raise HandshakeRefused(message, error.status, error.headers, error.body)
    return address


def _connecting(
    address: Address, route: Route, opening: "Opening", server_hostname: str | None
) -> Coroutine[Any, Any, object]:
    """Returns an awaitable that connects; `opening` then sends the request."""
    loop = opening.loop
    options: dict[str, Any] = {}
    if address.secure:
        options["ssl"] = (
            route.ssl if isinstance(route.ssl, tls.SSLContext) else _default_context(route.ssl is not False)
        )
        options["server_hostname"] = server_hostname or address.server_hostname
    elif route.ssl or route.server_hostname:
        name = "ssl" if route.ssl else "server_hostname"
        raise ValueError(f"{name} is for wss, but the URL is {address.url}: change one of them")
    if route.unix is not None:
        return loop.create_unix_connection(lambda: opening, route.unix, **options)
    if route.sock is not None:
        return _connecting_by(route.sock, opening, options)
    proxy = proxy_for(address) if route.proxy is True else route.proxy or None
    if proxy is not None:
        return _connecting_over(connect_through(proxy, address), opening, options)
    if address.is_direct:
        return loop.create_connection(lambda: opening, address.host, address.port, **options)
    return _connecting_over(connect_to(address.host, address.port), opening, options)


async def _connecting_over(connecting: Coroutine[Any, Any, socket.socket], opening: "Opening", options: Any) -> None:
    await _connecting_by(await connecting, opening, options)


async def _connecting_by(sock: socket.socket, opening: "Opening", options: dict[str, Any]) -> None:
    is_lost = False
    try:
        await opening.loop.create_connection(lambda: opening, sock=sock, **options)
        is_lost = opening.transport.is_closing()
    except (OSError, asyncio.CancelledError):
        is_lost = True
        raise
    finally:
        # uvloop closes the descriptor of a connection that is reset at once, but leaves its number in the socket, which
        # would later close another connection of that number.
        if is_lost and not isinstance(opening.loop, asyncio.BaseEventLoop):
            sock.detach()


@cache
def _default_context(verifies: bool) -> tls.SSLContext:
    """Returns the context of all connections without one of their own.

    The certificates of the system take 30 ms to load, during which the loop would stand still, and 800 KiB.

    Args:
        verifies: Whether the server must have a certificate that the system trusts, for its name.
    """
    context = tls.create_default_context()
    if not verifies:
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
    return context


class Opening(asyncio.Protocol):
    """The protocol of the opening handshake: it sends the request and reads the response.

    Attributes:
        loop: The loop of the connection.
        handshake: The request and the response; its `rest` has the bytes behind the response.
        agreement: Done once the handshake has succeeded, with reading paused, or has failed.
    """

    transport: asyncio.Transport
    _heir: asyncio.BaseProtocol | None = None  # gets the loss of the transport
    _loss: tuple[Exception | None] | None = None  # the argument of `connection_lost`

    def __init__(self, loop: asyncio.AbstractEventLoop, handshake: ClientHandshake) -> None:
        self.loop = loop
        self.handshake = handshake
        self._patience: asyncio.TimerHandle | None = None  # for the content of a refusal
        self.agreement: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are not instances of asyncio.Transport
        self.transport.write(self.handshake.request)

    def data_received(self, data: bytes) -> None:
        if self.agreement.done():
            self.handshake.rest += data  # bytes that TLS decrypted before reading was paused
            return
        try:
            has_succeeded = self.handshake.feed(data)
        except Exception as error:  # a user's `ClientOffer.accept` may raise any exception
            self._fail(error)
        else:
            if has_succeeded:
                self.transport.pause_reading()
                self.agreement.set_result(None)
            elif self._patience is None and self.handshake.refusal is not None:
                self._patience = self.loop.call_later(_REFUSAL_TIMEOUT, self._end, None)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        self._loss = (exc,)
        if self._heir is not None:
            self.pass_on_loss(self._heir)

    def pass_on_loss(self, heir: asyncio.BaseProtocol) -> None:
        """Passes the loss of the transport to the protocol of the connection, now or later, in a callback of its own.

        TLS may end in the read that completes the response. The heir receives the bytes behind the response before.
        """
        self._heir = heir
        if self._loss is not None:
            self.loop.call_soon(heir.connection_lost, *self._loss)

    def _end(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if self.agreement.done():
            return
        try:
            if exc is not None:
                raise exc
            self.handshake.feed_eof()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.agreement.set_exception(error)
        self.agreement.exception()  # marks it as retrieved, because a cancelled `connect` does not await it
