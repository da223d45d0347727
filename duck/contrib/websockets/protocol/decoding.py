"""Decoding of extension-encoded messages: small ones at once, large ones in a thread.

A message is decoded just before it is handled, so waiting messages keep their compressed size. Messages are decoded in
order and one at a time, because with context takeover each may refer to earlier ones (RFC 7692, section 7.1.1).
"""

import asyncio
import sys

from ..logging import log_failure
from ..sansio.connection import Connection
from .loop import in_thread

__all__ = ["Decoding", "refuse_late"]

_AT_ONCE = 131071  # compressed bytes; decompressing more in the loop's thread would delay other connections too long


class Decoding:
    """The decoding of one connection's messages.

    Attributes:
        at_once: Size in bytes of the largest encoded message that is decoded in the loop's thread.
    """

    __slots__ = ("_connection", "_loop", "at_once")

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._loop = loop
        self._connection = connection
        # Extensions of users run only in the loop's thread.
        self.at_once = sys.maxsize if connection.deflate is None else _AT_ONCE

    def start(self, message: tuple[int, bytes]) -> "asyncio.Future[tuple[int, bytes]]":
        """Decodes a message in a thread; the result or error is that of `Connection.decode`."""
        return in_thread(self._loop, self._connection.decode, *message)


def refuse_late(connection: Connection, error: BaseException) -> None:
    """Notes that a message of a connection that has ended cannot be decoded; `closed_error` tells the reason."""
    connection.refuse(error)
    if connection.fault is not None:
        fault, connection.fault = connection.fault, None
        log_failure(fault, "a message could not be decoded after the end of its connection")
    connection.respond()
