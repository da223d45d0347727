"""Sharded pub/sub with a Redis cluster (SPUBLISH, SSUBSCRIBE; Redis 7): each channel at the node that has its slot.

Nodes are added, fail over, and move slots among each other. Whenever a node breaks or reports a moved slot, the slot
map is read again. Moved channels are then subscribed to at their new node, and their handlers learn of the gap.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..exceptions import BrokerError
from ..logging import logger
from .redis_publisher import Moved, Publisher
from .redis_server import Backoff, Server, connected, errors, execute_last, not_sent
from .redis_subscriber import Subscriber

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
    ) -> None:
        self.server = server
        self.publisher = Publisher(server)
        self.subscriber = Subscriber(server, received, interrupted, broken, self.publisher.retry)


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
        self._slots: list[tuple[int, int, _Address]] = []  # first slot, last slot, their node
        self._nodes: dict[_Address, _Node] = {}
        self._where: dict[bytes, _Node | None] = {}  # each subscribed channel; None if no node is known
        self._reading: asyncio.Task[None] | None = None  # of the slot map
        self._repairing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def execute(self, channel: bytes, *command: Any) -> Any:
        """Executes a command at the node of a channel; waits up to `timeout` seconds in all while the slot moves.

        Raises:
            BrokerError: The node does not answer, the slot stays without one, or the outcome is unknown.
        """
        backoff = Backoff()
        deadline = asyncio.get_running_loop().time() + self._seed.timeout
        try:
            async with asyncio.timeout_at(deadline):
                node = await self._node_of(channel)
            while True:
                with suppress(Moved):
                    return await node.publisher.execute(*command, deadline=deadline)
                async with asyncio.timeout_at(deadline):
                    await self._read_map()
                    before, node = node, await self._node_of(channel)
                    if node is before:  # the slot is moving
                        await asyncio.sleep(backoff.next())
        except BrokerError:
            self._repair()
            raise
        except TimeoutError:
            self._repair()
            reason = f"no node has taken it in {self._seed.timeout} s"
            raise not_sent(self._seed.label, reason) from None

    async def execute_last(self, commands: dict[bytes, tuple[Any, ...]]) -> None:
        """Executes a command for each channel, at the end of the loop; see `redis_server.execute_last`."""
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
        node = self._where.pop(channel, None)
        if node is not None:
            node.subscriber.unsubscribe(channel)

    async def close(self) -> None:
        self._is_closed = True
        self._where.clear()
        for task in (self._repairing, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        ends = [end for node in self._nodes.values() for end in (node.subscriber.close(), node.publisher.close())]
        await asyncio.gather(*ends)
        self._nodes.clear()

    # The slot map

    async def _node_of(self, channel: bytes) -> _Node:
        """Returns the node of a channel; raises BrokerError if no node knows one."""
        address = self._address_of(channel)
        if address is None:
            await self._read_map()
            address = self._address_of(channel)
        if address is None:
            raise not_sent(self._seed.label, f"no node of the cluster has the slot of {channel!r}")
        node = self._nodes.get(address)
        if node is None:
            node = _Node(self._seed.at(*address), self._received, self._interrupted, self._repair)
            self._nodes[address] = node
        return node

    def _address_of(self, channel: bytes) -> _Address | None:
        from redis.crc import key_slot

        slot = key_slot(channel)
        return next((address for first, last, address in self._slots if first <= slot <= last), None)

    async def _read_map(self) -> None:
        """Asks the nodes for the slot map, one after the other; concurrent callers share the answer."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._ask_for_map())
        await asyncio.shield(self._reading)

    async def _ask_for_map(self) -> None:
        reason: Exception | None = None
        servers = (self._seed, *(node.server for node in list(self._nodes.values())))
        for server in servers:
            try:
                async with asyncio.timeout(self._seed.timeout / len(servers)), connected(server) as connection:
                    command = connection.pack_command("CLUSTER SLOTS")
                    await connection.send_packed_command(command, check_health=False)
                    self._take_map(await connection.read_response(disable_decoding=True), server)
                    return
            except errors() as error:
                reason = error
        raise not_sent(self._seed.label, f"no node of the cluster answers: {reason}") from reason

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
            return

    async def _move(self, channel: bytes, node: _Node) -> None:
        if channel not in self._where or self._where[channel] is node:
            return
        before, self._where[channel] = self._where[channel], node
        if before is not None:
            before.subscriber.unsubscribe(channel)
        await node.subscriber.subscribe(channel, missed=True)
