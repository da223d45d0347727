"""Presence: entries for the members of a group in all processes, with data of the application.

A broker keeps an entry as JSON text by its id, until the entry is removed or its process dies.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..logging import logger
from ..sansio.payloads import Data

__all__ = [
    "DATA_LIMIT",
    "Announce",
    "Presence",
    "PresenceChange",
    "PresenceOptions",
    "changes",
    "decode_entries",
    "encode_data",
]

DATA_LIMIT = 1024
"""Bytes of a member's data as JSON."""

_PART = 250  # entries of each kind in a change; with their data at most about half of the default MAX_FRAME_SIZE


class Presence(NamedTuple):
    """The entry of a present member.

    Attributes:
        id: Identifies the membership, in all processes.
        data: The `data` argument of the member's `join`.
    """

    id: str
    data: Any


class PresenceChange(NamedTuple):
    """A change of presence in a group, of at most 250 entries of each kind.

    Attributes:
        group: The name of the group.
        joined: The new entries, and those with new data.
        left: The entries that have ended.
    """

    group: str
    joined: list[Presence]
    left: list[Presence]


Announce = Callable[[PresenceChange], Data | None]


class PresenceOptions(NamedTuple):
    """The options of presence for a broker between processes.

    Args:
        ttl: Seconds until the entries of a dead process end.
        is_watched: Whether `Handler.changed` is called.
    """

    ttl: float
    is_watched: bool


def encode_data(data: Any) -> str:
    """Returns the data of a member as JSON.

    Raises:
        TypeError: The data cannot be JSON.
        ValueError: The data cannot be JSON, or exceeds DATA_LIMIT.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    size = len(text.encode())
    if size > DATA_LIMIT:
        raise ValueError(f"the data of a member is at most {DATA_LIMIT} bytes of JSON, not {size}: keep it elsewhere")
    return text


def changes(group: str, joined: dict[str, str], left: dict[str, str]) -> Iterator[PresenceChange]:
    """Yields a change of a broker in parts, so that each fits into one message even if thousands leave at once."""
    new, old = decode_entries(joined), decode_entries(left)
    for at in range(0, max(len(new), len(old)), _PART):
        yield PresenceChange(group, new[at : at + _PART], old[at : at + _PART])


def decode_entries(entries: dict[str, str]) -> list[Presence]:
    """Returns the entries of a broker with their data decoded; those of another format are logged instead."""
    decoded = []
    for entry, text in entries.items():
        try:
            decoded.append(Presence(entry, json.loads(text)))
        except (ValueError, RecursionError) as error:
            logger.error("presence: the data of %r is not JSON: %s: does something else write there?", entry, error)
    return decoded
