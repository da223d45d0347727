"""A process of its own that serves members of a group, for the tests: `python member_process.py URL PREFIX`.

Prints its port; each member joins the group of its path, and publishes the messages of its peer there.
"""

import asyncio
import sys

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.groups import Groups
from duck.server import serve
from duck.urls import path

rooms = Groups(
    sys.argv[1],
    prefix=sys.argv[2],
    presence_ttl=3,
    announce=lambda change: f"{len(change.joined)} joined, {len(change.left)} left",
)


class Member(WebSocketView):
    async def on_open(self) -> None:
        await rooms.join(self, self.kwargs["room"], data=self.kwargs["room"])
        await self.send("joined")

    async def on_receive(self, message: bytes, opcode: int) -> None:
        await rooms.publish(self.kwargs["room"], message, opcode)

    async def on_gap(self, group: str) -> None:
        await self.send(f"gap in {group}")


async def main() -> None:
    async with serve([path("/<str:room>", Member)], port=0) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
