"""Presence at a Redis server: a hash with the entries of each group, and a sorted set with the leases of their owners.

An owner is an event loop of some process. It renews its lease of each group by one small command, all of them in one
pipeline, whatever the number of its members. A renewal also removes the entries of owners whose lease has ended.
The server's clock decides, and a script makes each step atomic: the end of an entry is reported once.

    enter, exit -> `_changes` -> written in batches by `_run`
    a write fails, a lease is lost, or the connection breaks -> `_unsure` -> all entries of the group are written again

A watched group has a copy of all entries. A change that the copy contains already is not reported, so that entries that
return after a loss of the server's data are not reported as new.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

from ...codec import SENT
from ...exceptions import BrokerError
from ...logging import log_failure, logger
from ..presence import PresenceOptions
from .server import ANSWERS, ERRORS

__all__ = ["MARK", "RedisPresence"]

MARK = b"\0"
"""The first byte of a change of presence on the channel of its group."""

_RENEW, _CHANGE, _REPLACE = "renew", "change", "replace"
_BATCH = 1000  # groups whose leases are renewed at a time

_WRITE = """
local entries, leases = KEYS[1], KEYS[2]
local channel, publish, owner, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ttl, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('ZSCORE', leases, owner) and 1 or 0
local joined, left, kept, gone = {}, {}, {}, {}

for i = 7, 6 + 2 * count, 2 do
    local id, data = ARGV[i], ARGV[i + 1]
    kept[id] = true
    if redis.call('HGET', entries, id) ~= data then
        redis.call('HSET', entries, id, data)
        joined[#joined + 1] = id
        joined[#joined + 1] = data
    end
end
for i = 7 + 2 * count, #ARGV do
    if redis.call('HDEL', entries, ARGV[i]) == 1 then left[#left + 1] = ARGV[i] end
end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
    if other ~= owner then
        gone[other] = true
        redis.call('ZREM', leases, other)
    end
end
if mode == 'replace' then gone[owner] = true end
if next(gone) then
    for _, id in ipairs(redis.call('HKEYS', entries)) do
        if gone[string.match(id, '^[^.]*')] and not kept[id] then
            redis.call('HDEL', entries, id)
            left[#left + 1] = id
        end
    end
end
if mode ~= 'renew' or known == 1 then
    redis.call('PEXPIRE', entries, 2 * ttl) -- before ZADD, which a full memory allows only as a later write
    redis.call('ZADD', leases, now + ttl, owner)
    redis.call('PEXPIRE', leases, 2 * ttl)
end
if #joined + #left > 0 then
    redis.call(publish, channel, '\\0' .. cjson.encode({joined, left}))
end
return known
"""
_WRITE_SHA = hashlib.sha1(_WRITE.encode(), usedforsecurity=False).hexdigest()

_READ = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf'), redis.call('HGETALL', KEYS[1])}
"""

Execute = Callable[..., Awaitable[Any]]


class _Change:
    """Changes of a group's entries that are not written yet."""

    __slots__ = ("joined", "left")

    def __init__(self) -> None:
        self.joined: dict[str, str] = {}
        self.left: set[str] = set()


class _Watched:
    """A copy of all entries of a group.

    Attributes:
        entries: The data of each entry.
        reads: The changes since the beginning of each read under way: the data of an entry, None if it has left.
        settles: The time at which entries that are missing at the server have left, after a gap; None without a gap.
    """

    __slots__ = ("entries", "reads", "settles")

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.reads: list[dict[str, str | None]] = []
        self.settles: float | None = None

    def apply(self, joined: dict[str, str], left: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Applies a change; returns the part of it that the copy did not know."""
        for read in self.reads:
            read.update(joined)
            read.update(dict.fromkeys(left))
        new = {entry: data for entry, data in joined.items() if self.entries.get(entry) != data}
        self.entries.update(new)
        return new, {entry: self.entries.pop(entry) for entry in left if entry in self.entries}


class RedisPresence:
    """The entries of one loop's members, and copies of those of all others in watched groups.

    Args:
        options: The options of presence.
        owner: The part before the dot in the ids of this loop's entries.
        publish: The command that publishes on a channel.
        execute: Sends a command that concerns a channel, and returns the answer: `execute(channel, *command)`.
        execute_last: Sends a command for each channel at the end of the loop, when tasks are cancelled.
        changed: Called with (channel, joined, left) of each change in a watched group.
    """

    def __init__(
        self,
        options: PresenceOptions,
        owner: str,
        publish: str,
        execute: Execute,
        execute_last: Callable[[dict[bytes, tuple[Any, ...]]], Awaitable[None]],
        changed: Callable[[bytes, dict[str, str], dict[str, str]], None],
    ) -> None:
        self._options = options
        self._owner = owner
        self._publish = publish
        self._execute = execute
        self._execute_last = execute_last
        self._changed = changed
        self._own: dict[bytes, dict[str, str]] = {}
        self._changes: dict[bytes, _Change] = {}
        self._unsure: set[bytes] = set()  # channels whose entries at the server may differ from ours
        self._interrupted: set[bytes] = set()  # channels after a gap
        self._watched: dict[bytes, _Watched] = {}
        self._written: asyncio.Future[None] | None = None  # the end of the next batch
        self._is_away = False  # whether the last batch has failed
        self._is_refused = False  # whether the log has the server's refusal
        self._is_closed = False
        self._beat_at = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # Entries of this loop

    def enter(self, channel: bytes, entry: str, data: str) -> Awaitable[None]:
        """See `PresenceConnection`."""
        if self._is_closed:
            return SENT
        self._own.setdefault(channel, {})[entry] = data
        change = self._changes.setdefault(channel, _Change())
        change.joined[entry] = data
        change.left.discard(entry)
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            if self._is_away:
                self._written.set_result(None)
        written = asyncio.shield(self._written)
        self._start()  # last, because an eager task writes the present changes at once
        return written

    def exit(self, channel: bytes, entry: str) -> None:
        """See `PresenceConnection`."""
        own = self._own.get(channel, {})
        own.pop(entry, None)
        if not own:
            self._own.pop(channel, None)
        change = self._changes.setdefault(channel, _Change())
        change.joined.pop(entry, None)
        change.left.add(entry)
        if self._task is not None and not self._task.done():  # its end has removed all entries
            self._start()

    async def close(self) -> None:
        """Removes the entries of this loop, if the server answers."""
        self._is_closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._own.clear()
            self._watched.clear()
        if self._written is not None and not self._written.done():
            self._written.set_result(None)

    # All entries

    async def present(self, channel: bytes) -> dict[str, str]:
        """Returns the data of all entries; raises BrokerError if the server does not answer."""
        while True:
            watched = self._watched.get(channel)
            entries = await self._read(channel, watched)
            still = self._watched.get(channel)
            if still in (watched, None):
                break  # else changes have been reported meanwhile that the read did not follow
        if still is not None:
            self._report(channel, *still.apply(entries, ()))  # so that their ends are reported later
            if still.settles is not None:  # the owners of others may not have written them again yet
                return dict(still.entries)
        return entries

    def watch(self, channel: bytes) -> _Watched | None:
        """Starts to report changes if the options require it; call it before the channel is subscribed to.

        Returns:
            The new copy, for `fill`; None if the group is watched already, or not at all.
        """
        if self._is_closed or not self._options.is_watched or channel in self._watched:
            return None
        watched = self._watched[channel] = _Watched()
        watched.settles = 0.0
        self._start()
        return watched

    async def fill(self, channel: bytes, watched: _Watched) -> None:
        """Reads the entries of a new copy, once the channel is subscribed to; otherwise the next renewal does."""
        if self._watched.get(channel) is not watched:
            return
        self._unsure.add(channel)  # an older copy of the server may have brought back members that have left
        if self._is_away:
            return
        try:
            watched.entries = await self._read(channel, watched)
            watched.settles = None
        except BrokerError:
            self._is_away = True

    def unwatch(self, channel: bytes) -> None:
        """Ends `watch`."""
        self._watched.pop(channel, None)

    def received(self, channel: bytes, data: bytes) -> None:
        """Handles a change that was published on the channel of a group.

        Raises:
            ValueError: The data has another format.
        """
        watched = self._watched.get(channel)
        if watched is None:
            return
        try:
            pairs, left = map(list, json.loads(data[len(MARK) :]))
            joined = dict(zip(pairs[::2], pairs[1::2], strict=True))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"no change of presence: {error}") from None
        if not all(isinstance(word, str) for word in (*pairs, *left)):
            raise ValueError("no change of presence: it has a value that is not text")
        own = self._own.get(channel, {})
        joined |= {entry: own[entry] for entry in joined if own.get(entry) == joined[entry]}  # shares their texts
        self._report(channel, *watched.apply(joined, left))

    def interrupted(self, channel: bytes) -> None:
        """Handles a gap: the server may have lost its data, and changes may have been missed."""
        watched = self._watched.get(channel)
        self._doubt(watched)
        if watched is not None or channel in self._own:
            self._interrupted.add(channel)
            self._start()

    def _doubt(self, watched: _Watched | None) -> None:
        """Lets entries that are missing at the server leave the copy, once their owners have had time to return."""
        if watched is not None:
            watched.settles = asyncio.get_running_loop().time() + self._options.ttl

    def _report(self, channel: bytes, joined: dict[str, str], left: dict[str, str]) -> None:
        if joined or left:
            self._changed(channel, joined, left)

    async def _read(self, channel: bytes, watched: _Watched | None) -> dict[str, str]:
        """Returns the entries at the server, with the changes that arrive until the return, and with ours."""
        changes: dict[str, str | None] = {}
        if watched is not None:
            watched.reads.append(changes)
        try:
            owners, flat = await self._execute(channel, "EVAL", _READ, 2, *_keys(channel))
        finally:
            if watched is not None:
                watched.reads = [read for read in watched.reads if read is not changes]
        alive = {owner.decode(errors="replace") for owner in owners}
        words = (word.decode(errors="replace") for word in flat)
        entries = {entry: data for entry, data in zip(words, words, strict=True) if entry.partition(".")[0] in alive}
        for entry, data in changes.items():
            if data is None:
                entries.pop(entry, None)
            else:
                entries[entry] = data
        others = {entry: data for entry, data in entries.items() if not entry.startswith(self._owner)}
        return others | self._own.get(channel, {})

    # Writing

    def _start(self) -> None:
        self._wake.set()
        if not self._is_closed and (self._task is None or self._task.done()):
            loop = asyncio.get_running_loop()
            self._beat_at = loop.time() + self._interval()
            self._task = loop.create_task(self._run())

    def _interval(self) -> float:
        """Seconds between two renewals: two may fail in a time to live."""
        return self._options.ttl / 3 * random.uniform(0.8, 1.0)

    async def _run(self) -> None:
        """Writes changes in batches, and renews the leases, until the loop ends."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._beat_at):
                        await self._wake.wait()
                self._wake.clear()
                try:
                    await self._write_all()
                except Exception as error:
                    log_failure(error, "presence at Redis could not be written")
        except asyncio.CancelledError:
            await self._write_last()
            raise

    async def _write_all(self) -> None:
        await self._write_changes()
        interrupted, self._interrupted = self._interrupted, set()
        await _each(self._recover, interrupted)
        now = asyncio.get_running_loop().time()
        if now >= self._beat_at:
            self._beat_at = now + self._interval()
            await self._beat()

    async def _write_last(self) -> None:
        """Removes the entries of this loop, which ends; without this they would end with their lease."""
        channels = {*self._own, *self._changes, *self._unsure}
        if channels and not self._is_away:
            with suppress(*ERRORS):
                await self._execute_last({channel: self._script(channel, _REPLACE, {}) for channel in channels})

    async def _write_changes(self) -> None:
        changes, self._changes = self._changes, {}
        written, self._written = self._written, None
        try:
            self._note(await _each(lambda channel: self._change(channel, changes[channel]), changes))
        except asyncio.CancelledError:
            self._unsure.update(changes)
            raise
        finally:
            if written is not None and not written.done():
                written.set_result(None)

    def _note(self, answered: list[bool]) -> None:
        if answered:
            self._is_away = not any(answered)

    async def _change(self, channel: bytes, change: _Change) -> bool:
        """Writes a change; returns whether the server has answered."""
        own = self._own.get(channel, {})
        # The first entries replace those that have left, which an older copy of the server may have brought back.
        if channel in self._unsure or (own and len(own) <= len(change.joined)):
            return await self._replace(channel)
        try:
            known = await self._write(channel, _CHANGE, change.joined, change.left)
        except BrokerError as error:
            self._failed(channel, error)
            return False
        if not known and own:
            return await self._replace(channel)  # the server has lost the others
        return True

    async def _replace(self, channel: bytes) -> bool:
        """Writes all entries of a group."""
        self._unsure.discard(channel)
        try:
            await self._write(channel, _REPLACE, self._own.get(channel, {}))
        except BrokerError as error:
            self._failed(channel, error)
            return False
        return True

    def _failed(self, channel: bytes, error: BrokerError) -> None:
        """Notes that a write has failed; the subscriber logs a server that is away."""
        self._unsure.add(channel)
        if isinstance(error.__cause__, ANSWERS) and not self._is_refused:
            self._is_refused = True
            logger.warning("presence: others do not see the members of this process: %s", error)

    async def _beat(self) -> None:
        """Renews the leases, writes lost entries again, and removes the entries of dead owners."""
        self._note(await _each(self._renew, {*self._own, *self._watched, *self._unsure}))
        await _each(self._settle, [channel for channel, one in self._watched.items() if one.settles is not None])

    async def _renew(self, channel: bytes) -> bool:
        if channel not in self._unsure:
            with suppress(BrokerError):  # such as NOSCRIPT, of a server that has restarted
                if await self._write(channel, _RENEW, {}):
                    return True
                self._doubt(self._watched.get(channel))  # without our lease, entries of others may have ended as well
        return await self._replace(channel)

    async def _recover(self, channel: bytes) -> bool:
        return await self._replace(channel) and await self._settle(channel)

    async def _settle(self, channel: bytes) -> bool:
        """Compares the copy of a group with the server after a gap; returns whether the server has answered."""
        watched = self._watched.get(channel)
        if watched is None:
            return True
        is_over = watched.settles is not None and asyncio.get_running_loop().time() >= watched.settles
        try:
            entries = await self._read(channel, watched)
        except BrokerError:
            return False
        if self._watched.get(channel) is watched:
            left = [entry for entry in watched.entries if entry not in entries] if is_over else []
            if is_over:
                watched.settles = None
            self._report(channel, *watched.apply(entries, left))
        return True

    async def _write(self, channel: bytes, mode: str, joined: dict[str, str], left: Collection[str] = ()) -> bool:
        """Executes the script; returns whether the server knew a lease of ours."""
        known = bool(await self._execute(channel, *self._script(channel, mode, joined, left)))
        self._is_refused = False
        return known

    def _script(self, channel: bytes, mode: str, joined: dict[str, str], left: Collection[str] = ()) -> tuple[Any, ...]:
        """Returns the command that executes the script."""
        script = ("EVALSHA", _WRITE_SHA) if mode == _RENEW else ("EVAL", _WRITE)
        ttl = max(round(self._options.ttl * 1000), 1)
        options = (channel, self._publish, self._owner, mode, ttl, len(joined))
        pairs = (word for pair in joined.items() for word in pair)
        return (*script, 2, *_keys(channel), *options, *pairs, *left)


async def _each(function: Callable[[bytes], Awaitable[bool]], channels: Collection[bytes]) -> list[bool]:
    """Calls a function with each channel, so that the commands of many leave in one pipeline; returns the results."""
    results: list[bool] = []
    rest = list(channels)
    while rest:
        part, rest = rest[:_BATCH], rest[_BATCH:]
        results += await asyncio.gather(*map(function, part))
    return results


def _keys(channel: bytes) -> tuple[bytes, bytes]:
    return b"{%b}:presence" % channel, b"{%b}:leases" % channel
