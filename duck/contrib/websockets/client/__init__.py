"""A client for WebSocket servers.

    from duck.contrib.websockets.client import connect

    async with connect("wss://example.org/chat") as ws:
        await ws.send("hello")
        async for message in ws:
            print(message)

In synchronous code, `with connect(...) as ws` gives the same methods, which block.
`WebSocketClient` is the alternative with hooks, like those of a `WebSocketView`.
"""

from ..exceptions import ConnectionClosed, HandshakeFailed, HandshakeRefused, InvalidHandshake
from ..protocol.incoming_message import IncomingMessage
from ..sansio.negotiation import ClientOffer
from .blocking import BlockingConnection, BlockingMessage
from .client import WebSocketClient
from .connecting import connect
from .connection import ClientConnection
from .options import Options
from .proxies import ProxyError
from .reconnecting import Reconnect, ReconnectingConnection, is_final

__all__ = [
    "BlockingConnection",
    "BlockingMessage",
    "ClientConnection",
    "ClientOffer",
    "ConnectionClosed",
    "HandshakeFailed",
    "HandshakeRefused",
    "IncomingMessage",
    "InvalidHandshake",
    "Options",
    "ProxyError",
    "Reconnect",
    "ReconnectingConnection",
    "WebSocketClient",
    "connect",
    "is_final",
]
