"""Sharded pub/sub with a Redis cluster (SPUBLISH, SSUBSCRIBE; Redis 7): each channel at the node that has its slot.

Nodes are added, fail over, and move slots among each other. Whenever a node breaks or reports a moved slot, the slot
map is read again. Moved channels are then subscribed to at their new node, and their handlers learn of the gap.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from redis.crc import key_slot

from ...exceptions import BrokerError
from ...logging import logger, text_of
from ...protocol.stepping import retrieve
from .line import Line
from .publisher import Command, Publisher, answer_to, check_size
from .server import ERRORS, Backoff, Server, ask, connected, execute_last, not_sent
from .subscriber import Subscriber

__all__ = ["Cluster"]

_Address = tuple[str, int]


class _Node:
    """One master node, for one loop."""

    def __init__(
        self,
        server: Server,
        received: Callable[[bytes, bytes], None],
        interrupted: Callable[[bytes], None],
        broken: Callable[[], None],
        moved: Callable[[list[Command]], None],
    ) -> None:
        self.server = server
        self.publisher = Publisher(server, moved)
        self.subscriber = Subscriber(server, received, interrupted, broken, self.publisher.retry)

    async def close(self) -> None:
        await asyncio.gather(self.subscriber.close(), self.publisher.close())


class Cluster:
    """The channels of a cluster.

    Args:
        seed: The first node to ask.
        received: Called with (channel, data) of each message.
        interrupted: Called with a channel whose messages may have been missed, once delivery has resumed.
    """

    def __init__(
        self, seed: Server, received: Callable[[bytes, bytes], None], interrupted: Callable[[bytes], None]
    ) -> None:
        self._seed = seed
        self._received = received
        self._interrupted = interrupted
        self._last: dict[bytes, Command] = {}  # of each channel with commands under way
        self._lines: dict[bytes, Line] = {}
        self._size = 0  # bytes of the commands that have waited in a line, until they are answered
        self._error: BrokerError | None = None  # of the last attempt to read the slot map for a line
        self._slots: list[tuple[int, int, _Address]] = []  # first slot, last slot, their node
        self._nodes: dict[_Address, _Node] = {}
        self._where: dict[bytes, _Node | None] = {}  # each subscribed channel; None if no node is known
        self._reading: asyncio.Task[None] | None = None  # of the slot map
        self._repairing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def execute(self, channel: bytes, *words: Any) -> Any:
        """Executes a command at the node of a channel; waits up to `timeout` seconds in all while the slot moves.

        The commands of a channel are executed in the order of the calls.

        Raises:
            BrokerError: The node does not answer, the slot stays without one, or the outcome is unknown.
        """
        if self._is_closed:
            raise self._closed_error()
        node = None if channel in self._lines else self._known_node(channel)
        if node is not None and node.publisher.is_at_the_end():
            return await node.publisher.execute_alone(words)
        command = Command(channel, words)
        before = self._last.get(channel)
        self._last[channel] = command
        try:
            if node is not None and (before is None or before.publisher is node.publisher):
                node.publisher.put(command)
            else:
                return await self._execute_in_line(command, before)
            return await answer_to(command, self._seed, lambda: self._error)
        except BrokerError:
            self._repair()
            raise
        finally:
            if self._last.get(channel) is command:
                del self._last[channel]

    async def execute_last(self, commands: dict[bytes, tuple[Any, ...]]) -> None:
        """Executes a command for each channel, at the end of the loop; see `server.execute_last`."""
        by_node: dict[_Address, list[tuple[Any, ...]]] = {}
        for channel, command in commands.items():
            address = self._address_of(channel)
            if address is not None:
                by_node.setdefault(address, []).append(command)
        await asyncio.gather(*(execute_last(self._seed.at(*address), part) for address, part in by_node.items()))

    async def subscribe(self, channel: bytes) -> None:
        """Subscribes to a channel; see `Subscriber.subscribe`."""
        node = self._where.setdefault(channel, None)
        if node is None:
            try:
                node = await self._node_of(channel)
            except BrokerError as error:
                if not self._is_closed:
                    logger.warning("groups get no messages until the cluster is there: %s", error)
                    self._repair()
                return
            except asyncio.CancelledError:
                self._repair()  # the channel stays wanted
                raise
            if channel not in self._where:
                return  # it is not wanted any more
            node = self._where[channel] = self._where[channel] or node
        await node.subscriber.subscribe(channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Ends `subscribe`, without waiting."""
        node = self._where.pop(channel, None)
        if node is not None:
            node.subscriber.unsubscribe(channel)

    async def close(self) -> None:
        """Closes the connections to all nodes. Commands that wait get a BrokerError."""
        self._is_closed = True
        self._where.clear()
        for task in (self._repairing, self._reading, *[line.task for line in self._lines.values()]):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        self._nodes.clear()

    def _closed_error(self) -> BrokerError:
        return not_sent(self._seed.label, "the groups have been closed")

    # Commands without a node

    async def _execute_in_line(self, command: Command, before: Command | None) -> Any:
        check_size(self._seed.label, self._size, command)
        self._size += command.size
        try:
            line = self._line(command.channel, before)
            line.append(command)
            self._serve(command.channel, line)
            return await answer_to(command, self._seed, lambda: self._error)
        finally:
            self._size -= command.size

    def _line(self, channel: bytes, before: Command | None = None) -> Line:
        """Returns the line of a channel; see `Line` for a new one's arguments."""
        line = self._lines.get(channel)
        if line is None:
            line = self._lines[channel] = Line(lambda: self._locate(channel), before)
        return line

    def _serve(self, channel: bytes, line: Line) -> None:
        """Starts the task of a line, unless it has one; call it after commands have been added."""

        async def serve() -> None:
            await line.serve()
            del self._lines[channel]

        def end(task: asyncio.Task[None]) -> None:
            if self._lines.get(channel) is line:  # the task has been cancelled, perhaps before it has begun
                del self._lines[channel]
                line.fail(lambda: not_sent(self._seed.label, "the connection has been closed"))

        if line.task is None:
            line.task = asyncio.get_running_loop().create_task(serve())
            line.task.add_done_callback(end)

    def _take_back(self, commands: list[Command]) -> None:
        """Takes commands back that a node has not executed."""
        if self._is_closed:
            for command in commands:
                command.fail(self._closed_error())
            return
        by_channel: dict[bytes, list[Command]] = {}
        for command in commands:
            by_channel.setdefault(command.channel, []).append(command)
        for channel, part in by_channel.items():
            line = self._line(channel)
            line.take_back(part)
            self._serve(channel, line)

    async def _locate(self, channel: bytes) -> Publisher:
        """Reads the slot map, and returns the publisher of a channel."""
        try:
            await self._read_map()
            node = await self._node_of(channel)
        except BrokerError as error:
            self._error = error
            raise
        self._error = None
        return node.publisher

    # The slot map

    async def _node_of(self, channel: bytes) -> _Node:
        """Returns the node of a channel; raises BrokerError if no node knows one."""
        node = self._known_node(channel)
        if node is None:
            await self._read_map()
            node = self._known_node(channel)
        if node is None:
            raise not_sent(self._seed.label, f"no node of the cluster has the slot of {channel!r}")
        return node

    def _known_node(self, channel: bytes) -> _Node | None:
        """Returns the node of a channel by the slot map as it was read last."""
        address = self._address_of(channel)
        if address is None:
            return None
        node = self._nodes.get(address)
        if node is None:
            handlers = (self._received, self._interrupted, self._repair, self._take_back)
            node = self._nodes[address] = _Node(self._seed.at(*address), *handlers)
        return node

    def _address_of(self, channel: bytes) -> _Address | None:
        slot = key_slot(channel)
        return next((address for first, last, address in self._slots if first <= slot <= last), None)

    async def _read_map(self) -> None:
        """Asks the nodes for the slot map, one after the other; concurrent callers share the answer."""
        reading = self._reading
        if reading is None or reading.done():
            reading = self._reading = asyncio.get_running_loop().create_task(self._ask_for_map())
            reading.add_done_callback(retrieve)  # all callers may have given up
        await asyncio.wait([reading])
        if reading.cancelled():
            raise self._closed_error()
        reading.result()

    async def _ask_for_map(self) -> None:
        reason: Exception | None = None
        servers = (self._seed, *(node.server for node in list(self._nodes.values())))
        for server in servers:
            try:
                async with asyncio.timeout(self._seed.timeout / len(servers)), connected(server) as connection:
                    self._take_map(await ask(connection, "CLUSTER", "SLOTS"), server)
                    return
            except ERRORS as error:
                reason = error
        assert reason is not None
        raise not_sent(self._seed.label, f"no node of the cluster answers: {text_of(reason)}") from reason

    def _take_map(self, answer: list[Any], server: Server) -> None:
        """Parses an answer to CLUSTER SLOTS: first, last, master, replicas. A node without a host is the one asked."""
        host = server.new_connection().host
        self._slots = [
            (first, last, (master[0].decode() if master[0] else host, master[1])) for first, last, master, *_ in answer
        ]

    # Repairs

    def _repair(self) -> None:
        """Reads the slot map again after a node has broken, and moves channels, until each channel has a node."""
        if not self._is_closed and (self._repairing is None or self._repairing.done()):
            self._repairing = asyncio.get_running_loop().create_task(self._move_channels())

    async def _move_channels(self) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.next())
            try:
                await self._read_map()
                for channel in list(self._where):
                    await self._move(channel, await self._node_of(channel))
            except BrokerError:
                continue
            await self._drop_nodes()
            return

    async def _move(self, channel: bytes, node: _Node) -> None:
        if channel not in self._where or self._where[channel] is node:
            return
        before, self._where[channel] = self._where[channel], node
        if before is not None:
            before.subscriber.unsubscribe(channel)
        try:
            await node.subscriber.subscribe(channel, missed=True)
        except BrokerError as error:
            logger.error("%s; its members get no messages", error)

    async def _drop_nodes(self) -> None:
        """Drops nodes that have left the cluster. They would be connected to, and asked for the map, for ever."""
        addresses = {address for *_, address in self._slots}
        for address, node in list(self._nodes.items()):
            if address not in addresses and node not in self._where.values() and node.publisher.is_idle():
                del self._nodes[address]
                await node.close()
