"""Dialing: from a URL to a transport with a successful handshake (name, proxy, TLS, request, response, redirects).

    dial -> a transport, the agreement, and the first bytes behind the response

`WebSocketClient.open` calls `dial`. Any failure closes the transport.
"""

import asyncio
import re
import socket
import ssl as tls
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any

from ..exceptions import HandshakeRefused
from ..sansio.client_handshake import Agreement, ClientHandshake
from ..sansio.negotiation import ClientOffer
from .address import Address
from .proxies import connect_through, proxy_for

__all__ = ["Opening", "Route", "dial"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HAPPY_EYEBALLS_DELAY = 0.25  # seconds before the next address of a name is tried in parallel (RFC 8305)
_DIRECT = re.compile(r":|\.\d+$|^localhost$")  # hosts with one address, or with addresses that fail at once
_REFUSAL_TIMEOUT = 2.0  # seconds for the content of a refusal after its head
_PERSONAL = frozenset({"authorization", "cookie", "proxy-authorization"})

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


def pairs_of(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Returns header fields as pairs, for repeated use: after a redirect, or by the next connection.

    Raises:
        TypeError: The fields are not pairs of str.
    """
    if headers == ():
        return ()
    given: Any = headers.items() if isinstance(headers, Mapping) else headers
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"headers are a mapping of names to values, or pairs of them, not {given!r}")
    pairs = tuple(given)
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and all(isinstance(word, str) for word in pair)):
            raise TypeError(f"a header field is a name and a value, both str, not {pair!r}")
    return pairs


def _instance(name: str, types: tuple[type, ...], words: str) -> Callable[[Any], Any]:
    """Returns a check for the instances of some types."""

    def check(value: Any) -> Any:
        if not isinstance(value, types):
            raise TypeError(f"{name} is {words}, not {value!r}")
        return value

    return check


def _cookies(value: Any) -> Any:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"cookies are a mapping of names to values, not {value!r}")
    for name, content in value.items():
        if ";" in f"{name}{content}" or "=" in name:
            raise ValueError(f"the cookie {name!r}: {content!r} would be misread: percent-encode ; and =")
    return value


def _redirects(value: Any) -> Any:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"max_redirects is a number of redirects, 0 or more, not {value!r}")
    return value


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "ssl": _instance("ssl", (tls.SSLContext, bool, NoneType), "an ssl.SSLContext, False or None"),
    "server_hostname": _instance("server_hostname", (str, NoneType), "a str or None"),
    "unix": _instance("unix", (object,), "a path"),
    "sock": _instance("sock", (socket.socket, NoneType), "a connected socket.socket"),
    "proxy": _instance("proxy", (str, bool, NoneType), "a URL, True for the environment's, or None for none"),
    "headers": pairs_of,
    "origin": _instance("origin", (str, NoneType), "a str or None"),
    "cookies": _cookies,
    "user_agent": _instance("user_agent", (str, NoneType), "a str or None"),
    "max_redirects": _redirects,
}
"""The options of a route, and for each a function that checks a value, and returns it as the route keeps it."""

_ELSEWHERE = {
    "additional_headers": "use headers",
    "extra_headers": "use headers",
    "heartbeat": "use ping_interval",
    "max_msg_size": "use max_size",
    "max_queue": "use max_waiting_messages",
    "ping_timeout": "use pong_timeout",
    "protocols": "use subprotocols",
    "ssl_context": "use ssl",
    "timeout": "use open_timeout, or the timeout of recv",
    "user_agent_header": "use user_agent",
}
"""Names of options in other libraries."""


class Route:
    """The way to a server; `Options` explains each attribute. It does not change.

    Args:
        options: The given options, which are checked. The others have the defaults of the class.

    Raises:
        TypeError: An option is unknown, or has the wrong type.
        ValueError: An option is out of bounds, or two contradict each other.
    """

    ssl: tls.SSLContext | bool | None = None
    server_hostname: str | None = None
    unix: str | None = None
    sock: socket.socket | None = None
    proxy: str | bool | None = True
    headers: Sequence[tuple[str, str]] = ()
    origin: str | None = None
    cookies: Mapping[str, str] = {}
    user_agent: str | None = "duck-websockets"
    max_redirects: int = 5

    def __init__(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if name not in _CHECKS:
                advice = _ELSEWHERE.get(name, "see duck.contrib.websockets.client.Options")
                raise TypeError(f"{name!r} is not an option of a client: {advice}")
            setattr(self, name, _CHECKS[name](value))
        if len(options) > 1:
            self._check_pairs()

    def _check_pairs(self) -> None:
        """Checks that no options contradict each other."""
        ways = ("unix", self.unix), ("sock", self.sock), ("proxy", isinstance(self.proxy, str) and self.proxy)
        chosen = [name for name, value in ways if value]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} are different ways to a server: choose one")
        if self.origin is not None and any(name.lower() == "origin" for name, _ in self.headers):
            raise ValueError("both origin and headers have an Origin: leave one out")

    def fields(self, address: Address, is_first: bool) -> list[tuple[str, str]]:
        """Returns the header fields of a request.

        Args:
            address: The address of the request.
            is_first: Whether the host is that of the user's URL, not of a redirect; only then private fields are sent.
        """
        given = list(self.headers)
        if not is_first:
            given = [(name, value) for name, value in given if name.lower() not in _PERSONAL]
        names = {name.lower() for name, _ in given}
        fields = []
        if self.origin is not None:
            fields.append(("Origin", self.origin))
        if self.user_agent is not None and "user-agent" not in names:
            fields.append(("User-Agent", self.user_agent))
        if address.authorization is not None and "authorization" not in names:
            fields.append(("Authorization", address.authorization))
        if self.cookies and is_first:
            cookies = [f"{name}={value}" for name, value in self.cookies.items()]
            if "cookie" in names:  # there is only one such field (RFC 6265, section 5.4)
                cookies = [value for name, value in given if name.lower() == "cookie"] + cookies
                given = [(name, value) for name, value in given if name.lower() != "cookie"]
            fields.append(("Cookie", "; ".join(cookies)))
        return fields + given


async def dial(
    address: Address, route: Route, subprotocols: Sequence[str], extensions: Mapping[str, ClientOffer]
) -> tuple["Opening", Agreement, Address]:
    """Connects, performs the handshake, and follows redirects.

    Returns:
        The protocol of the handshake, whose transport has reading paused; the agreement; and the final address.

    Raises:
        HandshakeFailed: The server refused, or its response breaks the rules.
        OSError: The network, the proxy or TLS failed.
        ValueError: The options contradict each other, or cannot be sent.
    """
    first = address
    redirects = 0
    while True:
        is_first = address.is_same_host(first)
        fields = route.fields(address, is_first)
        handshake = ClientHandshake(
            address.target, address.netloc, subprotocols=subprotocols, extensions=extensions, headers=fields
        )
        _, opening = await _connecting(address, route, handshake, route.server_hostname if is_first else None)
        try:
            return opening, await opening.agreement, address
        except HandshakeRefused as error:
            opening.transport.abort()
            redirects += 1
            address = _redirected(address, route, error, redirects)
        except BaseException:
            opening.transport.abort()
            raise


def _redirected(address: Address, route: Route, error: HandshakeRefused, redirects: int) -> Address:
    """Returns the address to which a refusal redirects; raises the refusal if it does not redirect."""
    location = error.headers.get("location")
    if error.status not in _REDIRECTS or location is None or route.max_redirects == 0:
        raise error
    if route.sock is not None or route.unix is not None:
        raise error  # the next request would use a closed socket, or go to another host
    try:
        address = address.redirected(location)
    except ValueError as cause:
        raise HandshakeRefused(str(cause), error.status, error.headers, error.body) from None
    if redirects > route.max_redirects:
        message = f"more than {route.max_redirects} redirects, the last one to {address.url}"
        raise HandshakeRefused(message, error.status, error.headers, error.body)
    return address


def _connecting(
    address: Address, route: Route, handshake: ClientHandshake, server_hostname: str | None
) -> Coroutine[Any, Any, tuple[Any, "Opening"]]:
    """Connects and sends the request; returns an awaitable of the transport and the protocol."""
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"ssl": _context(address, route)}
    if address.secure:
        options["server_hostname"] = server_hostname or address.host

    def opening() -> Opening:
        return Opening(loop, handshake)

    if route.unix is not None:
        return loop.create_unix_connection(opening, route.unix, **options)
    if route.sock is not None:
        return loop.create_connection(opening, sock=route.sock, **options)
    proxy = proxy_for(address) if route.proxy is True else route.proxy or None
    if proxy is not None:
        return _connecting_through(proxy, address, opening, options)
    # uvloop lacks this option. With Python 3.12 and eager tasks it fails, and a cancellation may leave a socket open.
    if isinstance(loop, asyncio.BaseEventLoop) and not loop.get_task_factory() and not _DIRECT.search(address.host):
        options["happy_eyeballs_delay"] = _HAPPY_EYEBALLS_DELAY
    return loop.create_connection(opening, address.host, address.port, **options)


async def _connecting_through(
    proxy: str, address: Address, opening: Callable[[], "Opening"], options: dict[str, Any]
) -> tuple[Any, "Opening"]:
    sock = await connect_through(proxy, address)
    return await asyncio.get_running_loop().create_connection(opening, sock=sock, **options)


def _context(address: Address, route: Route) -> tls.SSLContext | None:
    if not address.secure:
        if route.ssl or route.server_hostname:
            name = "ssl" if route.ssl else "server_hostname"
            raise ValueError(f"{name} is for wss, but the URL is {address.url}: change one of them")
        return None
    if isinstance(route.ssl, tls.SSLContext):
        return route.ssl
    context = tls.create_default_context()
    if route.ssl is False:
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
    return context


class Opening(asyncio.Protocol):
    """The protocol of the opening handshake: it sends the request and reads the response.

    Attributes:
        handshake: The request and the response; its `rest` has the bytes behind the response.
        agreement: The outcome. Reading is paused once the agreement has been received.
    """

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, handshake: ClientHandshake) -> None:
        self._loop = loop
        self.handshake = handshake
        self._patience: asyncio.TimerHandle | None = None  # for the content of a refusal
        self.agreement: asyncio.Future[Agreement] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's are not instances of asyncio.Transport
        self.transport.write(self.handshake.request)

    def data_received(self, data: bytes) -> None:
        if self.agreement.done():
            self.handshake.rest += data  # bytes that TLS decrypted before reading was paused
            return
        try:
            agreement = self.handshake.feed(data)
        except Exception as error:  # a user's `ClientOffer.accept` may raise any exception
            self._fail(error)
        else:
            if agreement is not None:
                self.transport.pause_reading()
                self.agreement.set_result(agreement)
            elif self._patience is None and self.handshake.refusal is not None:
                self._patience = self._loop.call_later(_REFUSAL_TIMEOUT, self._end, None)

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

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
