"""A view as an ASGI application: `WebSocketView.as_asgi`.

A server that can pass on the whole connection, as this package's protocol for uvicorn does, gives it to the view. Any
other server sends and receives messages, which the `Bridge` converts, in the place of the client: the view has a
`VirtualTransport`.

    view -- bytes --> VirtualTransport.outgoing -> MessageReader -- messages --> send(event)
    view <- bytes --- VirtualTransport.feed <----- serialize <----- messages --- receive()

So all rules and hooks of the view apply. ASGI has no events for pings and fragments. The task that has received a
message also feeds it to the view, and then steps the task that sends the view's reply: no pass of the loop lies between
`receive` and `send`.
"""

import asyncio
import os
import reprlib
from base64 import b64encode
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, MutableMapping
from time import perf_counter
from typing import Any, Protocol, Self
from urllib.parse import quote, unquote

from duck.http.request import HttpRequest

from .. import codec
from ..exceptions import ConnectionClosed, HandshakeError
from ..logging import label, logger
from ..opcodes import CloseCode, OpCode
from ..protocol.stepping import call_outside_task
from ..protocol.virtual_transport import VirtualTransport
from ..sansio import handshake
from ..sansio.payloads import close_payload, parse_close

__all__ = [
    "EXTENSION",
    "HANDSHAKE",
    "Application",
    "AsgiView",
    "acceptance_event",
    "denial",
    "reply",
    "request_of",
    "run",
]

EXTENSION = "duck.websocket"
"""The key in a scope's extensions whose `run` runs a view on the connection itself."""

HANDSHAKE = {b"connection", b"upgrade"} | {b"sec-websocket-" + name for name in (b"extensions", b"key", b"version")}
"""The header fields of the handshake that only the server handles."""

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

_FAIR_SHARE = 0.005  # seconds of handling messages after which a flood of them yields to the loop
_GONE = 0.2  # seconds in which a server may report a lost client after a failed `send`
_MASK = bytes(4)
_ADVICE = "serve it by `uvicorn --ws duck.contrib.websockets.uvicorn:WebSocketProtocol` to avoid this"

# A comparison with the member of the enum costs 20 times as much.
_TEXT, _BINARY, _CLOSE, _PING = int(OpCode.TEXT), int(OpCode.BINARY), int(OpCode.CLOSE), int(OpCode.PING)

_FRAMING = {"connection", "content-length", "date"}  # set by the server


class AsgiView(Protocol):
    """The members of a view that an ASGI application needs."""

    request: HttpRequest
    initiated_upgrade: bool
    _host_detects_loss: bool

    @classmethod
    def _create(cls, request: HttpRequest, kwargs: Mapping[str, Any]) -> Self: ...
    @property
    def _connection_state(self) -> int: ...
    async def run(self) -> Any: ...
    def send_close(self, code: int, reason: str) -> Coroutine[Any, Any, None]: ...
    def terminate(self) -> None: ...
    async def safe_close(self) -> None: ...


class Application:
    """Serves each connection with a new view.

    Args:
        view_class: The class of the views.
        kwargs: Parameters of the view, in addition to those of the route.
    """

    def __init__(self, view_class: type[AsgiView], kwargs: Mapping[str, Any]) -> None:
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
            await extension["run"](lambda request: self._view_class._create(request, kwargs), scope, send)
        else:
            bridge = Bridge(scope, receive, send)
            await bridge.run(self._view_class._create(bridge.request, kwargs))


def _path_parameters(scope: Scope) -> Mapping[str, Any]:
    """Returns the path parameters of the route, as set by Starlette and FastAPI, or by Django Channels."""
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
    """Converts a scope to an upgrade request, whatever its version of HTTP.

    Args:
        scope: The scope that the application received, with the changes of its middleware.
        fields: The header fields named in `HANDSHAKE`; None if the server does not pass them.
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
    """Returns the path as the client sent it, unless middleware has changed it in the scope."""
    path: str = scope["path"]
    raw_path: bytes | None = scope.get("raw_path")
    if raw_path is not None and unquote(raw_path.decode("latin-1")) == path:
        return raw_path
    return quote(path).encode()


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Returns the header fields except `HANDSHAKE`. Some servers and tests pass the subprotocols only in the scope."""
    subprotocols = scope.get("subprotocols")
    dropped = HANDSHAKE | {b"sec-websocket-protocol"} if subprotocols else HANDSHAKE
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"] if name.lower() not in dropped]
    if subprotocols:
        headers.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode("latin-1", "replace")))
    return headers


def acceptance_event(acceptance: handshake.Acceptance) -> Event:
    """Returns the event of a 101 response. The server itself negotiates extensions."""
    return {
        "type": "websocket.accept",
        "subprotocol": acceptance.subprotocol,
        "headers": [_encoded(field) for field in acceptance.headers],
    }


def _takes_headers(scope: Scope) -> bool:
    """Whether the server supports header fields of the 101 response, as from version 2.1 of the specification on.

    A scope without a version, such as that of a test client, counts as recent.
    """
    if "asgi" not in scope:
        return True
    major, _, minor = str(scope["asgi"].get("spec_version", "2.0")).partition(".")
    return not (major.isdecimal() and minor.isdecimal()) or (int(major), int(minor)) >= (2, 1)


def denial(scope: Scope, error: HandshakeError) -> list[Event]:
    """Returns the events of a response other than 101; 403 for a server that does not support them."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        # The code has no meaning before the acceptance, and may be left out; the tests of httpx-ws fail without it.
        return [{"type": "websocket.close", "code": CloseCode.NORMAL_CLOSURE}]
    headers = [_encoded(field) for field in handshake.refusal_fields(error) if field[0].lower() not in _FRAMING]
    body = b"" if error.status in handshake.BODILESS else error.body
    return [
        {"type": "websocket.http.response.start", "status": error.status, "headers": headers},
        {"type": "websocket.http.response.body", "body": body},
    ]


def _encoded(field: tuple[str, str]) -> tuple[bytes, bytes]:
    """Returns a header field in the form of ASGI: name and value as bytes, the name in lower case."""
    name, value = field
    return name.lower().encode("latin-1"), value.encode("latin-1")


async def run(view: AsgiView) -> Any:
    """Runs a view, and returns the result of its `run`.

    A connection that an overridden `run` has opened and left open ends with 1011.
    """
    try:
        result = await view.run()
    except Exception:
        await _close(view)
        raise
    if await _close(view):
        logger.error("%r: %s.run() left the connection open", label(view.request), type(view).__name__)
    return result


async def _close(view: AsgiView) -> bool:
    """Closes the connection if it is open; returns whether it was."""
    if not view.initiated_upgrade or not view._connection_state:  # which is CLOSED
        return False
    await view.send_close(CloseCode.INTERNAL_ERROR, "internal error")
    view.terminate()
    await view.safe_close()
    return True


def reply(view: AsgiView, result: Any) -> HandshakeError:
    """Returns the response for a view whose `run` has returned a result without answering the request."""
    if hasattr(result, "status") and hasattr(result, "headers"):
        return HandshakeError(result.status, headers=result.headers, body=result.content)
    path, name = label(view.request), type(view).__name__
    logger.error("%r: %s.run() sent no response: call super().run(), or return a HttpResponse", path, name)
    return HandshakeError(500, "internal server error")


def _message_frame(event: Event) -> bytes:
    """Returns the frame of a client's message."""
    text = event.get("text")
    return _frame(_BINARY, event["bytes"]) if text is None else _frame(_TEXT, text.encode())


def _close_frame(event: Event) -> bytes:
    """Returns the close frame of a client that has disconnected; empty if it has sent none."""
    code = event.get("code")
    if code is None or code == CloseCode.NO_STATUS_RCVD:
        return _frame(_CLOSE, b"")
    try:
        return _frame(_CLOSE, close_payload(code, event.get("reason") or ""))
    except ValueError:  # 1006 and other codes that no close frame carries
        return b""


def _frame(opcode: int, payload: bytes) -> bytes:
    """Returns a frame as the view gets it from its client; the mask leaves the payload as it is."""
    return codec.serialize(codec.FIN | opcode, payload, _MASK)


def _no_pings() -> RuntimeError:
    return RuntimeError("messages of ASGI have no pings: the server sends its own")


class Bridge:
    """Converts between the events of one ASGI connection and the bytes of a view's transport.

    Args:
        scope: The scope of the connection, whose first event has been received.
        receive: The `receive` of the server.
        send: The `send` of the server.

    Attributes:
        request: The upgrade request for the view.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self._scope = scope
        self._reader = codec.MessageReader(codec.MAX_LENGTH, False, False)
        self._transport = VirtualTransport(self._changed)
        self._name: str  # of the view, which itself refers to this object
        self._receiving: asyncio.Task[None]
        self._sending: asyncio.Task[None]
        self._accepted = False
        self._refusal: HandshakeError | None = None
        self._readable = asyncio.Event()
        self._readable.set()  # to detect a client that disconnects before the response
        self._idle: list[codec.Waiter] = []  # the sending task, while nothing is to be sent
        self._delivering = False  # whether the view is getting a frame
        self._gone = False  # whether the server has reported that the client has disconnected
        self._error: Exception | None = None  # of the server: of `send`, and not for a lost client, or of an event
        self._warned: set[str] = set()
        self.request = request_of(scope, self._transport)
        self.request.responder = self

    async def run(self, view: AsgiView) -> None:
        """Runs a view to its end.

        Raises:
            Exception: The server has rejected an event; the server then closes the connection.
        """
        self._name = type(view).__name__
        view._host_detects_loss = True
        self._sending = self._loop.create_task(self._pump_out())
        self._receiving = self._loop.create_task(self._pump_in())
        try:
            result = await run(view)
            if not self._accepted and not self._gone:
                await self._deny(self._refusal or reply(view, result))
            self._transport.close()
            await asyncio.wait([self._sending])
            if self._error is not None:
                # The end of the client may have been unnoticed while reading was paused.
                self._readable.set()
                await asyncio.wait([self._receiving], timeout=_GONE)
        finally:
            self._sending.cancel()
            self._receiving.cancel()
            await asyncio.gather(self._sending, self._receiving, return_exceptions=True)
        if self._error is not None and not self._gone:
            raise self._error

    # The answer to the upgrade request; see `upgrade.Responder`

    async def accept(self, acceptance: handshake.Acceptance) -> bytes:
        self._accepted = True
        if acceptance.headers and not _takes_headers(self._scope):
            names = ", ".join(name for name, _ in acceptance.headers)
            self._warn(f"the 101 response lacks the header fields {names}")
        if not await self._put(acceptance_event(acceptance)):
            raise ConnectionClosed
        return b""

    def refuse(self, error: HandshakeError) -> None:
        self._refusal = error

    async def _deny(self, error: HandshakeError) -> None:
        for event in denial(self._scope, error):
            if not await self._put(event):
                return

    # From the server

    async def _pump_in(self) -> None:
        """Feeds received messages to the view."""
        spent = _FAIR_SHARE  # so that the view begins first, even on a loop with eager tasks
        while True:
            if spent >= _FAIR_SHARE:
                await asyncio.sleep(0)
                spent = 0.0
            await self._readable.wait()
            try:
                event = await self._receive()
            except Exception as error:  # servers raise different errors for a disconnected client
                logger.debug("%r: `receive` has failed: %r", label(self.request), error)
                self._gone = True
                self._transport.abort()
                return
            try:
                has_ended = event["type"] != "websocket.receive"
                frame = _close_frame(event) if has_ended else _message_frame(event)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                self._error = error
                error.add_note(f"The server's event breaks the specification of ASGI: {reprlib.repr(event)}")
                self._transport.abort()
                return
            if has_ended:
                self._gone = True
                if frame:
                    self._feed(frame)
                if not (frame and self._accepted):
                    self._transport.abort()
                return
            begin = perf_counter()
            self._feed(frame)
            spent += perf_counter() - begin

    def _feed(self, frame: bytes) -> None:
        # Messages must not be delivered while a task is running.
        call_outside_task(self._loop, self._deliver, frame)

    def _deliver(self, frame: bytes) -> None:
        """Feeds a frame to the view, and sends what it has written; must be called while no task is running."""
        self._delivering = True
        try:
            self._transport.feed(frame)
        finally:
            self._delivering = False
        if self._is_due:
            self._idle.pop().wake()

    # To the server

    def _changed(self) -> None:
        """Reacts to the view's writes and closing, and to pauses and resumes of reading."""
        transport = self._transport
        if transport.is_reading():
            self._readable.set()
        else:
            self._readable.clear()
        if transport.aborted:
            self._sending.cancel()  # the task may be waiting for a client that does not read
        elif not self._delivering and self._is_due:
            self._idle.pop().wake_soon()

    @property
    def _is_due(self) -> bool:
        """Whether the sending task waits, and has something to do."""
        return bool(self._idle and (self._transport.outgoing() or self._transport.lost))

    async def _pump_out(self) -> None:
        """Sends the view's data until the view has closed."""
        transport = self._transport
        while not transport.lost:
            data = transport.outgoing()
            if data:
                for event in self._events_of(data):
                    if not await self._put(event):
                        transport.lose()
                        return
                transport.sent(len(data))
            else:
                await codec.Waiter(self._loop, self._idle)

    async def _put(self, event: Event) -> bool:
        """Sends an event; returns whether others may follow."""
        if event["type"] == "websocket.close":
            # No more events will be used, and Granian sends no close frame while `receive` is pending.
            self._receiving.cancel()
            await asyncio.wait([self._receiving])
        try:
            await self._send(event)
        except Exception as error:
            # By version 2.4 of the specification an OSError reports a disconnected client. Some servers raise other
            # errors for that, and some raise errors for events that they do not support.
            logger.debug("%r: %s was not sent: %r", label(self.request), event["type"], error)
            if not isinstance(error, OSError):
                self._error = error
            return False
        return bool(event["type"] != "websocket.close")  # an application does not see the client's answer

    def _events_of(self, data: bytes | memoryview) -> Iterator[Event]:
        """Yields the events for bytes that the view has written."""
        protocol: Any = self._transport.get_protocol()
        for opcode, payload in self._reader.receive(bytes(data)):
            if opcode == _TEXT:
                yield {"type": "websocket.send", "text": payload.decode()}
            elif opcode == _BINARY:
                yield {"type": "websocket.send", "bytes": payload}
            elif opcode == _CLOSE and not self._gone:  # otherwise it answers the client's
                code, reason = parse_close(payload)
                if code == CloseCode.NO_STATUS_RCVD:
                    code = CloseCode.NORMAL_CLOSURE
                yield {"type": "websocket.close", "code": int(code), "reason": reason}
            elif opcode == _PING:
                self._warn("a ping is not sent")
                protocol.heartbeat.fail(_no_pings)
                self._loop.call_soon(self._deliver, _frame(OpCode.PONG, payload))
        if protocol.writer.fragmenting:
            self._warn("a message is gathered from its fragments before it is sent")

    def _warn(self, loss: str) -> None:
        if loss not in self._warned:
            self._warned.add(loss)
            logger.warning("%r: %s on messages of ASGI: %s; %s", label(self.request), self._name, loss, _ADVICE)
