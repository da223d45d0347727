"""A view as an ASGI application.

Where the server can give the whole connection away, which our protocol for uvicorn can, the view gets it. Of any other
server a view gets messages, and the `Bridge` makes a WebSocket of them: to the view it is a transport, and what is
written to it is read by a `Connection` in the role of the client, whose I/O are the events of ASGI.

    view -- bytes --> Bridge.write -> Connection (client) -- messages --> send(event)
    view <- bytes --- Bridge.feed  <- Connection (client) <- messages --- receive()

So every rule and every hook of the view is at work as ever. Pings are not among what ASGI knows, nor are fragments.
"""

import asyncio
import contextlib
import os
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import httptools

from duck.http.request import HttpRequest

from ..exceptions import HandshakeError
from ..logging import logger
from ..opcodes import CloseCode, OpCode
from ..sansio import handshake
from ..sansio.connection import Connection, check_close_code, parse_close

if TYPE_CHECKING:
    from ..protocol.protocol import ConnectionProtocol
    from ..view import WebSocketView

__all__ = ["EXTENSION", "HANDSHAKE", "Application", "denial", "reply", "request_of", "run"]

EXTENSION = "duck.websocket"
"""In a scope's extensions: has `run`, which runs a view on the connection itself."""

HANDSHAKE = {b"connection", b"upgrade"} | {b"sec-websocket-" + name for name in (b"extensions", b"key", b"version")}
"""Header fields that only the server needs."""

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_GONE = 0.2  # seconds in which a server that has failed to send may tell that the client is gone
_HIGH_WATER = 65536  # bytes for `send` above which the view is to wait, by itself
_OURS = "serve it by `uvicorn --ws duck.contrib.websockets.uvicorn:WebSocketProtocol` for that"

# A server has fields of its own for these.
_FRAMING = {b"connection", b"content-length", b"date"}


class Application:
    """Serves each connection by a new view.

    Args:
        view_class: Its class.
        kwargs: Its parameters, beside those of the route.
    """

    def __init__(self, view_class: "type[WebSocketView]", kwargs: Mapping[str, Any]) -> None:
        self._view_class = view_class
        self._kwargs = kwargs

    def __repr__(self) -> str:
        return f"<{self._view_class.__name__} as an ASGI application>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a connection to its end.

        Raises:
            ValueError: The scope is neither that of a WebSocket nor that of an HTTP request.
        """
        if scope["type"] == "http":
            await _refuse_http(send)
            return
        if scope["type"] != "websocket":
            raise ValueError(f"{self!r} does not serve {scope['type']!r}")
        if (await receive())["type"] != "websocket.connect":
            return
        kwargs = {**self._kwargs, **_path_parameters(scope)}
        extension = (scope.get("extensions") or {}).get(EXTENSION)
        if extension is not None:
            await extension["run"](lambda request: self._view_class(request, **kwargs), scope, send)
        else:
            bridge = Bridge(scope, receive, send)
            await bridge.run(self._view_class(bridge.request, **kwargs))


def _path_parameters(scope: Scope) -> Mapping[str, Any]:
    """What the route has found in the path: by Starlette or FastAPI, or by Django Channels."""
    parameters: Mapping[str, Any] = scope.get("path_params") or (scope.get("url_route") or {}).get("kwargs") or {}
    return parameters


async def _refuse_http(send: Send) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": b"this is a WebSocket endpoint\n"})


def request_of(
    scope: Scope, transport: asyncio.Transport, fields: Iterable[tuple[bytes, bytes]] | None = None
) -> HttpRequest:
    """The upgrade request as a view knows it, whatever version of HTTP it came by.

    Args:
        scope: As the application has it, with the changes of its middleware.
        fields: The header fields named in `HANDSHAKE`; None where the server has kept them to itself.
    """
    if fields is None:
        fields = (
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", b64encode(os.urandom(16))),
        )
    target = _path(scope)
    if scope.get("query_string"):
        target += b"?" + scope["query_string"]
    client = scope.get("client")
    return HttpRequest(
        "GET",
        target.decode("latin-1"),
        [*_headers(scope), *fields],
        client_address=(client[0], client[1]) if client else None,
        secure=scope.get("scheme") in ("wss", "https"),
        transport=transport,
        scope=scope,
    )


def _path(scope: Scope) -> bytes:
    """The path as the client sent it, unless middleware has changed it in the scope."""
    path: str = scope["path"]
    raw_path: bytes | None = scope.get("raw_path")
    if raw_path is not None and unquote(raw_path.decode("latin-1")) == path:
        return raw_path
    return quote(path).encode()


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The header fields but those in `HANDSHAKE`. Some servers, and tests, tell the subprotocols in the scope alone."""
    subprotocols = scope.get("subprotocols")
    dropped = HANDSHAKE | {b"sec-websocket-protocol"} if subprotocols else HANDSHAKE
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"] if name.lower() not in dropped]
    if subprotocols:
        headers.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode("latin-1", "replace")))
    return headers


def denial(scope: Scope, response: bytes) -> list[Event]:
    """The events of a response other than 101. A server that does not support them answers 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        return [{"type": "websocket.close"}]
    head = _ResponseHead(response)
    return [
        {"type": "websocket.http.response.start", "status": head.status, "headers": head.headers},
        {"type": "websocket.http.response.body", "body": head.body},
    ]


async def run(view: "WebSocketView") -> Any:
    """Runs a view, and gives what its `run` gave.

    A connection that a `run` of its own has opened, and left open, ends with 1011.
    """
    run: Callable[[], Awaitable[Any]] = view.run
    try:
        result = await run()
    except Exception:
        await _close(view)
        raise
    if await _close(view):
        logger.error("%r: %s.run() left the connection open", view.request.path, type(view).__name__)
    return result


async def _close(view: "WebSocketView") -> bool:
    """Ends the connection if it is open; whether it was."""
    if not view.initiated_upgrade or not view.state:  # which is CLOSED
        return False
    await view.send_close(CloseCode.INTERNAL_ERROR, "internal error")
    view.terminate()
    await view.safe_close()
    return True


def reply(view: "WebSocketView", result: Any) -> bytes:
    """The response for a view whose `run` has ended with this result and without an answer."""
    if hasattr(result, "status") and hasattr(result, "to_bytes"):
        response: bytes = result.to_bytes(close=True)
        return response
    name = type(view).__name__
    logger.error("%r: %s.run() answered nothing: call super().run(), or return a HttpResponse", view.request.path, name)
    return handshake.refusal(HandshakeError(500, "internal server error"))


class Bridge(asyncio.Transport):
    """The transport of a view whose connection is known by its ASGI events only.

    Args:
        scope: Of the connection, whose first event has been received.
        receive: As the server gave it,
        send: and this too.

    Attributes:
        request: For the view.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self._scope = scope
        self._client = Connection(client=True)
        self._view: WebSocketView
        self._receiving: asyncio.Task[None]
        self._sending: asyncio.Task[None]
        self._protocol: Any = None
        self._answered = False
        self._accepted = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._events: deque[tuple[Event, int]] = deque()  # for `send`, with their sizes
        self._unsent = 0
        self._high_water = _HIGH_WATER
        self._written = asyncio.Event()
        self._paused = False
        self._closing = False
        self._lost = False
        self._gone = False  # the client, as far as the server has told
        self._error: Exception | None = None  # of `send`, which is not that the client is gone
        self._warned: set[str] = set()
        self.request = request_of(scope, self)

    async def run(self, view: "WebSocketView") -> None:
        """Runs a view to its end.

        Raises:
            Exception: The server has not taken an event, and so the connection is left for it to close.
        """
        self._view = view
        # Who is not there any more is for the server to find out.
        view.PING_INTERVAL = None
        view.RECEIVE_TIMEOUT = None
        self._receiving = self._loop.create_task(self._pump_in())
        self._sending = self._loop.create_task(self._pump_out())
        try:
            result = await run(view)
            if not self._answered:
                self.write(reply(view, result))
            self.close()
            await asyncio.wait([self._sending])
            if self._error is not None:
                # The client may have gone without our having been told, for reading may have been on hold.
                self._reading.set()
                await asyncio.wait([self._receiving], timeout=_GONE)
        finally:
            self._sending.cancel()
            self._receiving.cancel()
            await asyncio.gather(self._sending, self._receiving, return_exceptions=True)
        if self._error is not None and not self._gone:
            raise self._error

    # From the server

    async def _pump_in(self) -> None:
        """Feeds what is received to the view."""
        client = self._client
        while True:
            await self._reading.wait()
            try:
                event = await self._receive()
            except Exception as error:  # servers have different ones for a client that is gone
                logger.debug("%r: nothing is received any more: %r", self.request.path, error)
                self._gone = True
                self.abort()
                return
            if event["type"] == "websocket.receive":
                text = event.get("text")
                if text is not None:
                    client.send(OpCode.TEXT, text.encode())
                else:
                    client.send(OpCode.BINARY, event["bytes"])
            else:
                self._gone = True
                self._close_client(event)
            # In a callback of its own, for messages must not be delivered while a task is running.
            self._loop.call_soon(self._feed, b"".join(client.take_outgoing()))
            await asyncio.sleep(0)
            if event["type"] == "websocket.disconnect":
                if not client.close_sent:
                    self.abort()
                return

    def _close_client(self, event: Event) -> None:
        """The client has closed the connection, or is gone."""
        code = event.get("code")
        with contextlib.suppress(ValueError):  # 1006 and the like, which no close frame has
            if code is not None and code != CloseCode.NO_STATUS_RCVD:
                check_close_code(code)
            if not self._client.close_sent:
                self._client.close(code or CloseCode.NO_STATUS_RCVD, event.get("reason") or "")

    def _feed(self, data: bytes) -> None:
        """Has the view receive bytes."""
        left = memoryview(data)
        while left and not self._lost and self._protocol is not None:
            buffer = memoryview(self._protocol.get_buffer(-1))
            size = min(len(left), len(buffer))
            buffer[:size] = left[:size]
            left = left[size:]
            self._protocol.buffer_updated(size)

    # To the server

    async def _pump_out(self) -> None:
        """Sends what the view has written, until it has closed."""
        while self._events or not self._closing:
            if not self._events:
                self._written.clear()
                await self._written.wait()
                continue
            event, size = self._events.popleft()
            if event["type"] == "websocket.close":
                # Nothing more is to come; and Granian sends no close frame while it is waited for something.
                self._receiving.cancel()
                await asyncio.wait([self._receiving])
            try:
                await self._send(event)
            except Exception as error:
                # An OSError says that the client is gone, by the specification 2.4. Some servers have others for that,
                # and some raise for what they do not support.
                logger.debug("%r: %s was not sent: %r", self.request.path, event["type"], error)
                if not isinstance(error, OSError):
                    self._error = error
                break
            if event["type"] == "websocket.close":
                break  # of the client's answer an application is not told
            self._unsent -= size
            if self._paused and self._unsent <= self._high_water // 4:
                self._paused = False
                self._protocol.resume_writing()
        self._lose()

    def _put(self, event: Event, size: int = 0) -> None:
        self._events.append((event, size))
        self._unsent += size
        self._written.set()
        if self._unsent > self._high_water and not self._paused and self._protocol is not None:
            self._paused = True
            self._protocol.pause_writing()

    def _lose(self) -> None:
        """The connection is gone."""
        self._events.clear()
        self._closing = True
        if not self._lost:
            self._lost = True
            if self._protocol is not None:
                self._loop.call_soon(self._protocol.connection_lost, None)

    # What the view calls

    def write(self, data: Any) -> None:
        if self._lost:
            return
        if not self._accepted:
            self._answer(bytes(data))
            return
        client = self._client
        messages = client.receive(bytes(data))
        for opcode, payload in messages:
            if opcode == OpCode.TEXT:
                self._put({"type": "websocket.send", "text": payload.decode()}, len(payload))
            elif opcode == OpCode.BINARY:
                self._put({"type": "websocket.send", "bytes": payload}, len(payload))
            elif opcode == OpCode.CLOSE:
                code, reason = parse_close(payload)
                if code == CloseCode.NO_STATUS_RCVD:
                    code = CloseCode.NORMAL_CLOSURE
                if not client.close_sent:  # else it answers the client's
                    self._put({"type": "websocket.close", "code": int(code), "reason": reason})
            elif opcode == OpCode.PING:
                self._warn("a ping is not sent")
        if self._protocol.writer.fragmenting:
            self._warn("a message is gathered from its fragments before it is sent")
        answers = client.take_outgoing()  # to a ping
        if answers:
            self._loop.call_soon(self._feed, b"".join(answers))

    def _answer(self, response: bytes) -> None:
        """What the view says to the upgrade request."""
        self._answered = True
        head = _ResponseHead(response)
        if head.status == 101:
            self._accepted = True
            self._put({"type": "websocket.accept", "subprotocol": self._view.subprotocol, "headers": []})
        else:
            for event in denial(self._scope, response):
                self._put(event)

    def _warn(self, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            name = type(self._view).__name__
            logger.warning("%r: %s on messages of ASGI: %s; %s", self.request.path, name, what, _OURS)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: ConnectionProtocol = self._protocol
        return protocol

    def close(self) -> None:
        self._closing = True
        self._written.set()

    def abort(self) -> None:
        self._lose()
        self._sending.cancel()  # which may be waiting for a client that does not read

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def is_reading(self) -> bool:
        return self._reading.is_set()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high_water = _HIGH_WATER if high is None else high


class _ResponseHead:
    """A response of ours to an upgrade request."""

    def __init__(self, data: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        parser = httptools.HttpResponseParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(data)
        self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _FRAMING:
            self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body
