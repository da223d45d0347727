"""Connecting again after a connection has ended: how long to wait, which errors are final, and what was not sent.

connect -- open --> the body of the loop -- ended --> a pause --> connect ...
   `------- error, not final ------------------------^
"""

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

from ..exceptions import ConnectionClosed, HandshakeRefused, InvalidHandshake
from ..logging import logger
from ..opcodes import CloseCode, OpCode
from .client import ClientConnection, Options

__all__ = ["Reconnect", "ReconnectingConnection", "is_final"]

_RETRIED = frozenset({408, 425, 429})
_FINAL = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_DATA,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
        CloseCode.MANDATORY_EXTENSION,
    }
)


def is_final(error: Exception) -> bool:
    """Whether it is of no use to connect again after an error.

    Final are: a refusal with a status below 500 other than 408, 425 and 429; a 101 response that breaks the rules; a
    certificate that is not accepted; an end by 1002, 1003, 1007, 1008, 1009 or 1010, for the same would happen again;
    and whatever is no error of the network, such as a ValueError for an option. All else is not: no network, no
    response, a refusal by 502 or 503, an end by 1001 or 1006.
    """
    if isinstance(error, ConnectionClosed):
        return error.code in _FINAL
    if isinstance(error, HandshakeRefused):
        return error.status < 500 and error.status not in _RETRIED
    if isinstance(error, InvalidHandshake):
        return error.status != 0
    return isinstance(error, ssl.SSLCertVerificationError) or not isinstance(error, OSError | EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """When to connect again.

    The pause before attempt n is `first * factor ** n` seconds, at most `longest`, of which a random part of up to a
    half is taken off, so that the clients of a server that has failed do not come back all at once. A `Retry-After` of
    the server makes it longer, within `longest`. The count begins anew when a connection has lasted for `longest`.

    Args:
        first: Seconds.
        factor: 1 or more.
        longest: Seconds.
        attempts: How often to try before the last error is raised; None for ever.
        is_final: Takes an error, or the `ConnectionClosed` of a connection that was open; true to raise it.
    """

    first: float = 0.5
    factor: float = 2
    longest: float = 60
    attempts: int | None = None
    is_final: Callable[[Exception], bool] = is_final

    def __post_init__(self) -> None:
        if not (0 <= self.first <= self.longest and self.factor >= 1):
            raise ValueError("the pauses begin with first, 0 or more, grow by factor, 1 or more, up to longest")

    def pause(self, attempt: int, error: Exception | None = None) -> float:
        """Seconds to wait before an attempt, the first of which is 0."""
        # Beyond that many the power of any factor would be out of bounds.
        seconds = min(self.first * self.factor ** min(attempt, 100), self.longest)
        seconds *= 1 - random.random() / 2
        if isinstance(error, HandshakeRefused):
            after = error.headers.get("retry-after", "")
            if after.isascii() and after.isdecimal():
                seconds = max(seconds, min(int(after), self.longest))
        return seconds


class ReconnectingConnection(ClientConnection):
    """One of the connections of `async for ws in connect(...)`.

    `async for message in ws` ends with the connection, however that ends: the outer loop goes on with the next.

    Attributes:
        unsent: The messages, as (data, opcode), of which it is not known that they have left this process. Once the
            connection is gone, they are what may have got lost; some may have arrived all the same. A message that has
            left may get lost as well, of which only an answer of the server can tell.
        left_over: `unsent` of the connection before this one.
    """

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        super().__init__(url, **options)
        self.unsent: list[tuple[Any, int]] = []
        self.left_over: list[tuple[Any, int]] = []
        self._is_looking = False

    def send(self, data: Any, opcode: int = OpCode.TEXT) -> Any:
        sending = super().send(data, opcode)
        if opcode < OpCode.CLOSE:
            self._settle()
            if self._is_queued:
                self.unsent.append((data, opcode))
                self._look_later()
        return sending

    @property
    def _is_queued(self) -> bool:
        """Whether something waits to be written."""
        protocol = self._open_protocol()
        return bool(protocol.is_elsewhere or protocol.is_sending or protocol.transport.get_write_buffer_size())

    def _settle(self) -> None:
        """Forgets the messages, if all have left."""
        # A transport that has failed has dropped what it had.
        if self.unsent and not self._open_protocol().transport.is_closing() and not self._is_queued:
            self.unsent.clear()

    def _look_later(self) -> None:
        """Looks again in the next pass of the loop: what was gathered within a read has left by then."""
        if not self._is_looking:
            self._is_looking = True
            self._open_protocol().loop.call_soon(self._look)

    def _look(self) -> None:
        self._is_looking = False
        if not self._open_protocol().lost:
            self._settle()

    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    def _connection_lost(self, log: bool) -> None:
        super()._connection_lost(log)
        if self.unsent:
            logger.warning("%s: %d messages may not have been sent, see unsent", self.url, len(self.unsent))
