"""`WebSocketClient`: a client with hooks.

    open() -- dialed --> on_open, messages -- close frames, or the stream ends --> on_close -> wait_closed()

`dialing` connects and performs the handshake; `protocol.ConnectionProtocol` runs the connection.
"""

import asyncio
import logging
import warnings
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from ..codec import Deadline, type_version
from ..compression import PERMESSAGE_DEFLATE, Compression
from ..definition import Definition
from ..endpoint import WebSocketEndpoint
from ..exceptions import ConnectionClosed
from ..logging import end_of, logger, printable
from ..opcodes import CloseCode
from ..protocol.loop import clock
from ..protocol.phases import Phase
from ..protocol.threadsafe import call_threadsafe
from ..sansio.client_handshake import ClientHandshake
from ..sansio.negotiation import ClientOffer
from ..sansio.response import ResponseHeaders
from ..settings import BY_NAME
from ..state import State
from .address import Address
from .dialing import Opening, dial
from .options import ATTRIBUTES, Options
from .route import Route

__all__ = ["WebSocketClient"]

# The server's window is not limited by default: many servers ignore such a limit, and some decline the offer.
_OFFER = Compression(server_max_window_bits=15).offer()

_NO_HEADERS = ResponseHeaders()
_DEFAULT_ROUTE = Route({})


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

    Raises:
        TypeError, ValueError: An option or the URL is invalid.
    """

    OPEN_TIMEOUT: float | None = 10
    OFFERS: Mapping[str, ClientOffer] = {}

    _deadline: Deadline | None = None  # of `open`
    _handshake: ClientHandshake | None = None  # of the open connection
    _is_withdrawn = False  # whether the user has closed the connection while `open` ran

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        super().__init__()
        if "stream" in options:
            raise TypeError("'stream' is an option of connect: a client with hooks overrides on_stream")
        self._configure(url, options)

    def _configure(self, url: str, options: Options) -> None:
        """Checks the URL and the options, and sets the attributes that they give."""
        self._address = address = Address.parse(url)
        self.url = address.url
        route: dict[str, Any] = {}
        for name, value in options.items():
            attribute = ATTRIBUTES.get(name)
            if attribute is None:
                route[name] = value
                continue
            if attribute in BY_NAME:
                BY_NAME[attribute].check(type(self).__name__, value)
            object.__setattr__(self, attribute, value)  # has been checked
        self._route = Route(route) if route else _DEFAULT_ROUTE

    @property
    def _has_left(self) -> bool:
        """Whether it has closed the connection itself: by `close` or `send_close` with 1000, or while it opened."""
        protocol = self._protocol
        return self._is_withdrawn if protocol is None else protocol.connection.own_code == CloseCode.NORMAL_CLOSURE

    def _check_class(self) -> None:
        """Checks the class again if it has changed since the last check, as a view does, and its computed settings."""
        cls = type(self)
        if not cls._definition.is_that_of(cls):
            cls._definition = Definition(cls, cls._definition.base)
        for name in cls._definition.computed:
            BY_NAME[name].check(cls.__name__, getattr(self, name))

    # Opening and closing

    async def open(self) -> None:
        """Connects and performs the handshake; `on_open` has started when this returns.

        Raises:
            ConnectionClosed: Another task has closed the connection meanwhile.
            HandshakeFailed: The server refused, or its response breaks the rules; has status, headers and body.
            OSError: The network, the proxy or TLS failed. After `OPEN_TIMEOUT` it is a TimeoutError.
            RuntimeError: The connection has been opened before.
        """
        try:
            is_used = self._protocol is not None or self._connection_state is not State.CLOSED
        except AttributeError:
            raise TypeError(f"{type(self).__name__}.__init__ must call super().__init__(url, **options)") from None
        if is_used:
            raise RuntimeError("this client has been opened already: create another one to connect again")
        if self._definition.version != type_version(type(self)):
            self._check_class()
        if self._is_withdrawn:  # while an earlier attempt ran
            self._is_withdrawn = False
        self._connection_state = State.INITIATING
        task, ours = asyncio.current_task(), clock(asyncio.get_running_loop())
        self._deadline = deadline = Deadline(task, ours, self.OPEN_TIMEOUT, asyncio.CancelledError)
        try:
            with deadline:
                opening, address = await self._dial()
            if address is not self._address:  # after a redirect
                self.url = address.url
            self._take(opening)
        except BaseException as error:
            self._connection_state = State.CLOSED
            if deadline.expired and isinstance(error, TimeoutError):
                if self._is_withdrawn:
                    raise ConnectionClosed from None
                message = f"{self.url} was not open within {self.OPEN_TIMEOUT} seconds: see open_timeout"
                raise TimeoutError(message) from None
            raise

    def _dial(self) -> Coroutine[Any, Any, tuple[Opening, Address]]:
        """Returns an awaitable of a transport with a successful handshake, and of the final address."""
        return dial(self._address, self._route, self.SUBPROTOCOLS, self._offers())

    def _offers(self) -> Mapping[str, ClientOffer]:
        """Returns the extensions to offer."""
        if self.COMPRESSION is False:
            return self.OFFERS
        offer = _OFFER if self.COMPRESSION is True else self.COMPRESSION.offer()
        return {PERMESSAGE_DEFLATE: offer, **self.OFFERS}

    def _take(self, opening: Opening) -> None:
        """Starts the connection after a successful handshake."""
        transport, handshake = opening.transport, opening.handshake
        is_closing = transport.is_closing()
        if self._is_withdrawn or (is_closing and not handshake.rest):
            transport.abort()
            raise ConnectionClosed
        self._handshake = handshake
        if handshake.subprotocol is not None:
            self.subprotocol = handshake.subprotocol
        if handshake.extensions:
            self.extensions = handshake.extensions
        if handshake.rest:
            self._early = handshake.rest
        overridden = self._overridden
        connection = self._new_connection(overridden, client=True)
        self._protocol = protocol = self._new_protocol(connection, overridden)
        if not is_closing:
            transport.set_protocol(protocol)
        protocol.connection_made(transport)
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
            protocol.cancel_readers()
            await protocol.until_lost()

    def terminate(self) -> None:
        if self._protocol is None:
            self._check_begun()
        super().terminate()

    def _check_begun(self) -> None:
        """Ends an opening that another task has begun; it raises `ConnectionClosed`."""
        if self._connection_state is State.INITIATING:
            self._is_withdrawn = True
            if self._deadline is not None:
                self._deadline.expire()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.close(self._code_of(error))
            if self._open_protocol().phase is not Phase.CLOSED:
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
    def response_headers(self) -> ResponseHeaders:
        """The header fields of the 101 response; empty before."""
        return _NO_HEADERS if self._handshake is None else self._handshake.headers

    @property
    def sock(self) -> Any:
        """The socket of the connection; None before it is open."""
        return None if self._protocol is None else self._protocol.transport.get_extra_info("socket")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {self._connection_state.name}>"

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
        self._connection_state = State.CLOSED
        if log and logger.isEnabledFor(logging.INFO):
            end = end_of(*self._open_protocol().connection.end)
            logger.info("%s [WebSocket] [CLOSE] %s", self.url, printable(end))
