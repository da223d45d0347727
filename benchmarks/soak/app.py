"""The application under the soak. Its messages are words:

join GROUP ID   ->  joined GROUP yes|no   whether the history reaches back to the id; "" and "-" for no id
leave GROUP     ->  left GROUP
say GROUP FROM N  ->  said FROM N, or lost FROM N if the broker has not taken the message
                    to the members: m GROUP ID FROM N
                ->  gap GROUP             messages may be missing
"""

import asyncio
import gc
import json
import logging
import os

from duck.contrib.websockets import BrokerError, OpCode, WebSocketView
from duck.contrib.websockets.groups import Groups
from duck.http.request import HttpRequest
from duck.urls import path

HISTORY = 300

logging.getLogger("duck.contrib.websockets").setLevel("WARNING")  # no line for each connection


def stamp(payload: bytes, id: str) -> str:
    group, rest = payload.decode().split(" ", 1)
    return f"m {group} {id} {rest}"


rooms = Groups(os.environ["REDIS_URL"], history=HISTORY, stamp=stamp)


class Member(WebSocketView):
    async def on_receive(self, message: bytes, opcode: OpCode) -> None:
        verb, group, *rest = message.decode().split(" ")
        if verb == "say":
            await self.say(group, *rest)
        elif verb == "join":
            since = None if rest[0] == "-" else rest[0]
            complete = await rooms.join(self, group, since=since)
            await self.send(f"joined {group} {'yes' if complete else 'no'}")
        else:
            await rooms.leave(self, group)
            await self.send(f"left {group}")

    async def say(self, group: str, publisher: str, number: str) -> None:
        try:
            await rooms.publish(group, f"{group} {publisher} {number}")
        except BrokerError:
            await self.send(f"lost {publisher} {number}")
        else:
            await self.send(f"said {publisher} {number}")

    async def on_gap(self, group: str) -> None:
        await self.send(f"gap {group}")


def state(request: HttpRequest) -> str:
    """The objects that this worker holds."""
    gc.collect()
    return json.dumps(
        {
            "pid": os.getpid(),
            "connections": len(request.application.server.connections),
            "groups": len(rooms.names()),
            "members": sum(map(rooms.count, rooms)),
            "tasks": len(asyncio.all_tasks()),
            "objects": len(gc.get_objects()),
        }
    )


urlpatterns = [path("/state", state), path("/", Member)]
