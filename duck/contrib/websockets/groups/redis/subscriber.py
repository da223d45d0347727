"""The connection to a Redis server that is subscribed to channels.

    connecting -> subscribed -> broken -> (backoff) -> connecting ...

Pub/sub delivers at most once: messages published while the subscriber is broken are lost. So the handler of each
channel is notified of the gap once its subscription is confirmed again.

The server answers commands in their order, and an error does not name its channel. So each channel has a command of its
own, and an error belongs to the first unanswered command.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from ...logging import logger, text_of
from .server import ERRORS, Backoff, Server, check_open, connected, is_forbidden, refused_channel

__all__ = ["Subscriber"]

_SPARE_TIME = 0.05  # seconds for reading an answer that has come while the loop was busy
_FAIR_SHARE = 0.005  # seconds after which a flood of messages yields to the loop


class Subscriber:
    """The connection that is subscribed to channels.

    Args:
        server: The server to connect to.
        received: Called with (channel, data) of each message.
        interrupted: Called with a channel whose messages may have been missed, once delivery has resumed.
        broken: Called when the connection has broken or could not be established. Only for a node of a cluster, whose
            channels are those of one node (sharded pub/sub).
        returned: Called when the server is available again and all subscriptions are confirmed, so that a gap is
            reported before the messages that follow it.

    Attributes:
        IDLE_TIMEOUT: Seconds without data from the server after which it is sent a PING.
    """

    IDLE_TIMEOUT = 5.0

    def __init__(
        self,
        server: Server,
        received: Callable[[bytes, bytes], None],
        interrupted: Callable[[bytes], None],
        broken: Callable[[], None] | None = None,
        returned: Callable[[], None] | None = None,
    ) -> None:
        self._server = server
        self._on_broken = broken
        self._on_return = returned
        self._prefix = "" if broken is None else "S"  # of commands
        self._received = received
        self._interrupted = interrupted
        self._wanted: dict[bytes, bool] = {}  # by channel: whether the subscription is confirmed
        self._missed: set[bytes] = set()  # channels with a gap
        # The waiter of each SUBSCRIBE under way, in order; None if there is no waiter.
        self._waiting: dict[bytes, deque[asyncio.Future[Exception | None] | None]] = {}
        self._connection: Any = None  # while it is connected
        self._commands: list[tuple[Any, ...]] = []  # to be written
        self._unanswered: deque[tuple[Any, ...]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._away = False  # whether the last attempt to connect has failed, or the connection has broken
        # The kinds of errors since a connection has last confirmed all its subscriptions.
        self._failures: set[type[Exception]] = set()
        self._is_closed = False
        self._backoff = Backoff()
        self._heard = 0.0  # the time of the server's last data

    async def subscribe(self, channel: bytes, missed: bool = False) -> None:
        """Subscribes to a channel; returns once its messages are delivered, or at once if the server is unavailable.

        Args:
            channel: The name of the channel.
            missed: Whether messages of the channel may have been missed already.

        Raises:
            BrokerError: The server forbids the channel to its user. The subscription stays wanted, and is requested
                again after a reconnection.
        """
        if self._is_closed:
            return
        self._start()
        if missed:
            self._missed.add(channel)
        if self._wanted.get(channel):
            return
        is_new = channel not in self._wanted
        self._wanted[channel] = False
        if self._away:
            self._missed.add(channel)
            return
        waiting = self._waiting.setdefault(channel, deque())
        future = waiting[-1] if waiting and not is_new else None
        if future is None:
            future = asyncio.get_running_loop().create_future()
            if waiting and not is_new:
                # `_begin` subscribes to it. Its confirmation must report the gap before any message.
                waiting[-1] = future
            else:
                waiting.append(future)
                if self._connection is not None:
                    self._send(self._prefix + "SUBSCRIBE", channel)
        refusal = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._server.timeout):
                    refusal = await asyncio.shield(future)
        finally:
            if channel in self._wanted and not future.done():
                self._missed.add(channel)  # the caller does not wait for the confirmation any more
        if refusal is not None:
            raise refused_channel(self._server.label, channel, refusal)

    def unsubscribe(self, channel: bytes) -> None:
        """Ends `subscribe`, without waiting."""
        if self._wanted.pop(channel, None) is None:
            return
        self._missed.discard(channel)
        if self._connection is not None:
            self._send(self._prefix + "UNSUBSCRIBE", channel)
        else:
            self._settle(self._waiting.pop(channel, ()))

    async def close(self) -> None:
        """Closes the connection; a task that waits in `subscribe` continues."""
        self._is_closed = True
        self._wanted.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._end()  # here too, because a task that has not begun ends without its `finally`
        if self._writing is not None:
            await asyncio.wait([self._writing])  # the end of the connection ends it

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                try:
                    async with connected(self._server) as connection:
                        self._begin(connection)
                        try:
                            await self._read(connection)
                        finally:
                            self._connection = None  # redis-py would connect again for a command
                except ERRORS as error:
                    self._broken(error)
                await asyncio.sleep(self._backoff.next())
        finally:
            self._end()

    def _begin(self, connection: Any) -> None:
        """Subscribes to all channels."""
        self._away = False
        self._connection = connection
        self._commands.clear()
        self._unanswered.clear()
        for channel in self._wanted:
            waiting = self._waiting.setdefault(channel, deque())
            if not waiting:
                waiting.append(None)
            self._send(self._prefix + "SUBSCRIBE", channel)
        self._note_progress()

    def _note_progress(self) -> None:
        """Notes that the server is available, once it has answered all subscriptions.

        One that refuses each of them, such as without a password, is not.
        """
        if self._waiting:
            return
        self._backoff = Backoff()
        if self._failures:
            self._failures.clear()
            logger.info("Redis at %s is available again", self._server.label)
            if self._on_return is not None:
                self._on_return()

    def _broken(self, error: Exception) -> None:
        if type(error) not in self._failures:  # not each text, which may differ at each attempt
            self._failures.add(type(error))
            logger.warning(
                "Redis at %s is unavailable, and groups get no messages until it returns: %s",
                self._server.label,
                text_of(error),
            )
        self._away = True
        self._end()
        if self._on_broken is not None:
            self._on_broken()

    def _end(self) -> None:
        """Notes that no messages are delivered any more."""
        self._connection = None
        self._missed.update(self._wanted)
        self._wanted = dict.fromkeys(self._wanted, False)
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            self._settle(futures)

    @staticmethod
    def _settle(futures: Any, refusal: Exception | None = None) -> None:
        for future in futures:
            if future is not None and not future.done():
                future.set_result(refusal)

    # Writing

    def _send(self, *command: Any) -> None:
        """Queues a command, which is written together with others of this pass of the loop."""
        self._commands.append(command)
        self._unanswered.append(command)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while self._commands and self._connection is not None:
            connection = self._connection
            commands, self._commands = self._commands, []
            try:
                check_open(connection)
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            except ERRORS:
                if connection is self._connection:
                    return  # the reader will notice the break, and then all channels are subscribed to again

    # Reading

    async def _read(self, connection: Any) -> None:
        """Handles the server's data.

        Raises:
            TimeoutError: The server has been silent for too long, even after a PING.
        """
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        async with asyncio.timeout(None) as limit:
            watch = loop.create_task(self._watch(limit))
            try:
                await self._read_on(connection, loop)
            finally:
                watch.cancel()

    async def _read_on(self, connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        begin = perf_counter()
        while True:
            try:
                response = await connection.read_response(disable_decoding=True)
            except ResponseError as error:
                self._heard = loop.time()
                self._take_error(error)
                continue
            self._heard = loop.time()
            kind = response[0]
            if kind in (b"message", b"smessage"):
                self._received(response[1], response[2])
            elif kind in (b"subscribe", b"ssubscribe"):
                if self._unanswered:
                    self._unanswered.popleft()
                self._confirmed(response[1])
            elif kind == b"sunsubscribe" and self._wanted.get(response[1]):
                raise ConnectionError(f"the slot of {response[1]!r} has moved to another node")
            elif self._unanswered and (kind != b"sunsubscribe" or self._unanswered[0] == ("SUNSUBSCRIBE", response[1])):
                self._unanswered.popleft()
            if perf_counter() - begin > _FAIR_SHARE:
                await asyncio.sleep(0)
                begin = perf_counter()

    def _take_error(self, error: Exception) -> None:
        """Handles the error by which the server answers a command; raises it if the server refuses all subscriptions.

        A user may lack the right to a single channel, and the right to PING or to UNSUBSCRIBE.
        """
        command, *channels = self._unanswered.popleft() if self._unanswered else ("",)
        if command != self._prefix + "SUBSCRIBE":
            if self._waiting and not command:
                raise error
            return
        if not is_forbidden(error):
            raise error
        self._refused(channels[0], error)

    async def _watch(self, limit: asyncio.Timeout) -> None:
        """Sends a PING to a silent server, and gives the server up if it does not answer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.IDLE_TIMEOUT)
            if loop.time() - self._heard >= self.IDLE_TIMEOUT:
                asked = loop.time()
                self._send("PING")
                await asyncio.sleep(self._server.timeout)
                if self._heard < asked:  # a busy loop may not have read the answer yet
                    await asyncio.sleep(_SPARE_TIME)
                if self._heard < asked:
                    limit.reschedule(loop.time())
                    return

    def _confirmed(self, channel: bytes) -> None:
        """Handles the confirmation of a subscription."""
        self._take_waiter(channel)
        if channel in self._wanted and channel not in self._waiting:
            self._wanted[channel] = True
            if channel in self._missed:
                self._missed.discard(channel)
                self._interrupted(channel)
        self._note_progress()

    def _refused(self, channel: bytes, error: Exception) -> None:
        """Handles the refusal of a subscription."""
        if not self._take_waiter(channel, error) and channel in self._wanted:
            logger.error("%s; its members get no messages", refused_channel(self._server.label, channel, error))
        self._note_progress()

    def _take_waiter(self, channel: bytes, refusal: Exception | None = None) -> bool:
        """Removes the first waiter of a channel, and passes the answer to it; returns False if nobody waits."""
        waiting = self._waiting.get(channel)
        waiter = waiting.popleft() if waiting else None
        if not waiting:
            self._waiting.pop(channel, None)
        self._settle((waiter,), refusal)
        return waiter is not None
