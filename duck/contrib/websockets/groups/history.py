"""The last messages of groups, with which members catch up: their ids, their limits, and the history in memory.

An id consists of the epoch of a history and a position in it. A history that has expired, or was lost with a restarted
server, starts again with another epoch, so that positions of the old history are invalid in the new one.
"""

import os
import sys
import time
from collections import OrderedDict, deque
from typing import NamedTuple

from .broker import Message, MessageId, Past

__all__ = ["History", "MemoryHistory", "checked_seconds", "new_epoch"]

_MOST_SECONDS = 1e9  # three decades; clocks and Redis overflow above some larger value
_MOST_MESSAGES = sys.maxsize - 1  # Redis gets one more


class History(NamedTuple):
    """The limits of the histories.

    Args:
        size: Messages of each group; Redis keeps a few more.
        ttl: Seconds after the last message until the history expires.
    """

    size: int
    ttl: float

    @classmethod
    def checked(cls, size: object, ttl: object) -> "History | None":
        """Returns the limits; None for a size of 0, which keeps no history.

        Raises:
            TypeError: The size is not an int, or the time to live is not a number.
            ValueError: The size or the time to live is out of bounds.
        """
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"history is a number of messages, such as 100, or 0 for none, not {size!r}")
        if not 0 <= size <= _MOST_MESSAGES:
            raise ValueError(f"history is 1 to {_MOST_MESSAGES} messages, such as 100, or 0 for none, not {size!r}")
        seconds = checked_seconds("history_ttl", ttl)
        return cls(size, seconds) if size else None


def checked_seconds(name: str, value: object) -> float:
    """Returns the value of an argument if it is a valid number of seconds.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not above 0, or too large for a clock.
    """
    message = f"{name} is a number of seconds, more than 0, such as 5.0, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(message)
    if not 0 < value <= _MOST_SECONDS:
        raise ValueError(message)
    return value


def new_epoch() -> str:
    """Returns an epoch for a new history."""
    return os.urandom(8).hex()


class _Record:
    def __init__(self, size: int) -> None:
        self.epoch = new_epoch()
        self.count = 0
        self.messages: deque[Message] = deque(maxlen=size)
        self.ends = 0.0


class MemoryHistory:
    """The histories of one process; not safe between threads by itself."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._records: OrderedDict[str, _Record] = OrderedDict()  # in the order of expiry

    def add(self, group: str, message: Message) -> None:
        """Keeps a message, and sets its id."""
        self._expire()
        record = self._records.pop(group, None) or _Record(self._history.size)
        self._records[group] = record
        record.ends = time.monotonic() + self._history.ttl
        record.count += 1
        message.id = MessageId(record.epoch, 0, record.count)
        record.messages.append(message)

    def position(self, group: str) -> MessageId | None:
        """Returns the id of the last message."""
        self._expire()
        record = self._records.get(group)
        return record.messages[-1].id if record is not None else None

    def after(self, group: str, since: MessageId | None) -> Past:
        """Returns the messages after `since`; all kept messages for None."""
        self._expire()
        record = self._records.get(group)
        messages = [] if record is None else list(record.messages)
        if since is None:
            return Past(messages, True)
        ids = [message.id for message in messages]
        first = ids[0] if ids else None
        # The message before the first one need not be kept itself.
        if since not in ids and (first is None or since != first._replace(number=first.number - 1)):
            return Past([], False)
        return Past([message for message in messages if message.id and not since.covers(message.id)], True)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._records:
            group, record = next(iter(self._records.items()))
            if record.ends > now:
                return
            del self._records[group]
