"""Reconnection after the end of a connection: pauses, final errors, and messages that were not sent.

`connecting.connect` uses it in `async for`, and `Reconnect.run` for clients with hooks:

    connect -- open --> the body of the loop -- ended --> a pause --> connect ...
       `------- error, not final ------------------------^
"""

import asyncio
import inspect
import math
import random
import ssl
import time
from bisect import bisect_right
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ..exceptions import ConnectionClosed, HandshakeRefused, InvalidHandshake
from ..logging import logger, printable, text_of
from ..opcodes import CloseCode, OpCode
from ..protocol.protocol import ConnectionProtocol
from ..protocol.transports import discards, waiting_bytes
from ..sansio.payloads import payload_of
from .client import WebSocketClient
from .connection import ClientConnection
from .options import Options

__all__ = ["Attempts", "Reconnect", "ReconnectingConnection", "is_final"]

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

_STABLE = 10.0  # seconds
_BETWEEN_LOOKS = 0.1  # seconds


def is_final(error: Exception) -> bool:
    """Whether an error makes another attempt useless: the default of `Reconnect`, for a decision that extends it."""
    if isinstance(error, ConnectionClosed):
        return error.code in _FINAL
    if isinstance(error, HandshakeRefused):
        return error.status < 500 and error.status not in _RETRIED
    if isinstance(error, InvalidHandshake):
        return error.status != 0
    return isinstance(error, ssl.SSLCertVerificationError) or not isinstance(error, OSError | EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """The policy for connecting again.

    The pause before attempt n is `first * factor ** n` seconds, at most `longest`, less a random part of up to a half,
    so that the clients of a failed server do not return all at once. A `Retry-After` of the server extends it, up to
    `longest`. The count restarts after a connection that has lasted for `longest`, and for 10 seconds at least, so that
    a server that accepts connections only to close them uses up the attempts.

    Args:
        first: Seconds.
        factor: 1 or more.
        longest: Seconds.
        attempts: Attempts to connect again, after the first one, before the last error is raised; None for no limit.
        is_final: Called with an error, or the `ConnectionClosed` of a connection that was open; returns True to raise
            it. By default these errors are final: a refusal with a status below 500 other than 408, 425 and 429; a 101
            response that breaks the rules; a rejected certificate; the close codes 1002, 1003 and 1007 to 1010, which
            would recur; and any error other than of the network, such as a ValueError for an option. All other errors
            are temporary: no network, no response, a refusal with 502 or 503, the close codes 1001 and 1006.
    """

    first: float = 0.5
    factor: float = 2
    longest: float = 60
    attempts: int | None = None
    is_final: Callable[[Exception], bool] = is_final

    def __post_init__(self) -> None:
        for name in ("first", "factor", "longest"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} is a number, not {value!r}")
        if not (0 <= self.first <= self.longest and 1 <= self.factor < math.inf):
            raise ValueError(
                "first must be from 0 to longest, and factor 1 or more, but finite:"
                f" first is {self.first}, longest {self.longest}, factor {self.factor}"
            )
        attempts = self.attempts
        if attempts is not None and (isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 0):
            raise ValueError(f"attempts is a number, 0 or more, or None for no limit, not {attempts!r}")
        if not callable(self.is_final) or inspect.iscoroutinefunction(self.is_final):
            raise TypeError(f"is_final is a function of an error, and no coroutine function, not {self.is_final!r}")

    def is_stable(self, seconds: float) -> bool:
        """Whether a connection that has lasted for some seconds restarts the count of attempts."""
        return seconds >= max(self.longest, _STABLE)

    def pause(self, attempt: int, error: Exception | None = None) -> float:
        """Returns the seconds to wait before an attempt.

        Args:
            attempt: The number of the attempt, from 0.
            error: The error that ended the last attempt or connection.
        """
        try:
            seconds = min(self.first * float(self.factor) ** attempt, self.longest)
        except OverflowError:
            seconds = self.longest if self.first else 0
        seconds *= 1 - random.random() / 2
        if isinstance(error, HandshakeRefused):
            seconds = max(seconds, min(_seconds_of(error.headers.get("retry-after", "")), self.longest))
        return seconds

    async def run(self, create: Callable[[], WebSocketClient | Coroutine[Any, Any, WebSocketClient]]) -> None:
        """Runs clients with hooks one after the other, each on a connection of its own, until an error is final.

            await Reconnect(longest=30).run(lambda: Ticker("wss://example.org/ticker"))

        It returns once a client has closed its connection itself with 1000. A client that closes it with another code,
        such as 4000, asks for another connection.

        Args:
            create: Returns the client of the next connection. It may be a coroutine function, for example one that
                fetches a token. Its errors are those of an attempt.

        Raises:
            ConnectionClosed: A connection has ended with a final code, or the attempts are used up.
            TypeError: `create` is no function, or returns another object than a client.
            Exception: The final error of an attempt, see `connect`.
        """
        if not callable(create):
            raise TypeError(f"run takes a function that returns a client, such as lambda: Ticker(url), not {create!r}")
        attempts = Attempts(self)
        loop = asyncio.get_running_loop()
        while True:
            client: WebSocketClient | None = None
            failure: Exception
            try:
                client = await _created(create)
                begun = loop.time()
                await client.run()
            except Exception as error:
                failure = error
            else:
                failure = ConnectionClosed(client.close_code or CloseCode.ABNORMAL_CLOSURE, client.close_reason)
                attempts.lasted(loop.time() - begun)
            if client is not None and client._has_left:
                return
            await attempts.pause("no client" if client is None else client.url, failure)


async def _created(create: Callable[[], WebSocketClient | Coroutine[Any, Any, WebSocketClient]]) -> WebSocketClient:
    found = create()
    client = await found if inspect.iscoroutine(found) else found
    if not isinstance(client, WebSocketClient):
        raise TypeError(f"the function of run returned {client!r}: return a WebSocketClient, such as Ticker(url)")
    return client


class Attempts:
    """Counts the attempts of a series of connections, and waits between them.

    Args:
        policy: Decides on the pauses, and on the errors that end the series.
    """

    def __init__(self, policy: Reconnect) -> None:
        self._policy = policy
        self._count = 0

    def lasted(self, seconds: float) -> None:
        """Notes that a connection was open for some seconds; after a stable one the count restarts."""
        if self._policy.is_stable(seconds):
            self._count = 0

    async def pause(self, url: str, error: Exception) -> None:
        """Waits before another attempt; raises the error if it is final.

        Args:
            url: The URL for the log, without credentials.
            error: The error that ended the last attempt or connection.
        """
        policy = self._policy
        if policy.is_final(error) or self._count == policy.attempts:
            raise error
        seconds = policy.pause(self._count, error)
        self._count += 1
        logger.info("%s: %s; connecting again in %.1f seconds", url, printable(text_of(error)), seconds)
        await asyncio.sleep(seconds)


def _seconds_of(after: str) -> float:
    """Returns the seconds of a `Retry-After`, which is a number or a date (RFC 9110, section 10.2.3); 0 for neither."""
    if after.isdecimal():
        return float(after)
    from email.utils import parsedate_to_datetime  # here, because it makes every import of the client slower

    try:
        return parsedate_to_datetime(after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0


def _lasting(data: Any) -> Any:
    """Returns the data of a message, copied from a buffer, which the application may use again; an iterable itself."""
    return data if isinstance(data, str) else payload_of(data) or data


class _Protocol(ConnectionProtocol):
    __slots__ = ()

    endpoint: "ReconnectingConnection"

    def eof_received(self) -> None:
        self.endpoint._settle()  # the end of the stream closes the transport, which then cannot tell what has left
        super().eof_received()


class ReconnectingConnection(ClientConnection):
    """One connection of `async for ws in connect(...)`.

    `async for message in ws` ends with the connection, for any reason, so that the outer loop continues with the next.

    Attributes:
        unsent: The messages, as (data, opcode), that may not have left this process. After the end of the connection
            they may be lost, although some may have arrived. Messages that have left may be lost too; only an answer of
            the server proves their arrival. With TLS on uvloop, whose transport tells only of a part of what waits,
            messages may be missing here.
        left_over: `unsent` of the previous connection.
    """

    _protocol_type = _Protocol

    def __init__(self, url: str, options: Options) -> None:
        super().__init__(url, options)
        self.unsent: list[tuple[Any, int]] = []
        self.left_over: list[tuple[Any, int]] = []
        self._ends: list[int] = []  # of the messages in `unsent`: `_buffered` once each was in the transport's buffer
        self._buffered = 0  # bytes that have been added to the buffer, except those that left between two checks
        self._waiting = 0  # bytes in the buffer at the last check
        self._next_look: asyncio.Handle | None = None

    def send(self, data: Any, opcode: int = OpCode.TEXT) -> Any:
        protocol = self._open_protocol()
        if protocol.is_elsewhere:
            sending = super().send(data, opcode)
            protocol.loop.call_soon_threadsafe(self._note, _lasting(data), opcode)
            return sending
        if self.unsent:
            self._settle()
        sending = super().send(data, opcode)
        self._note(data, opcode)
        return sending

    def _note(self, data: Any, opcode: int) -> None:
        """Keeps a message that has just been sent, unless it has left."""
        protocol = self._open_protocol()
        if opcode < OpCode.CLOSE and (protocol.is_sending or waiting_bytes(protocol.transport)):
            self.unsent.append((_lasting(data), opcode))
            self._settle()
            if self._next_look is None:
                self._look_soon()

    def _settle(self) -> None:
        """Forgets the messages that have left."""
        protocol = self._open_protocol()
        if discards(protocol.transport):  # it has dropped its data, or may have
            return
        waiting = waiting_bytes(protocol.transport)
        self._buffered += max(waiting - self._waiting, 0)
        self._waiting = waiting
        if not protocol.is_sending:
            self._ends += [self._buffered] * (len(self.unsent) - len(self._ends))
        left = bisect_right(self._ends, self._buffered - waiting)
        del self._ends[:left], self.unsent[:left]

    def _look_soon(self) -> None:
        """Schedules a check for the next pass of the loop, when data gathered within a read has left."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._open_protocol().loop.call_soon(self._look)

    def _look(self) -> None:
        """Checks which messages have left; repeatedly, for no transport tells when its last byte leaves."""
        self._next_look = None
        protocol = self._open_protocol()
        self._settle()
        if self.unsent and not protocol.lost:
            self._next_look = protocol.loop.call_later(_BETWEEN_LOOKS, self._look)

    def _connection_closing(self) -> None:
        super()._connection_closing()
        self._settle()
        if self.unsent:
            self._look_soon()

    def _ends_iteration(self, closed: ConnectionClosed) -> bool:
        return True

    def _connection_lost(self, log: bool) -> None:
        super()._connection_lost(log)
        if self.unsent:
            logger.warning("%s: messages that may not have been sent: %d, see unsent", self.url, len(self.unsent))
