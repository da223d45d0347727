"""The options of all clients."""

import ssl as tls
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from socket import socket
from typing import TYPE_CHECKING, Literal, TypedDict

from ..compression import Compression
from ..metrics import Metrics
from ..sansio.negotiation import ClientOffer

if TYPE_CHECKING:
    from http.cookies import Morsel

__all__ = ["ATTRIBUTES", "Headers", "Options", "advice_on"]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

ATTRIBUTES = {
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
    "stream": "_in_parts",
    "subprotocols": "SUBPROTOCOLS",
    "write_limit": "WRITE_LIMIT",
}
"""The attribute of each option, a setting or an internal one, except the options of a `Route`."""


class Options(TypedDict, total=False):
    """Options of `connect` and `WebSocketClient`, in addition to the URL.

    Attributes:
        subprotocols: Names, the preferred one first. `ws.subprotocol` is the server's choice.
        compression: True, False, or a `Compression`. A server that exceeds its `server_max_window_bits` is refused;
            True leaves the server its 15.
        extensions: Custom extensions, as a `ClientOffer` for each name.
        headers: Additional header fields of the request, as a mapping or as pairs. For `connect` also a function, or a
            coroutine function, that returns them, and is called for each connection.
        origin: The value of Origin, which some servers require.
        cookies: A mapping of names to values, such as a dict or an `http.cookies.SimpleCookie`.
        user_agent: The value of User-Agent; None to omit it.
        ssl: For `wss`, a context; False to accept any certificate.
        server_hostname: The name that the certificate must have, if it differs from the URL's; not after a redirect to
            another host.
        unix: The path of a Unix socket to connect to; the URL then only names the requested resource.
        sock: A connected socket to use.
        proxy: True for the environment's proxy, None for none, or a URL. A SOCKS proxy needs the extra `proxy`.
        max_redirects: The number of redirects to follow; 0 for none. A redirect from wss to ws is refused.
        open_timeout: Seconds until the connection must be open, and before that for each coroutine function among the
            options of `connect`; None for no limit.
        stream: Whether `recv_stream` returns a message before all of it has been received; only of `connect`.
        metrics: Counts the connection; one object may count many.
        max_size: MAX_FRAME_SIZE of a view. The other options are settings of a view in lower case.
    """

    subprotocols: Sequence[str]
    compression: bool | Compression
    extensions: Mapping[str, ClientOffer]
    headers: Headers | Callable[[], Headers | Awaitable[Headers]]
    origin: str | None
    cookies: Mapping[str, "str | Morsel[str]"]
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


_ELSEWHERE = {
    "additional_headers": "use headers",
    "auth": "put user and password into the URL, or use headers",
    "compress": "use compression",
    "extra_headers": "use headers",
    "heartbeat": "use ping_interval",
    "max_frame_size": "use max_size",
    "max_message_size": "use max_size",
    "max_msg_size": "use max_size",
    "max_queue": "use max_waiting_messages",
    "params": "put the query into the URL",
    "ping_timeout": "use pong_timeout",
    "process_exception": "use reconnect=Reconnect(is_final=...)",
    "protocols": "use subprotocols",
    "ssl_context": "use ssl",
    "sslopt": "use ssl",
    "timeout": "use open_timeout, or the timeout of recv",
    "user_agent_header": "use user_agent",
    "verify": "use ssl=False to accept any certificate",
    "verify_ssl": "use ssl=False to accept any certificate",
}
"""Names of options in other libraries, each with advice."""

_ALIKE = 0.87  # as for the settings of a view


def advice_on(name: str) -> str | None:
    """Returns what to write in place of an option that is misspelt or that another library has, or None."""
    import difflib  # most programs do not need it

    close = difflib.get_close_matches(name, Options.__annotations__, 1, _ALIKE)
    return f"use {close[0]}" if close else _ELSEWHERE.get(name)
