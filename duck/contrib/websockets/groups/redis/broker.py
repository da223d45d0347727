"""The Redis broker: PUBLISH and SUBSCRIBE over redis-py's connections.

Each loop of a process has up to two connections, created on demand: one publishes in pipelines, and one is subscribed
to the groups with members in the loop.

With `redis+sentinel://` they go to the master that the Sentinels name. With `redis+cluster://` there are two per node
of a cluster, and pub/sub is sharded: a message goes only to the node that has the slot of its group.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import quote, unquote_to_bytes

from redis import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import Connection, parse_url

from ...credentials import port_of, split_url, without_password
from ...logging import log_failure, logger
from ..broker import Handler, Message, MessageId, Past
from ..history import History
from ..presence import PresenceOptions
from .cluster import Cluster
from .history import RedisHistory, keep_words, parse_id
from .presence import MARK, RedisPresence
from .publisher import Publisher
from .sentinel import HINT, SENTINEL, SentinelServer, SentinelUrl
from .server import Server, execute_last
from .subscriber import Subscriber
from .sync import SyncPublisher, sync_options

__all__ = ["RedisBroker"]

_CLUSTER = "+cluster"
_BRACES = frozenset(b"{}%")
_SAFE = "".join(map(chr, {*range(128)} - _BRACES))  # ASCII characters that stay as they are
_SENTINEL_SCHEMES = (f"redis{SENTINEL}", f"rediss{SENTINEL}")
_SCHEMES = ("redis", "rediss", "unix", f"redis{_CLUSTER}", f"rediss{_CLUSTER}")
_HINT = (
    "write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket; for a cluster write"
    f" redis+cluster://host:6379; for Sentinel {HINT}"
)


class RedisBroker:
    """A Redis server, for the loops and threads of a process.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://` for TLS, or `unix://path`; `redis+cluster://` or
            `rediss+cluster://` for a node of a cluster; `redis+sentinel://host:port,host:port/master/db` or
            `rediss+sentinel://` for Sentinels. Accepts the options of redis-py.
        prefix: The prefix of channel names.
        timeout: Seconds that a call may wait for the server.
        history: The limits of the histories; None for no history.
        presence: The options of presence.

    Raises:
        ValueError: The URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout: float,
        history: History | None,
        presence: PresenceOptions,
    ) -> None:
        scheme = url.partition(":")[0]
        self._sentinel = SentinelUrl.parse(url) if scheme in _SENTINEL_SCHEMES else None
        label = _check_url(url) if self._sentinel is None else self._sentinel.label
        self._prefix = prefix.encode()
        try:
            self.is_cluster = _CLUSTER in scheme
            self._url = url.replace(_CLUSTER, "", 1) if self._sentinel is None else self._sentinel.server
            options: dict[str, Any] = dict(parse_url(self._url))
            options |= {
                "protocol": 2,
                "decode_responses": False,
                "socket_timeout": None,
                "socket_connect_timeout": timeout,
            }
            new_connection = options.pop("connection_class", Connection)
            if self._sentinel is None:
                self.server = Server(new_connection, options, label, timeout)
            else:
                self.server = SentinelServer(self._sentinel, new_connection, options, timeout)
            self.server.new_connection()
        except (TypeError, ValueError) as error:
            raise ValueError(f"{label} is not a URL of a Redis server: {error}") from None
        self.publish_command = "SPUBLISH" if self.is_cluster else "PUBLISH"
        self.history = history
        self.presence = presence
        self._sync = SyncPublisher(self._new_sync_client, label, timeout, is_cluster=self.is_cluster)

    def channel(self, group: str) -> bytes:
        """Returns the channel of a group. On a cluster it has no braces, which would decide on its slot."""
        channel = self._prefix + group.encode()
        if self.is_cluster and not _BRACES.isdisjoint(channel):
            return quote(channel, safe=_SAFE).encode()
        return channel

    def group(self, channel: bytes) -> str:
        """The inverse of `channel`."""
        if self.is_cluster and b"%" in channel:
            channel = unquote_to_bytes(channel)
        return channel[len(self._prefix) :].decode()

    def connect(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> "_RedisConnection":
        """See `Broker`."""
        return _RedisConnection(self, handler)

    def publish_sync(self, group: str, message: Message) -> None:
        """See `Broker`."""
        channel = self.channel(group)
        self.published(message, channel, self._sync.execute(channel, *self.publish_words(channel, message)))

    def publish_words(self, channel: bytes, message: Message) -> tuple[Any, ...]:
        """Returns the command that publishes a message, and keeps it if there is a history."""
        if self.history is None:
            return self.publish_command, channel, message.to_bytes()
        return keep_words(self.history, self.publish_command, channel, message)

    def published(self, message: Message, channel: bytes, answer: Any) -> None:
        """Sets the id of a message by the answer to that command."""
        if self.history is not None:
            message.id = parse_id(channel, answer)

    def _new_sync_client(self, options: dict[str, Any]) -> Any:
        options = sync_options(self._url, options)
        if not self.is_cluster and self._sentinel is None:
            return Redis.from_pool(ConnectionPool(**options))
        if options.pop("connection_class", None) is not None:  # of a URL with TLS
            options["ssl"] = True
        if self._sentinel is not None:
            return self._sentinel.sync_client(options)
        options.pop("db", None)
        return RedisCluster(**options)

    def close_sync(self) -> None:
        """See `Broker`."""
        self._sync.close()


def _check_url(url: str) -> str:
    """Returns the URL without its password, for log lines."""
    try:
        parts = split_url(url)
        port = port_of(parts)
    except ValueError as error:
        raise ValueError(f"{without_password(url)!r} is not a URL of a Redis server: {error}; {_HINT}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"{parts.scheme or without_password(url)!r} is not a scheme of a Redis server: {_HINT}")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError(f"a unix:// URL of a Redis server has the path of a socket: {_HINT}")
        return f"unix://{parts.path}"
    if not parts.hostname:
        raise ValueError(f"the URL of a Redis server has no host: {_HINT}")
    number = parts.path.strip("/")
    if number and not number.isdecimal():
        raise ValueError(f"the path of a Redis server's URL is the number of a database, such as /0: {_HINT}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or 6379}/{number}".rstrip("/")


class _Channels(Protocol):
    """Publishing and subscribing to channels."""

    async def execute(self, channel: bytes, *command: Any) -> Any: ...
    async def execute_last(self, commands: dict[bytes, tuple[Any, ...]]) -> None: ...
    async def subscribe(self, channel: bytes) -> None: ...
    def unsubscribe(self, channel: bytes) -> None: ...
    async def close(self) -> None: ...


class _OneServer:
    """The channels of one server."""

    def __init__(
        self, server: Server, received: Callable[[bytes, bytes], None], interrupted: Callable[[bytes], None]
    ) -> None:
        self._server = server
        self.publisher = Publisher(server)
        self.subscriber = Subscriber(server, received, interrupted, returned=self.publisher.retry)
        self.execute = self.publisher.execute
        self.subscribe = self.subscriber.subscribe
        self.unsubscribe = self.subscriber.unsubscribe

    async def execute_last(self, commands: dict[bytes, tuple[Any, ...]]) -> None:
        await execute_last(self._server, list(commands.values()))

    async def close(self) -> None:
        await asyncio.gather(self.subscriber.close(), self.publisher.close())


class _RedisConnection:
    """The connection of one loop to the server."""

    def __init__(self, broker: RedisBroker, handler: Handler) -> None:
        self._broker = broker
        self._handler = handler
        new_channels = Cluster if broker.is_cluster else _OneServer
        self._channels: _Channels = new_channels(broker.server, self._received, self._interrupted)
        execute, execute_last = self._channels.execute, self._channels.execute_last
        self._history = RedisHistory(execute)
        self._presence = RedisPresence(
            broker.presence, handler.origin.hex(), broker.publish_command, execute, execute_last, self._changed
        )

    async def publish(self, group: str, message: Message) -> None:
        broker, channel = self._broker, self._broker.channel(group)
        answer = await self._channels.execute(channel, *broker.publish_words(channel, message))
        broker.published(message, channel, answer)

    async def position(self, group: str) -> MessageId | None:
        return await self._history.position(self._broker.channel(group))

    async def after(self, group: str, since: MessageId | None) -> Past:
        return await self._history.after(self._broker.channel(group), since)

    async def subscribe(self, group: str) -> None:
        channel = self._broker.channel(group)
        watched = self._presence.watch(channel)  # first, because the caller may give up before the confirmation
        await self._channels.subscribe(channel)
        if watched is not None:
            await self._presence.fill(channel, watched)

    def unsubscribe(self, group: str) -> None:
        channel = self._broker.channel(group)
        self._channels.unsubscribe(channel)
        self._presence.unwatch(channel)

    def enter(self, group: str, entry: str, data: str) -> Awaitable[None]:
        return self._presence.enter(self._broker.channel(group), entry, data)

    def exit(self, group: str, entry: str) -> None:
        self._presence.exit(self._broker.channel(group), entry)

    async def present(self, group: str) -> dict[str, str]:
        return await self._presence.present(self._broker.channel(group))

    async def close(self) -> None:
        await self._presence.close()
        await self._channels.close()

    def _received(self, channel: bytes, data: bytes) -> None:
        try:
            if data.startswith(MARK):
                self._presence.received(channel, data)
                return
            message = self._message(data)
        except ValueError as error:
            advice = "another application, or Groups with another history, needs another prefix"
            logger.error("%r at Redis: %s: %s", channel, error, advice)
            return
        try:
            self._handler.received(self._broker.group(channel), message)
        except Exception as error:
            log_failure(error, "%r: a message of the group could not be delivered", channel)

    def _message(self, data: bytes) -> Message:
        """Decodes a message; raises ValueError for bytes of another format."""
        if self._broker.history is None:
            return Message.from_bytes(data)
        place, _, data = data.partition(b"\n")
        message = Message.from_bytes(data)
        message.id = MessageId.parse(place.decode())
        return message

    def _interrupted(self, channel: bytes) -> None:
        self._presence.interrupted(channel)
        self._handler.interrupted(self._broker.group(channel))

    def _changed(self, channel: bytes, joined: dict[str, str], left: dict[str, str]) -> None:
        self._handler.changed(self._broker.group(channel), joined, left)
