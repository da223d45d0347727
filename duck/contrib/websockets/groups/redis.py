"""The broker that is a Redis server: PUBLISH and SUBSCRIBE, by redis-py's connections.

Each loop of a process has two connections at most, made when they are needed: one that publishes, in pipelines, and one
that is subscribed to the groups with members there.

    subscriber: connecting -> subscribed -> broken -> (backoff) -> connecting ...

Pub/sub delivers at most once: what is published while the subscriber is broken is lost. So each group is told of the
gap once its subscription is confirmed again.
"""

import asyncio
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from ..exceptions import BrokerError
from ..logging import logger
from .broker import Handler, Message

__all__ = ["RedisBroker"]

_SCHEMES = ("redis", "rediss", "unix")
_LEAST_DELAY, _MOST_DELAY = 0.05, 1.5  # seconds between two attempts to connect
_IDLE = 5.0  # seconds without a word from the server after which it is asked for one
_FAIR_SHARE = 0.005  # seconds after which a flood of messages lets the loop go
_SURE = 1.0  # seconds for which a connection that is idle is taken to be there
_QUEUE = 16777216  # bytes that wait at most to be published, by one loop
_COST = 128  # bytes that a message counts for beside its own
_BATCH = 1048576  # bytes that leave at most in one pipeline


class RedisBroker:
    """A Redis server, for the loops and threads of a process.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix://path`; with the options of redis-py.
        prefix: Of the names of channels.
        timeout: Seconds that a call may wait for the server.

    Raises:
        ImportError: redis-py is not installed.
        ValueError: The URL cannot be right.
    """

    def __init__(self, url: str, *, prefix: str = "duck:", timeout: float = 5.0) -> None:
        try:
            from redis.asyncio import connection
        except ImportError as error:
            raise ImportError("groups on Redis need redis-py: pip install 'duck-websockets[redis]'") from error
        self.label = _check_url(url)
        self.timeout = timeout
        self.prefix = prefix.encode()
        try:
            self._options: dict[str, Any] = dict(connection.parse_url(url))
            self._options |= {
                "protocol": 2,
                "decode_responses": False,
                "socket_timeout": None,
                "socket_connect_timeout": timeout,
            }
            self._class = self._options.pop("connection_class", connection.Connection)
            self.new_connection()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.label} is no URL of a Redis server: {error}") from None
        self._url = url
        self._lock = threading.Lock()
        self._client: Any = None

    def new_connection(self) -> Any:
        """A connection of redis-py, which is not connected yet."""
        return self._class(**self._options)

    def channel(self, group: str) -> bytes:
        """The channel of a group."""
        return self.prefix + group.encode()

    def connect(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> "_RedisConnection":
        """See `Broker`."""
        return _RedisConnection(self, handler)

    def publish_sync(self, group: str, message: Message) -> None:
        """See `Broker`."""
        from redis.exceptions import RedisError

        try:
            self._sync_client().publish(self.channel(group), message.to_bytes())
        except (RedisError, OSError) as error:
            raise BrokerError(f"Redis at {self.label} has not confirmed a message: {error}") from error

    def _sync_client(self) -> Any:
        with self._lock:
            if self._client is None:
                from redis import Redis
                from redis.backoff import NoBackoff
                from redis.retry import Retry

                self._client = Redis.from_url(
                    self._url,
                    socket_timeout=self.timeout,
                    socket_connect_timeout=self.timeout,
                    retry=Retry(NoBackoff(), 0),
                    health_check_interval=1,
                )
            return self._client

    def close_sync(self) -> None:
        """See `Broker`."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _check_url(url: str) -> str:
    """The URL without its password, for log lines."""
    hint = "write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL of a Redis server: {error}; {hint}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{parts.scheme or url!r} is no scheme of a Redis server: {hint}")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError(f"a unix:// URL of a Redis server has the path of a socket: {hint}")
        return f"unix://{parts.path}"
    if not parts.hostname:
        raise ValueError(f"the URL of a Redis server has no host: {hint}")
    number = parts.path.strip("/")
    if number and not number.isdecimal():
        raise ValueError(f"the path of a Redis server's URL is the number of a database, not {number!r}: {hint}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or 6379}/{number}".rstrip("/")


def _errors() -> tuple[type[Exception], ...]:
    """What a connection of redis-py may raise for a server that is away, broken or refuses."""
    from redis.exceptions import RedisError

    return RedisError, OSError, EOFError, TimeoutError


class _Backoff:
    """Seconds to wait between attempts: each time twice as long, up to a bound, and never the same for all."""

    def __init__(self) -> None:
        self._delay = _LEAST_DELAY

    def next(self) -> float:
        delay, self._delay = self._delay, min(2 * self._delay, _MOST_DELAY)
        return delay * random.uniform(0.5, 1.0)


class _RedisConnection:
    """The server as one loop uses it."""

    def __init__(self, broker: RedisBroker, handler: Handler) -> None:
        self._broker = broker
        self._handler = handler
        self._publisher = _Publisher(broker)
        self._subscriber = _Subscriber(broker, self._received, self._interrupted)

    async def publish(self, group: str, message: Message) -> None:
        await self._publisher.publish(self._broker.channel(group), message.to_bytes())

    async def subscribe(self, group: str) -> None:
        await self._subscriber.subscribe(self._broker.channel(group))

    def unsubscribe(self, group: str) -> None:
        self._subscriber.unsubscribe(self._broker.channel(group))

    async def close(self) -> None:
        await self._subscriber.close()
        await self._publisher.close()

    def _received(self, channel: bytes, data: bytes) -> None:
        try:
            message = Message.from_bytes(data)
        except ValueError as error:
            logger.error("%r at Redis: %s: does something else publish there?", channel, error)
            return
        try:
            self._handler.received(self._group(channel), message)
        except Exception:
            logger.exception("%r: a message of the group could not be handed on", channel)

    def _interrupted(self, channel: bytes) -> None:
        self._handler.interrupted(self._group(channel))

    def _group(self, channel: bytes) -> str:
        return channel[len(self._broker.prefix) :].decode()


@asynccontextmanager
async def _connected(broker: RedisBroker) -> AsyncIterator[Any]:
    """A connection of redis-py that is connected, and is closed in the end."""
    connection = broker.new_connection()
    try:
        async with asyncio.timeout(broker.timeout):
            await connection.connect()
        yield connection
    finally:
        with suppress(*_errors()):
            await connection.disconnect(nowait=True)


class _Subscriber:
    """The connection that is subscribed to channels.

    Args:
        broker: Makes connections.
        received: Takes (channel, data) of each message.
        interrupted: Takes a channel whose messages may have been missed, once they come again.
    """

    def __init__(
        self, broker: RedisBroker, received: Callable[[bytes, bytes], None], interrupted: Callable[[bytes], None]
    ) -> None:
        self._broker = broker
        self._received = received
        self._interrupted = interrupted
        self._wanted: dict[bytes, bool] = {}  # by channel: whether messages come
        self._missed: set[bytes] = set()  # channels whose messages did not come for a while
        # For each SUBSCRIBE on its way, in order, who waits for it; None for nobody.
        self._waiting: dict[bytes, deque[asyncio.Future[None] | None]] = {}
        self._connection: Any = None  # while it is connected
        self._commands: list[tuple[Any, ...]] = []  # to be written
        self._writing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._away = False  # whether the last attempt to connect has failed, or the connection has broken
        self._heard = 0.0  # when the server has sent something

    async def subscribe(self, channel: bytes) -> None:
        """Returns once messages come, or at once while the server is away."""
        self._start()
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
            waiting.append(future)
            if self._connection is not None:
                self._send("SUBSCRIBE", channel)
        try:
            async with asyncio.timeout(self._broker.timeout):
                await asyncio.shield(future)
        except TimeoutError:
            if channel in self._wanted and not self._wanted[channel]:
                self._missed.add(channel)

    def unsubscribe(self, channel: bytes) -> None:
        if self._wanted.pop(channel, None) is None:
            return
        self._missed.discard(channel)
        if self._connection is not None:
            self._send("UNSUBSCRIBE", channel)
        else:
            self._settle(self._waiting.pop(channel, ()))

    async def close(self) -> None:
        self._wanted.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        backoff = _Backoff()
        try:
            while True:
                try:
                    async with _connected(self._broker) as connection:
                        self._begin(connection)
                        backoff = _Backoff()
                        await self._read(connection)
                except _errors() as error:
                    self._broken(error)
                await asyncio.sleep(backoff.next())
        finally:
            self._end()

    def _begin(self, connection: Any) -> None:
        """Subscribes to all channels, in one command."""
        if self._away:
            logger.info("Redis at %s is there again", self._broker.label)
        self._away = False
        self._connection = connection
        self._commands.clear()
        for channel in self._wanted:
            waiting = self._waiting.setdefault(channel, deque())
            if not waiting:
                waiting.append(None)
        if self._wanted:
            self._send("SUBSCRIBE", *self._wanted)

    def _broken(self, error: Exception) -> None:
        if not self._away:
            logger.warning(
                "Redis at %s is away, and groups get no messages until it is there again: %s",
                self._broker.label,
                str(error) or type(error).__name__,
            )
        self._away = True
        self._end()

    def _end(self) -> None:
        """Messages do not come any more."""
        self._connection = None
        self._missed.update(self._wanted)
        self._wanted = dict.fromkeys(self._wanted, False)
        waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            self._settle(futures)

    @staticmethod
    def _settle(futures: Any) -> None:
        for future in futures:
            if future is not None and not future.done():
                future.set_result(None)

    # Writing

    def _send(self, *command: Any) -> None:
        """Has a command written, together with others of this pass of the loop."""
        self._commands.append(command)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write(self._connection))

    async def _write(self, connection: Any) -> None:
        try:
            while self._commands and connection is self._connection:
                commands, self._commands = self._commands, []
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        except _errors():
            pass  # whoever reads will find it broken
        finally:
            self._writing = None
            if self._commands and self._connection is not None:
                self._writing = asyncio.get_running_loop().create_task(self._write(self._connection))

    # Reading

    async def _read(self, connection: Any) -> None:
        """Takes what the server sends.

        Raises:
            TimeoutError: It has sent nothing for too long, although it was asked to.
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
            response = await connection.read_response(disable_decoding=True)
            self._heard = loop.time()
            kind = response[0]
            if kind == b"message":
                self._received(response[1], response[2])
            elif kind == b"subscribe":
                self._confirmed(response[1])
            if perf_counter() - begin > _FAIR_SHARE:
                await asyncio.sleep(0)
                begin = perf_counter()

    async def _watch(self, limit: asyncio.Timeout) -> None:
        """Asks a server for a word that has been silent, and gives it up when it does not answer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_IDLE)
            if loop.time() - self._heard >= _IDLE:
                asked = loop.time()
                self._send("PING")
                await asyncio.sleep(self._broker.timeout)
                if self._heard < asked:
                    limit.reschedule(loop.time())
                    return

    def _confirmed(self, channel: bytes) -> None:
        waiting = self._waiting.get(channel)
        if waiting:
            self._settle((waiting.popleft(),))
            if not waiting:
                del self._waiting[channel]
        if channel in self._wanted and channel not in self._waiting:
            self._wanted[channel] = True
            if channel in self._missed:
                self._missed.discard(channel)
                self._interrupted(channel)


class _Publisher:
    """The connection that publishes: what is published while a pipeline is under way leaves with the next.

    A message that was in a pipeline when the connection broke may or may not have been published, and is not published
    again. One that has not left waits for the server, for `timeout` seconds.
    """

    def __init__(self, broker: RedisBroker) -> None:
        self._broker = broker
        self._queue: deque[tuple[bytes, bytes, asyncio.Future[None]]] = deque()
        self._size = 0  # bytes of the queue
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None  # why the server is away

    async def publish(self, channel: bytes, data: bytes) -> None:
        """Returns when the server has taken a message.

        Raises:
            BrokerError: It has not, or that is not known.
        """
        size = len(data) + _COST
        label = self._broker.label
        if self._queue and self._size + size > _QUEUE:
            raise BrokerError(f"{self._size} bytes wait for Redis at {label}: publish less, or try again later")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._queue.append((channel, data, future))
        self._size += size
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            async with asyncio.timeout(self._broker.timeout):
                await future
        except TimeoutError:
            reason = self._error or "no answer"
            raise BrokerError(
                f"Redis at {label} has not confirmed a message in {self._broker.timeout} s: {reason}"
            ) from self._error

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        backoff = _Backoff()
        try:
            while True:
                await self._wake.wait()
                try:
                    async with _connected(self._broker) as connection:
                        self._error = None
                        backoff = _Backoff()
                        while True:
                            await self._publish_all(connection)
                            await self._until_wanted(connection)
                except _errors() as error:
                    self._error = error
                    self._drop_given_up()
                    await asyncio.sleep(backoff.next())
        finally:
            self._fail([entry[2] for entry in self._queue], "the event loop ends")
            self._queue.clear()
            self._size = 0

    async def _until_wanted(self, connection: Any) -> None:
        """Waits for a message; makes sure that the connection, which has been idle, is still there."""
        self._wake.clear()
        try:
            async with asyncio.timeout(_SURE):
                await self._wake.wait()
            is_sure = not connection._reader.at_eof()
        except TimeoutError:
            await self._wake.wait()
            is_sure = False
        if not is_sure:
            async with asyncio.timeout(self._broker.timeout):
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
                await connection.read_response(disable_decoding=True)

    async def _publish_all(self, connection: Any) -> None:
        while self._queue:
            commands: list[tuple[str, bytes, bytes]] = []
            futures = []
            size = 0
            while self._queue and size < _BATCH:
                channel, data, future = self._queue.popleft()
                self._size -= len(data) + _COST
                if not future.done():  # whose publisher has given up
                    commands.append(("PUBLISH", channel, data))
                    futures.append(future)
                    size += len(data)
            if not commands:
                continue
            try:
                async with asyncio.timeout(self._broker.timeout):
                    await self._pipeline(connection, commands, futures)
            except BaseException as error:
                self._fail(futures, str(error) or type(error).__name__)
                raise

    async def _pipeline(self, connection: Any, commands: list[Any], futures: "list[asyncio.Future[None]]") -> None:
        from redis.exceptions import ResponseError

        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        for future in futures:
            try:
                await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except ResponseError as error:
                self._fail([future], str(error))
            else:
                if not future.done():
                    future.set_result(None)

    def _fail(self, futures: "list[asyncio.Future[None]]", reason: str) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(
                    BrokerError(f"a message may or may not have reached Redis at {self._broker.label}: {reason}")
                )
                future.exception()  # retrieved: its publisher may have given up

    def _drop_given_up(self) -> None:
        self._queue = deque(entry for entry in self._queue if not entry[2].done())
        self._size = sum(len(data) + _COST for _, data, _ in self._queue)
        if not self._queue:
            self._wake.clear()
