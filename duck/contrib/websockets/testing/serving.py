"""The server of a test: reads one upgrade request from a transport, and runs the tested application on it.

Application = a view class | urlpatterns | an ASGI application
"""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from inspect import signature
from types import SimpleNamespace
from typing import Any, TypeGuard

from duck.http.request import HttpRequest
from duck.views import View

from ..compression import DEFAULT_NEGOTIATORS
from ..exceptions import ConnectionClosed, HandshakeError
from ..hosts import asgi, upgrade
from ..hosts.asgi_session import Accepted, Headers, Session, SessionProtocol, Stage
from ..hosts.upgrade_head import UpgradeHead, header_lines
from ..logging import failures, label, log_failure
from ..opcodes import CloseCode
from ..protocol import stepping
from ..protocol.lingering import Lingering
from ..protocol.virtual_transport import VirtualTransport
from ..sansio import handshake
from ..view import WebSocketView

__all__ = ["Server"]

_END = b"\r\n\r\n"
_CLIENT = ("testclient", 50000)


def _takes_three(function: Callable[..., Any]) -> bool:
    """Whether a function can be called with three arguments; True as well if its signature is unknown."""
    try:
        signature(function).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def _is_view_class(value: object) -> TypeGuard[type[WebSocketView]]:
    return isinstance(value, type) and issubclass(value, WebSocketView)


def _check(application: Any) -> None:
    """Raises a TypeError for an application that cannot be tested."""
    if isinstance(application, str) or not (callable(application) or isinstance(application, Sequence)):
        raise TypeError(f"{application!r} is neither a view class, nor a list of routes, nor an ASGI application")
    if isinstance(application, Sequence):
        for route in application:
            if not hasattr(route, "match"):
                raise TypeError(f"{route!r} is not a route: write one such as path('/', View) of duck.urls")
            if isinstance(route["handler"], asgi.Application):
                raise TypeError(f"the handler of {route['url']!r} is an ASGI application: give the view class itself")
    elif not isinstance(application, type):
        if not _takes_three(application):
            words = "is no ASGI application: it cannot be called with scope, receive and send"
            raise TypeError(f"{application!r} {words}")
    elif issubclass(application, View) and not issubclass(application, WebSocketView):
        raise TypeError(f"{application.__name__} is a view of pages: give a WebSocketView")


class Server(asyncio.Protocol):
    """Serves one connection.

    Args:
        application: The tested application.
        kwargs: The parameters of a view, in addition to those of its route.
        secure: Whether the request counts as received over TLS.
        scope: Additional entries of an ASGI application's scope.
        server: The `server` of a view; None for none.

    Attributes:
        view: The tested view; None for an ASGI application.
        task: The task of the ASGI application.
        label: The name of the tested application, for errors.
    """

    def __init__(
        self,
        application: Any,
        kwargs: Mapping[str, Any],
        secure: bool,
        scope: Mapping[str, Any] | None,
        server: Any,
    ) -> None:
        _check(application)
        is_asgi = not (_is_view_class(application) or isinstance(application, Sequence))
        if scope and not is_asgi:
            raise TypeError("scope is of an ASGI application: write connect(View.as_asgi(), scope=...)")
        if kwargs and is_asgi:
            raise TypeError("kwargs are of a view: an ASGI application has them as scope={'path_params': ...}")
        if server is not None and is_asgi:
            raise TypeError("server is of a view: an ASGI application has a state as scope={'state': ...}")
        self._application = application
        self._kwargs = kwargs
        self._secure = secure
        self._scope = scope or {}
        self._site = None if server is None else SimpleNamespace(server=server)
        self._received = b""
        self.transport: VirtualTransport | None = None
        self.view: WebSocketView | None = None
        self.ended: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.label = getattr(application, "__name__", repr(application))

    @property
    def ends(self) -> set["asyncio.Future[None]"]:
        """Done when every hook of the view, or the ASGI application, has ended."""
        return {end for end in (self.ended, self.task) if end is not None}

    def cancel(self) -> None:
        """Cancels the hooks of the view, or the ASGI application."""
        if self.view is not None:
            self.view.terminate()
        if self.task is not None:
            self.task.cancel()

    # Calls of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, VirtualTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, content = self._received.partition(_END)
        if end:
            try:
                self._begin(head + end, content)
            except Exception as error:  # from the view's `__init__`, or from a computed setting
                errors = failures.get()
                assert errors is not None and self.transport is not None
                errors.append(error)
                self.transport.abort()

    def eof_received(self) -> bool:
        return True  # the application may still answer

    # One request

    def _begin(self, head: bytes, content: bytes) -> None:
        parsed = UpgradeHead(head)
        request = self._request(parsed, content)
        application = self._application
        if _is_view_class(application):
            self._start(application, request, {})
        elif isinstance(application, Sequence):
            for pattern in application:
                found: dict[str, Any] | None = pattern.match(request.path)
                if found is not None:
                    self._start(pattern["handler"], request, found)
                    return
            upgrade.refuse(request, HandshakeError(404, "not found"))
        else:
            host = _AsgiHost(request, {**_scope_of(parsed, self._secure), **self._scope})
            self.task = asyncio.get_running_loop().create_task(host.run(application))

    def _request(self, head: UpgradeHead, content: bytes) -> HttpRequest:
        assert self.transport is not None
        return HttpRequest(
            head.method,
            head.target.decode("latin-1"),
            head.headers,
            client_address=_CLIENT,
            secure=self._secure,
            transport=self.transport,
            content=content,
            application=self._site,
        )

    def _start(self, view_class: Any, request: HttpRequest, found: Mapping[str, Any]) -> None:
        if not _is_view_class(view_class):
            upgrade.refuse(request, HandshakeError(426, "this endpoint does not serve WebSockets"))
            return
        self.label = view_class.__name__
        self.view = view = view_class._create(request, {**self._kwargs, **found})
        self.ended = view.start()


def _scope_of(head: UpgradeHead, secure: bool) -> MutableMapping[str, Any]:
    return {
        **head.scope(secure),
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "server": ("testserver", 80),
        "client": _CLIENT,
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


class _AsgiHost:
    """One ASGI application on one transport, with the methods of `Host`."""

    def __init__(self, request: HttpRequest, scope: MutableMapping[str, Any]) -> None:
        self._request = request
        self._scope = scope
        self._session = Session(asyncio.get_running_loop(), self, None, None)
        self._denial = b""

    async def run(self, application: Callable[..., Any]) -> None:
        """Runs the application to its end, and closes a connection that it has left open."""
        session = self._session
        code, reason = int(CloseCode.NORMAL_CLOSURE), ""
        try:
            await application(self._scope, session.receive, session.send)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as SystemExit, which would end the loop of the test
            if stepping.is_cancelled(error) or stepping.is_abandoned(error, asyncio.get_running_loop()):
                raise
            is_gone = session.has_ended or self._transport.is_closing()
            if not (isinstance(error, ConnectionClosed) and is_gone):
                log_failure(error, "error in the ASGI application")
                code, reason = int(CloseCode.INTERNAL_ERROR), "internal error"
        await self._finish(code, reason)

    async def _finish(self, code: int, reason: str) -> None:
        stage = self._session.stage
        if stage is Stage.CONNECTING and not self._transport.is_closing():
            upgrade.refuse(self._request, HandshakeError(500, "internal error"))
        elif stage is Stage.ACCEPTED:
            with suppress(ConnectionClosed):
                self._session.close(code, reason)
        elif stage is Stage.DENYING:  # the application has not finished its response
            await self.deny_body(b"", False)

    @property
    def _transport(self) -> asyncio.Transport:
        assert self._request.transport is not None
        return self._request.transport

    # For the session

    def accept(self, subprotocol: str | None, headers: Headers) -> SessionProtocol:
        """Sends the 101 response, and starts a `SessionProtocol` on the transport."""
        request = self._request
        key = handshake.check(request, allowed_origins=["*"])  # the application checks origins
        acceptance = handshake.agree(request, key, extensions=DEFAULT_NEGOTIATORS)._replace(subprotocol=subprotocol)
        response = handshake.switching_protocols(acceptance, header_lines(headers))
        endpoint = Accepted(self._session, label(request), None, None, None)
        protocol = SessionProtocol(self._session, endpoint, acceptance.extensions)
        early = upgrade.attach(request, protocol, response)
        protocol.start(early)
        return protocol

    def deny(self, status: int, headers: Headers) -> None:
        """Starts another response."""
        head = b"HTTP/1.1 %d %b\r\n%bconnection: close\r\n\r\n"
        self._denial = head % (status, handshake.reason_phrase(status).encode(), header_lines(headers))

    async def deny_body(self, body: bytes, more: bool) -> None:
        """Sends a part of the response's body."""
        data, self._denial = self._denial + body, b""
        self._transport.write(data)
        if not more:
            Lingering(self._transport)

    def ended(self) -> None:
        """Does nothing, because the connection is the only one."""
