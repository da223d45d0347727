"""WebSockets: subclass `WebSocketView`, override its hooks, and serve it.

from duck.contrib.websockets import WebSocketView
from duck.urls import path

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

urlpatterns = [path("/ws", Echo)]
"""

from duck.views import View

from .compression import Compression
from .exceptions import (
    BrokerError,
    ConnectionClosed,
    ExtensionError,
    HandshakeError,
    PayloadTooBig,
    ProtocolError,
)
from .extensions import Extension, PerMessageDeflate
from .frame import Frame
from .logging import log_message, logger
from .opcodes import CONTROL_OPCODES, DATA_OPCODES, CloseCode, OpCode
from .protocol.broadcast import broadcast
from .protocol.incoming_message import IncomingMessage
from .sansio.handshake import Handshake
from .state import State
from .view import WebSocketView

__version__ = "0.1.0"

__all__ = [
    "CONTROL_OPCODES",
    "DATA_OPCODES",
    "BrokerError",
    "CloseCode",
    "Compression",
    "ConnectionClosed",
    "Extension",
    "ExtensionError",
    "Frame",
    "Handshake",
    "HandshakeError",
    "IncomingMessage",
    "OpCode",
    "PayloadTooBig",
    "PerMessageDeflate",
    "ProtocolError",
    "State",
    "View",
    "WebSocketView",
    "__version__",
    "broadcast",
    "log_message",
    "logger",
]
