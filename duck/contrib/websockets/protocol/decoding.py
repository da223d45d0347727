"""Messages that the peer's extensions have encoded: small ones are decoded at once, large ones by a thread.

A message is decoded when it is about to be handled, so that what waits is as small as it came. Messages are decoded in
order and one at a time, because with context takeover each may refer to those before it (RFC 7692, section 7.1.1).
"""

import asyncio
import sys

from ..opcodes import OpCode
from ..sansio.connection import Connection
from .loop import threads

__all__ = ["Decoding"]

_AT_ONCE = 131071  # compressed bytes that take no longer to decompress than other connections may wait


class Decoding:
    """The decoding of one connection's messages.

    Attributes:
        at_once: Bytes of the largest encoded message that is decoded in the thread of the loop.
    """

    __slots__ = ("_connection", "_job", "_loop", "at_once")

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._loop = loop
        self._connection = connection
        self._job: asyncio.Future[tuple[int, bytes]] | None = None  # a thread decodes a message
        # An extension of a user's own is called in the thread of the loop alone.
        self.at_once = sys.maxsize if connection.deflate is None else _AT_ONCE

    async def decoded(self, message: tuple[int, bytes]) -> tuple[int, bytes]:
        """A message or control frame as it was before it was encoded.

        Cancelled, it may be called again with the same message.

        Raises:
            Exception: As `Connection.decode`.
        """
        opcode, payload = message
        if opcode & 0b1111 >= OpCode.CLOSE or not opcode & self._connection.encoded:
            return message
        if len(payload) <= self.at_once:
            return self._connection.decode(opcode, payload)
        job = self._job = self._job or self.start(message)
        await asyncio.wait([job])
        self._job = None
        return job.result()

    def start(self, message: tuple[int, bytes]) -> "asyncio.Future[tuple[int, bytes]]":
        """Has a thread decode a message."""
        return self._loop.run_in_executor(threads(), self._connection.decode, *message)
