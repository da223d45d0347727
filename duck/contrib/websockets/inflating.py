"""Large compressed messages on their way in: a thread decompresses them, while the loop serves other connections.

    a read --> handled, up to a large message --> a thread, reading on hold --> handled, and what came behind it

Behind a large message everything waits that came in the same read: at most what one read gives, for the next ones are
on hold. A message that was being decompressed when the peer went away is handled before `on_close`.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .commons import threads
from .exceptions import ExtensionError, ProtocolError
from .logging import logger

if TYPE_CHECKING:
    from .protocol import WebSocketProtocol

__all__ = ["Inflating"]

_LARGE = 131072  # compressed bytes from which a message takes longer to decompress than others should wait
_RSV1 = 0b01000000


def _is_large(message: tuple[int, bytes]) -> bool:
    return len(message[1]) >= _LARGE and message[0] & _RSV1 != 0


class Inflating:
    """The receiving side of one connection that has agreed on permessage-deflate alone.

    Attributes:
        AT_ONCE: Bytes of the largest compressed message that takes no longer than others may wait.
    """

    AT_ONCE = _LARGE - 1

    __slots__ = ("_behind", "_job", "_protocol")

    def __init__(self, protocol: "WebSocketProtocol") -> None:
        self._protocol = protocol
        self._job: asyncio.Future[tuple[int, bytes]] | None = None  # decompresses a message
        self._behind: Sequence[tuple[int, bytes]] = ()  # what came after that

    @property
    def is_busy(self) -> bool:
        """Whether a message is being decompressed."""
        return self._job is not None

    def put(self, messages: list[tuple[int, bytes]]) -> bool:
        """Takes messages and control frames, and sees to it that they are handled, if that cannot be done at once."""
        if self._job is not None:
            self._behind = [*self._behind, *messages]
            return True
        for message in messages:
            if len(message[1]) >= _LARGE and message[0] & _RSV1:  # `_is_large`, at no call for each small one
                self._behind = messages
                self._go_on()
                return True
        return False

    async def until_done(self, deadline: float) -> None:
        """Until all that came has been handled, or the deadline has passed."""
        loop = self._protocol.loop
        while self._job is not None and deadline > loop.time():
            await asyncio.wait([self._job], timeout=deadline - loop.time())
        if self._job is not None:
            self._job = None
            self._behind = ()
            logger.warning("%r: a message was not decompressed in time", self._protocol.endpoint._label)

    def _go_on(self) -> None:
        """Has what waits handled, up to the next large message, which goes to a thread."""
        protocol, messages = self._protocol, self._behind
        connection = protocol.connection
        at = 0
        while at < len(messages) and not _is_large(messages[at]):
            at += 1
        protocol.handle(list(messages[:at]), True)
        if connection.close_sent and at < len(messages):
            protocol.handle(list(messages[at:]), True)  # which drops messages, large or not
            at = len(messages)
        self._behind = () if connection.broken else messages[at + 1 :]
        if at < len(messages) and not connection.broken:
            protocol.hold_inflating()
            self._job = protocol.loop.run_in_executor(threads(), connection.decode, *messages[at])
            self._job.add_done_callback(self._done)
        elif connection.needs_response:
            protocol.respond()

    def _done(self, job: "asyncio.Future[tuple[int, bytes]]") -> None:
        error = job.exception()
        if job is not self._job:
            return
        self._job = None
        protocol = self._protocol
        protocol.corked = True
        try:
            if error is None:
                self._behind = [job.result(), *self._behind]
            elif isinstance(error, (ExtensionError, ProtocolError)):
                protocol.connection.refuse(error)
            elif isinstance(error, Exception):
                protocol.connection.fail_to_decode(error)
            else:
                raise error
            self._go_on()
        finally:
            protocol.corked = False
            protocol.flush()
        if self._job is None:
            protocol.release_inflating()
        protocol.move_on()
