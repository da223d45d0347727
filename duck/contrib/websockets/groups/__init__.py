"""Groups of connections: join a view to a name, and publish to all members, in one process or across many.

rooms = Groups()                      # in this process
rooms = Groups("redis://127.0.0.1")   # across processes and machines

class Chat(WebSocketView):
    async def on_open(self):
        await rooms.join(self, "lobby")

    async def on_receive(self, message, opcode):
        await rooms.publish("lobby", message, opcode)
"""

from ..exceptions import BrokerError
from .broker import Broker, BrokerConnection, Handler, HistoryConnection, Message, PresenceConnection
from .group import Groups
from .local_group import Member
from .presence import Presence, PresenceChange

__all__ = [
    "Broker",
    "BrokerConnection",
    "BrokerError",
    "Groups",
    "Handler",
    "HistoryConnection",
    "Member",
    "Message",
    "Presence",
    "PresenceChange",
    "PresenceConnection",
]
