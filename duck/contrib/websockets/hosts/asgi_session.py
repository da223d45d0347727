"""The interface of one connection for an ASGI application: `receive` and `send` (ASGI WebSocket specification 2.4).

    CONNECTING -- websocket.accept --------------> ACCEPTED -- websocket.close --> CLOSED
    CONNECTING -- websocket.close: 403 ----------> CLOSED
    CONNECTING -- websocket.http.response.start -> DENYING -- the last body -----> CLOSED

These states follow the application's events. The `Connection` knows the state of the WebSocket itself.

The read callback delivers messages to the session, and resumes an application that waits for one at once. Its replies
are corked, as those of a view's handlers. `uvicorn.py` and the test client create sessions.
"""

import asyncio
import enum
import sys
from collections.abc import Awaitable, Iterable, MutableMapping, Sequence
from typing import Any, Protocol

from ..codec import Counters
from ..exceptions import ConnectionClosed
from ..extensions import Extension
from ..opcodes import CloseCode
from ..protocol.heartbeat import Heartbeat
from ..protocol.inbox import Inbox
from ..protocol.protocol import ConnectionProtocol
from ..protocol.transports import close_transport
from ..sansio.connection import Connection

__all__ = ["Accepted", "Event", "Headers", "Host", "Session", "SessionProtocol"]

Event = MutableMapping[str, Any]
Headers = Iterable[tuple[bytes, bytes]]


class Accepted:
    """The endpoint of an accepted connection: the settings of the host. It notifies the session of the end.

    Args:
        session: The session of the application.
        label: The path of the connection, for log lines.
        max_size: Bytes of the largest accepted message; None for no limit.
        ping_interval: Seconds between pings; None or 0 for none.
        ping_timeout: Seconds in which a ping must be answered; None for no limit.
        counters: The counters of the connection; None for no counting.
    """

    __slots__ = ("MAX_FRAME_SIZE", "PING_INTERVAL", "PONG_TIMEOUT", "_counters", "_label", "_session")

    MAX_CONCURRENT_MESSAGES = 1  # there are no handlers
    MAX_WAITING_MESSAGES = 1
    MAX_WAITING_BYTES = 1
    MAX_BACKOFF: float = 0  # unused: the first missed ping ends the connection
    RATE_LIMIT: float | None = None
    WRITE_LIMIT = 65536
    SLOW_CONSUMER = "wait"
    RECEIVE_TIMEOUT: float | None = None
    CLOSE_TIMEOUT: float = 10
    _host_detects_loss = False

    def __init__(
        self,
        session: "Session",
        label: str,
        max_size: int | None,
        ping_interval: float | None,
        ping_timeout: float | None,
        counters: Counters | None = None,
    ) -> None:
        self._counters = counters
        self._session = session
        self._label = label
        self.MAX_FRAME_SIZE = max_size
        self.PING_INTERVAL = ping_interval
        self.PONG_TIMEOUT = ping_timeout

    def _connection_closing(self) -> None:
        self._session.disconnected()

    def _connection_lost(self, log: bool) -> None:
        self._session.lost()


class Host(Protocol):
    """The interface of a session's server."""

    def accept(self, subprotocol: str | None, headers: Headers) -> "SessionProtocol | None":
        """Sends the 101 response and starts a protocol on the transport; returns None if a view will do that itself.

        Raises:
            ConnectionClosed: The peer has gone.
            ValueError: A header cannot be sent.
        """
        raise NotImplementedError

    def deny(self, status: int, headers: Headers) -> None:
        """Starts a response other than 101."""

    def deny_body(self, body: bytes, more: bool) -> Awaitable[None]:
        """Sends a part of the body.

        Args:
            body: The part.
            more: Whether other parts follow.
        """
        raise NotImplementedError

    def ended(self) -> None:
        """Called when the accepted connection is lost."""


class Stage(enum.Enum):
    """The stage that the application's events have reached; see the module."""

    CONNECTING = enum.auto()
    ACCEPTED = enum.auto()
    DENYING = enum.auto()
    CLOSED = enum.auto()


# A subprotocol may be among the headers of an application, as other servers permit it.
_SET_BY_SERVER = frozenset(
    (
        b"connection",
        b"content-length",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"transfer-encoding",
        b"upgrade",
    )
)

_CONNECTING = Stage.CONNECTING
_ACCEPTED = Stage.ACCEPTED


def _check_acceptance(headers: Headers, subprotocol: str | None) -> None:
    """Checks that no header of an application contradicts those of the 101 response.

    Raises:
        ValueError: The server itself sets the header.
    """
    for name, _ in headers:
        lower = name.lower()
        if lower in _SET_BY_SERVER or (subprotocol and lower == b"sec-websocket-protocol"):
            raise ValueError(f"{name!r} is set by the server: leave it out of the headers of 'websocket.accept'")


class Session:
    """`receive` and `send` for one application.

    Args:
        loop: The event loop.
        host: The server.
        max_queue: Messages that may wait for the application before reading is on hold; None for no limit.
        max_bytes: Bytes of those messages; None for no limit.

    Attributes:
        inbox: Messages that the application has not received.
        stage: The stage that the application's events have reached.
    """

    __slots__ = (
        "_connect",
        "_disconnect",
        "_has_told",
        "_host",
        "_protocol",
        "inbox",
        "stage",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: Host, max_queue: int | None, max_bytes: int | None
    ) -> None:
        self.inbox = Inbox(loop, max_queue or sys.maxsize, max_bytes or sys.maxsize)
        self._host: Host | None = host
        self.stage = _CONNECTING
        self._connect = True  # whether `websocket.connect` has not been received yet
        self._disconnect: Event | None = None  # the event after the last message
        self._has_told = False  # whether the application has received it
        self._protocol: SessionProtocol | None = None

    # For the application

    async def receive(self) -> Event:
        """Returns the next event; after the last one, `websocket.disconnect` each time."""
        if self._connect:
            self._connect = False
            return {"type": "websocket.connect"}
        try:
            message = await self.inbox.next()
        except ConnectionClosed:
            assert self._disconnect is not None
            if self._has_told:  # an application that ignores the event must not stop the loop
                await asyncio.sleep(0)
            self._has_told = True
            return dict(self._disconnect)
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def send(self, event: Event) -> None:
        """Handles an event of the application.

        Raises:
            ConnectionClosed: The peer has gone. It is an OSError, as the specification requires.
            RuntimeError: The event is not allowed in this state.
            TypeError: A message is not bytes or str, or another entry of the event has the wrong type.
            ValueError: A header or a close code cannot be sent.
        """
        if self.stage is _ACCEPTED:
            kind = event["type"]
            if kind == "websocket.send":
                data = event.get("bytes")
                if data is None:
                    data = event.get("text")
                    if isinstance(data, str):
                        await self._protocol.send(data, 1)  # type: ignore[union-attr]
                        return
                elif isinstance(data, (bytes, bytearray, memoryview)):
                    await self._protocol.send(data, 2)  # type: ignore[union-attr]
                    return
                raise TypeError("'websocket.send' takes 'bytes' that are bytes, or a 'text' that is a str")
            if kind != "websocket.close":
                raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got {kind!r}.")
            code = event.get("code")
            self.close(CloseCode.NORMAL_CLOSURE if code is None else code, event.get("reason") or "")
        elif self.stage is _CONNECTING:
            await self._answer(event)
        elif self.stage is Stage.DENYING:
            await self._send_body(event)
        else:
            raise RuntimeError(f"Unexpected ASGI message {event['type']!r}, after sending 'websocket.close'.")

    async def _answer(self, event: Event) -> None:
        kind = event["type"]
        host = self._host
        if host is None or self._disconnect is not None:
            raise ConnectionClosed
        if kind == "websocket.accept":
            subprotocol, headers = event.get("subprotocol"), list(event.get("headers") or ())
            if subprotocol is not None and not isinstance(subprotocol, str):
                raise TypeError(f"{kind!r} takes a 'subprotocol' that is a str, not {subprotocol!r}")
            _check_acceptance(headers, subprotocol)
            self._protocol = host.accept(subprotocol, headers)
            self.stage = Stage.CLOSED if self._protocol is None else _ACCEPTED
        elif kind == "websocket.close":
            self.stage = Stage.CLOSED
            host.deny(403, ())
            await host.deny_body(b"", False)
            self.disconnected()
        elif kind == "websocket.http.response.start":
            status = event.get("status")
            if not isinstance(status, int):
                raise TypeError(f"{kind!r} takes a 'status' that is an int, not {status!r}")
            if not 200 <= status < 600:
                raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
            host.deny(status, event.get("headers") or ())
            self.stage = Stage.DENYING
        else:
            raise RuntimeError(
                "Expected ASGI message 'websocket.accept', 'websocket.close' "
                f"or 'websocket.http.response.start' but got {kind!r}."
            )

    async def _send_body(self, event: Event) -> None:
        kind = event["type"]
        if kind != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got {kind!r}.")
        host = self._host
        if host is None or self._disconnect is not None:
            raise ConnectionClosed
        body = event.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"'websocket.http.response.body' takes a 'body' that is bytes, not {body!r}")
        more = bool(event.get("more_body", False))
        if not more:
            self.stage = Stage.CLOSED
        await host.deny_body(bytes(body), more)
        if not more:
            self.disconnected()

    # For the host

    @property
    def has_ended(self) -> bool:
        """Whether the connection is closing or lost, so that an application that sends gets ConnectionClosed."""
        protocol = self._protocol
        return self._disconnect is not None or (protocol is not None and not protocol.connection.is_open)

    def close(self, code: int, reason: str = "") -> None:
        """Closes an accepted connection on behalf of the application.

        Raises:
            ConnectionClosed: The peer has gone.
            ValueError: The code may not be sent.
        """
        protocol = self._protocol
        assert protocol is not None
        if not protocol.connection.is_open:
            raise protocol.closed_error()
        protocol.close(code, reason)
        self.stage = Stage.CLOSED

    def refused(self) -> None:
        """Notes that the host itself has refused the request."""
        self.stage = Stage.CLOSED

    def shut_down(self, code: int, timeout: float) -> None:
        """Closes an accepted connection on behalf of a stopping server; see `ConnectionProtocol.shut_down`."""
        if self._protocol is not None:
            self._protocol.shut_down(code, timeout)

    def disconnected(self) -> None:
        """Marks the end of the messages."""
        if self._disconnect is not None:
            return
        event: Event = {"type": "websocket.disconnect", "code": int(CloseCode.ABNORMAL_CLOSURE)}
        if self._protocol is not None:
            connection = self._protocol.connection
            event["code"] = int(connection.close_code or CloseCode.ABNORMAL_CLOSURE)
            if connection.received_close is not None or connection.close_reason:
                event["reason"] = connection.close_reason
        self._disconnect = event
        self.inbox.end()

    def lost(self) -> None:
        """Handles the loss of the connection."""
        self.disconnected()
        host, self._host = self._host, None
        if host is not None:
            host.ended()


class KeepAlive(Heartbeat):
    """A heartbeat that ends the connection at the first ping that is not answered in time."""

    __slots__ = ()

    MISSES = 1
    CODE = CloseCode.INTERNAL_ERROR
    REASON = "keepalive ping timeout"

    _owner: "SessionProtocol"

    def _give_up(self) -> None:
        super()._give_up()
        close_transport(self._owner.transport)  # a peer that does not answer a ping is unlikely to answer a close frame


class SessionProtocol(ConnectionProtocol):
    """The protocol of a connection that an ASGI application has accepted."""

    __slots__ = ()

    HEARTBEAT = KeepAlive

    def __init__(self, session: Session, endpoint: Accepted, extensions: Sequence[Extension]) -> None:
        connection = Connection(max_size=endpoint.MAX_FRAME_SIZE, extensions=extensions)
        super().__init__(endpoint, connection, queue=session.inbox)
        self.limit_frames(sys.maxsize)  # a message of an application is sent in one frame
