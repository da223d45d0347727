"""Messages that the peer's extensions have encoded: small ones are decoded at once, large ones by a thread.

A message is decoded when it is about to be handled, so that what waits is as small as it came. Messages are decoded in
order and one at a time, because with context takeover each may refer to those before it (RFC 7692, section 7.1.1).
"""

import asyncio
import sys

from ..sansio.connection import Connection
from .loop import threads

__all__ = ["Decoding"]

_AT_ONCE = 131071  # compressed bytes that take no longer to decompress than other connections may wait


class Decoding:
    """The decoding of one connection's messages.

    Attributes:
        at_once: Bytes of the largest encoded message that is decoded in the thread of the loop.
    """

    __slots__ = ("_connection", "_loop", "at_once")

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._loop = loop
        self._connection = connection
        # An extension of a user's own is called in the thread of the loop alone.
        self.at_once = sys.maxsize if connection.deflate is None else _AT_ONCE

    def start(self, message: tuple[int, bytes]) -> "asyncio.Future[tuple[int, bytes]]":
        """Has a thread decode a message; the result, or the error, is that of `Connection.decode`."""
        return self._loop.run_in_executor(threads(), self._connection.decode, *message)
