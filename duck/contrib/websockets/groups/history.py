"""The last messages of groups, by which members catch up: their ids, their bounds, and how memory keeps them.

An id tells the epoch of a history and a place in it. A history that has been lost, because its time was over or its
server has restarted, begins again with another epoch, so that a place in the old one is none in the new one.
"""

import os
import time
from collections import OrderedDict, deque
from typing import NamedTuple

from .broker import Message, MessageId, Past

__all__ = ["History", "MemoryHistory", "new_epoch"]


class History(NamedTuple):
    """What groups keep.

    Args:
        size: Messages of each group; at Redis some more.
        ttl: Seconds after the last message for which they are kept.
    """

    size: int
    ttl: float

    def check(self) -> None:
        """Raises ValueError for bounds that cannot be."""
        if self.size < 1 or self.ttl <= 0:
            raise ValueError(
                f"a history has at least one message and some time to live, not {self.size} and {self.ttl}"
            )


def new_epoch() -> str:
    """The epoch of a history that begins."""
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
        self._records: OrderedDict[str, _Record] = OrderedDict()  # those that end first, first

    def add(self, group: str, message: Message) -> None:
        """Keeps a message, which gets its id."""
        self._expire()
        record = self._records.pop(group, None) or _Record(self._history.size)
        self._records[group] = record
        record.ends = time.monotonic() + self._history.ttl
        record.count += 1
        message.id = MessageId(record.epoch, 0, record.count)
        record.messages.append(message)

    def position(self, group: str) -> MessageId | None:
        """The id of the last message."""
        self._expire()
        record = self._records.get(group)
        return record.messages[-1].id if record is not None else None

    def after(self, group: str, since: MessageId | None) -> Past:
        """The messages behind one; all that are kept for None."""
        self._expire()
        record = self._records.get(group)
        messages = [] if record is None else list(record.messages)
        if since is None:
            return Past(messages, True)
        if since not in [message.id for message in messages]:
            return Past([], False)
        return Past([message for message in messages if message.id and not since.covers(message.id)], True)

    def _expire(self) -> None:
        now = time.monotonic()
        while self._records:
            group, record = next(iter(self._records.items()))
            if record.ends > now:
                return
            del self._records[group]
