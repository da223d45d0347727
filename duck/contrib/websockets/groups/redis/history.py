"""The histories of groups at a Redis server: a stream for each group, and a key with its epoch.

A script adds a message to the stream and publishes it in one step, so that messages arrive in the order of their ids.
If the server refuses to publish the message, the script removes it from the stream. On a cluster, the keys of a group
are in the slot of its channel.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from ...exceptions import BrokerError
from ..broker import Message, MessageId, Past
from ..history import History, new_epoch

__all__ = ["RedisHistory", "keep_words", "parse_id"]

_PUBLISH = """
local epoch = redis.call('GET', KEYS[2])
if not epoch then
    epoch = ARGV[4]
    redis.call('SET', KEYS[2], epoch)
end
local place = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'm', ARGV[3])
local id = epoch .. '.' .. place
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local published = redis.pcall(ARGV[5], ARGV[6], id .. '\\n' .. ARGV[3])
if type(published) == 'table' and published.err then
    redis.call('XDEL', KEYS[1], place)
    return published
end
return id
"""
_AFTER = "return {redis.call('GET', KEYS[2]) or '', redis.call('XRANGE', KEYS[1], ARGV[1], '+')}"
_LAST = "return {redis.call('GET', KEYS[2]) or '', redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)}"


class RedisHistory:
    """Reads the histories of groups.

    Args:
        execute: Sends a command that concerns a channel, and returns the answer: `execute(channel, *command)`.
    """

    def __init__(self, execute: Callable[..., Awaitable[Any]]) -> None:
        self._execute = execute

    async def position(self, channel: bytes) -> MessageId | None:
        """See `HistoryConnection`."""
        epoch, entries = await self._execute(channel, "EVAL", _LAST, 2, *_keys(channel))
        return parse_id(channel, b"%b.%b" % (epoch, entries[0][0])) if epoch and entries else None

    async def after(self, channel: bytes, since: MessageId | None) -> Past:
        """See `HistoryConnection`."""
        start = "-" if since is None else f"{since.time}-{since.number}"
        epoch, entries = await self._execute(channel, "EVAL", _AFTER, 2, *_keys(channel), start)
        messages = []
        for place, fields in entries:
            try:
                _, data = fields
                message = Message.from_bytes(data)
            except ValueError as error:
                raise _foreign(channel, error) from None
            message.id = parse_id(channel, b"%b.%b" % (epoch, place))
            messages.append(message)
        if since is None:
            return Past(messages, True)
        if not messages or messages[0].id != since:
            return Past([], False)
        return Past(messages[1:], True)


def parse_id(channel: bytes, text: bytes) -> MessageId:
    """Parses the id of a message in a history; raises BrokerError for an epoch that something else has written."""
    try:
        return MessageId.parse(text.decode())
    except ValueError as error:
        raise _foreign(channel, error) from None


def _foreign(channel: bytes, error: ValueError) -> BrokerError:
    return BrokerError(f"the history of {channel!r} has been written by something else: {error}")


def keep_words(history: History, publish: str, channel: bytes, message: Message) -> tuple[Any, ...]:
    """Returns the command that keeps and publishes a message, and answers with its id."""
    ttl = max(round(history.ttl * 1000), 1)
    # A member that has missed as many messages as are kept names the one before them, which `after` looks for.
    arguments = history.size + 1, ttl, message.to_bytes(), new_epoch(), publish
    # A cluster must not see the channel as a key: it would miss that key while the slot moves.
    return "EVAL", _PUBLISH, 2, *_keys(channel), *arguments, channel


def _keys(channel: bytes) -> tuple[bytes, bytes]:
    return b"{%b}:history" % channel, b"{%b}:epoch" % channel
