"""`WebSocketClient`: a client with hooks; and the options of all clients.

open() -- dialed --> on_open, messages -- close frames, or the stream ends --> on_close -> wait_closed()

`dialing` connects and performs the handshake; `protocol.ConnectionProtocol` runs the connection.
"""

import asyncio
import logging
import ssl as tls
import warnings
from collections.abc import Mapping, Sequence
from socket import socket
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

from ..codec import type_version
from ..compression import PERMESSAGE_DEFLATE, Compression
from ..definition import Definition
from ..endpoint import State, WebSocketEndpoint
from ..exceptions import ConnectionClosed
from ..logging import logger
from ..metrics import Metrics
from ..opcodes import CloseCode
from ..protocol.threadsafe import call_threadsafe
from ..sansio.client_handshake import Agreement, ResponseHeaders
from ..sansio.negotiation import ClientOffer
from ..settings import BY_NAME
from .address import Address
from .dialing import Opening, dial
from .route import Headers, Route
from .timeouts import checked_timeout

__all__ = ["Options", "WebSocketClient"]

# The server's window is not limited by default: many servers ignore such a limit, and some decline the offer.
_OFFER = Compression(server_max_window_bits=15).offer()

_SETTINGS = {
    "close_timeout": "CLOSE_TIMEOUT",
    "compression": "COMPRESSION",
    "extensions": "OFFERS",
    "max_backoff": "MAX_BACKOFF",
    "max_concurrent_messages": "MAX_CONCURRENT_MESSAGES",
    "max_size": "MAX_FRAME_SIZE",
    "max_stream_size": "MAX_STREAM_SIZE",
    "max_waiting_bytes": "MAX_WAITING_BYTES",
    "max_waiting_messages": "MAX_WAITING_MESSAGES",
    "metrics": "METRICS",
    "open_timeout": "OPEN_TIMEOUT",
    "ping_interval": "PING_INTERVAL",
    "pong_timeout": "PONG_TIMEOUT",
    "rate_limit": "RATE_LIMIT",
    "receive_timeout": "RECEIVE_TIMEOUT",
    "slow_consumer": "SLOW_CONSUMER",
    "subprotocols": "SUBPROTOCOLS",
    "write_limit": "WRITE_LIMIT",
}
"""The setting of each keyword of a client."""

_NO_HEADERS = ResponseHeaders()


class Options(TypedDict, total=False):
    """Options of `connect` and `WebSocketClient`, in addition to the URL.

    Attributes:
        subprotocols: Names, the preferred one first. `ws.subprotocol` is the server's choice.
        compression: True, False, or a `Compression`. A server that exceeds its `server_max_window_bits` is refused;
            True leaves the server its 15.
        extensions: Custom extensions, as a `ClientOffer` for each name.
        headers: Additional header fields of the request, as a mapping or as pairs.
        origin: The value of Origin, which some servers require.
        cookies: A mapping of names to values.
        user_agent: The value of User-Agent; None to omit it.
        ssl: For `wss`, a context; False to accept any certificate.
        server_hostname: The name that the certificate must have, if it differs from the URL's; not after a redirect to
            another host.
        unix: The path of a Unix socket to connect to; the URL then only names the requested resource.
        sock: A connected socket to use.
        proxy: True for the environment's proxy, None for none, or a URL.
        max_redirects: The number of redirects to follow; 0 for none. A redirect from wss to ws is refused.
        open_timeout: Seconds until the connection must be open; None for no limit.
        stream: Whether `recv_stream` returns a message before all of it has been received; only of `connect`.
        metrics: Counts the connection; one object may count many.
        max_size: MAX_FRAME_SIZE of a view. The other options are settings of a view in lower case.
    """

    subprotocols: Sequence[str]
    compression: bool | Compression
    extensions: Mapping[str, ClientOffer]
    headers: Headers
    origin: str | None
    cookies: Mapping[str, str]
    user_agent: str | None
    ssl: tls.SSLContext | bool | None
    server_hostname: str | None
    unix: str | None
    sock: socket | None
    proxy: str | bool | None
    max_redirects: int
    open_timeout: float | None
    close_timeout: float
    max_size: int | None
    max_stream_size: int | None
    stream: bool
    ping_interval: float | None
    pong_timeout: float | None
    max_backoff: float
    receive_timeout: float | None
    max_concurrent_messages: int
    max_waiting_messages: int
    max_waiting_bytes: int
    rate_limit: float | None
    write_limit: int
    slow_consumer: Literal["wait", "drop", "close"]
    metrics: Metrics | None


class WebSocketClient(WebSocketEndpoint):
    """A connection to a server. Override `on_receive`, and `on_open` and `on_close` as needed.

    The hooks, the sending methods and the settings are those of `WebSocketView`, with the same guarantees. Settings are
    attributes of the class, or keywords in lower case.

        class Ticker(WebSocketClient):
            MAX_FRAME_SIZE = 1 << 16

            async def on_open(self):
                await self.send_json({"subscribe": "ducks"})

            async def on_receive(self, message, opcode):
                print(message.decode())

        asyncio.run(Ticker("wss://example.org/ticker").run())

    The context manager opens the connection and closes it at the end: `async with Ticker(url) as ticker: ...`. An
    object is one connection; create another to connect again.

    Args:
        url: `ws://` or `wss://`; user and password in it become the Authorization field.
        options: See `Options`.

    Attributes:
        url: The URL of the connection, without credentials; after redirects, the final one.
        response_headers: The header fields of the 101 response; empty before.

    Raises:
        TypeError, ValueError: An option or the URL is invalid.
    """

    OPEN_TIMEOUT: float | None = 10
    OFFERS: Mapping[str, ClientOffer] = {}

    _opening: tuple[asyncio.AbstractEventLoop, asyncio.Timeout] | None = None  # the deadline while `open` runs
    _is_withdrawn = False  # whether the user has closed the connection while `open` ran

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        super().__init__()
        self._address = Address.parse(url)
        self.url = self._address.url
        self.response_headers = _NO_HEADERS
        route: dict[str, Any] = {}
        for name, value in options.items():
            setting = _SETTINGS.get(name)
            if setting is None:
                route[name] = value
                continue
            if setting in BY_NAME:
                BY_NAME[setting].check(type(self).__name__, value)
            object.__setattr__(self, setting, value)  # has been checked
        self._route = Route(route)

    @property
    def _has_left(self) -> bool:
        """Whether it has closed the connection itself: by `close` or `send_close` with 1000, or while it opened."""
        protocol = self._protocol
        return self._is_withdrawn if protocol is None else protocol.connection.own_code == CloseCode.NORMAL_CLOSURE

    def _check_class(self) -> None:
        """Checks the class again if it has changed since the last check, as a view does."""
        cls = type(self)
        if cls._definition.version != type_version(cls) and not cls._definition.is_that_of(cls):
            cls._definition = Definition(cls, cls._definition.base)
        for name in cls._definition.computed:
            BY_NAME[name].check(cls.__name__, getattr(self, name))
        if not isinstance(self.OFFERS, (dict, Mapping)):  # a dict is recognized without a call
            raise TypeError(f"{cls.__name__}.OFFERS is a mapping of names to a ClientOffer each, not {self.OFFERS!r}")
        checked_timeout("OPEN_TIMEOUT", self.OPEN_TIMEOUT)

    # Opening and closing

    async def open(self) -> None:
        """Connects and performs the handshake; `on_open` has started when this returns.

        Raises:
            ConnectionClosed: Another task has closed the connection meanwhile.
            HandshakeFailed: The server refused, or its response breaks the rules; has status, headers and body.
            OSError: The network, the proxy or TLS failed. After `OPEN_TIMEOUT` it is a TimeoutError.
            RuntimeError: The connection has been opened before.
        """
        if self._protocol is not None or self.state is not State.CLOSED:
            raise RuntimeError("this client has been opened already: create another one to connect again")
        self._check_class()
        self.state = State.INITIATING
        self._is_withdrawn = False
        try:
            await self._dial()
        except BaseException:
            self.state = State.CLOSED
            raise

    def _offers(self) -> Mapping[str, ClientOffer]:
        """Returns the extensions to offer."""
        if self.COMPRESSION is False:
            return self.OFFERS
        offer = _OFFER if self.COMPRESSION is True else self.COMPRESSION.offer()
        return {PERMESSAGE_DEFLATE: offer, **self.OFFERS}

    async def _dial(self) -> None:
        """Establishes a transport with a successful handshake, and starts the connection on it."""
        deadline = asyncio.timeout(self.OPEN_TIMEOUT)
        self._opening = asyncio.get_running_loop(), deadline
        try:
            async with deadline:
                opening, agreement, address = await dial(self._address, self._route, self.SUBPROTOCOLS, self._offers())
        except TimeoutError:
            if self._is_withdrawn:
                raise ConnectionClosed from None
            if not deadline.expired():
                raise
            message = f"{self.url} was not open within {self.OPEN_TIMEOUT} seconds: see open_timeout"
            raise TimeoutError(message) from None
        finally:
            del self._opening
        if address is not self._address:  # after a redirect
            self.url = address.url
        self._take(opening, agreement)

    def _take(self, opening: Opening, agreement: Agreement) -> None:
        """Starts the connection after a successful handshake."""
        transport, early = opening.transport, opening.handshake.rest
        is_closing = transport.is_closing()
        if self._is_withdrawn or (is_closing and not early):
            transport.abort()
            raise ConnectionClosed
        self.response_headers = agreement.headers
        if agreement.subprotocol is not None:
            self.subprotocol = agreement.subprotocol
        if agreement.extensions:
            self.extensions = agreement.extensions
        if early:
            self._early = early
        overridden = self._overridden
        connection = self._new_connection(overridden, client=True)
        self._protocol = protocol = self._new_protocol(connection, overridden)
        if not is_closing:
            transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self.state = State.INITIATED
        logger.info("%s [WebSocket] [OPEN]", self.url)
        self._start(protocol, overridden)
        if is_closing:
            opening.pass_on_loss(protocol)

    async def run(self) -> None:
        """Opens the connection and waits until it is closed and every hook has ended; raises the errors of `open`.

        If cancelled, it closes the connection with 1001, cancels the handlers, and ends after `on_close`.
        """
        await self.open()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.terminate()
            await self.wait_closed()
            raise

    async def wait_closed(self) -> int:
        """Waits until the connection is lost and every hook has ended.

        Called by a hook of this connection, it waits only until the connection is lost.

        Returns:
            The close code, as `close_code`.
        """
        protocol = self._open_protocol()
        await protocol.until_closed()
        return protocol.connection.close_code or CloseCode.ABNORMAL_CLOSURE

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Closes the connection and waits until it is lost; may be called at any time, and repeatedly.

        While `open` runs, it only causes a `ConnectionClosed` of `open`.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999.
            reason: Cut to 123 bytes of UTF-8.

        Raises:
            ValueError: The code may not be sent.
        """
        protocol = self._protocol
        if protocol is not None and protocol.is_elsewhere:
            await call_threadsafe(protocol, WebSocketClient.close, self, code, reason, closes=True)
            return
        await self.send_close(code, reason)
        if protocol is not None:
            await protocol.until_lost(call_on_close=True, log=True)

    def terminate(self) -> None:
        if self._protocol is None:
            self._check_begun()
        super().terminate()

    def _check_begun(self) -> None:
        """Ends an opening that another task has begun; it raises `ConnectionClosed`."""
        if self.state is State.INITIATING:
            self._is_withdrawn = True
            if self._opening is not None:
                self._opening[0].call_soon_threadsafe(self._end_opening)

    def _end_opening(self) -> None:
        if self._opening is not None:
            loop, deadline = self._opening
            deadline.reschedule(loop.time())

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close(self._code_of(error))
            await self.wait_closed()
        except asyncio.CancelledError:
            self.terminate()
            await self.wait_closed()
            raise

    @staticmethod
    def _code_of(error: BaseException | None) -> CloseCode:
        """Returns the close code for the end of a `with` block with an error."""
        if error is None:
            return CloseCode.NORMAL_CLOSURE
        is_failure = isinstance(error, Exception) and not isinstance(error, ConnectionClosed)
        return CloseCode.INTERNAL_ERROR if is_failure else CloseCode.GOING_AWAY

    @property
    def sock(self) -> Any:
        """The socket of the connection; None before it is open."""
        return None if self._protocol is None else self._protocol.transport.get_extra_info("socket")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {self.state.name}>"

    def __del__(self) -> None:
        # Freed with its loop, which has held it: asyncio and uvloop close the socket, and warn without the URL.
        protocol = getattr(self, "_protocol", None)
        if protocol is not None and not protocol.lost:
            warnings.warn(
                f"unclosed connection to {self.url}: use async with, or await close()", ResourceWarning, 2, self
            )

    # Called by the protocol; see `protocol.interfaces.Endpoint`

    @property
    def _label(self) -> str:
        return self.url

    def _connection_lost(self, log: bool) -> None:
        self.state = State.CLOSED
        if log and logger.isEnabledFor(logging.INFO):
            connection = self._open_protocol().connection
            words = connection.failed or connection.close_reason
            logger.info("%s [WebSocket] [CLOSE] %s %s", self.url, connection.close_code, words)
