"""The commands of one channel that wait for the channel's node in a cluster.

    no node known, or a node has not executed a command -> the map of slots is read
    -> the first command is sent alone -> executed: all others follow, in their order
                                       -> not executed: (backoff) -> the map is read again

Without a line, a command that a node has handed back would be overtaken by later ones.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from ...exceptions import BrokerError
from .publisher import Command, Publisher
from .server import Backoff

__all__ = ["Line"]


class Line:
    """The waiting commands of a channel.

    Args:
        locate: Returns the publisher of the channel's node, or raises a BrokerError.
        before: The last command of the channel, if it is under way to another node.

    Attributes:
        task: The task of `serve`; None before it has begun.
    """

    def __init__(self, locate: Callable[[], Awaitable[Publisher]], before: Command | None) -> None:
        self.task: asyncio.Task[None] | None = None
        self._locate = locate
        self._before = before
        self._commands: deque[Command] = deque()
        self._returned: asyncio.Future[None] | None = None

    def append(self, command: Command) -> None:
        """Queues a command."""
        self._commands.append(command)

    def take_back(self, commands: Iterable[Command]) -> None:
        """Queues commands that a node has not executed, before all others."""
        self._commands.extendleft(reversed([*commands]))
        if self._returned is not None and not self._returned.done():
            self._returned.set_result(None)

    def fail(self, new_error: Callable[[], BrokerError]) -> None:
        """Ends the waiting, of each command with an error of its own, as its traceback is."""
        for command in self._commands:
            command.fail(new_error())

    async def serve(self) -> None:
        """Passes the commands to the publisher of their node, once there is one that executes the first."""
        if self._before is not None:
            await self._is_executed(self._before)
        backoff = Backoff()
        while True:
            while self._commands and self._commands[0].answer.done():  # its caller has given up
                self._commands.popleft()
            if not self._commands:
                return
            try:
                publisher = await self._locate()
            except BrokerError:
                await asyncio.sleep(backoff.next())
                continue
            first = self._commands.popleft()
            _put(publisher, first)
            if await self._is_executed(first):
                break
            await asyncio.sleep(backoff.next())
        for command in self._commands:
            _put(publisher, command)

    async def _is_executed(self, command: Command) -> bool:
        """Waits for the answer to a command; returns False if the command is taken back instead."""
        self._returned = asyncio.get_running_loop().create_future()
        await asyncio.wait([command.answer, self._returned], return_when=asyncio.FIRST_COMPLETED)
        return not self._returned.done()


def _put(publisher: Publisher, command: Command) -> None:
    try:
        publisher.put(command)
    except BrokerError as error:
        command.fail(error)
