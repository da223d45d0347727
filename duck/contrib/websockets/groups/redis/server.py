"""A Redis server: the parameters of its connections, its errors, and the pauses between attempts to connect."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from ...exceptions import BrokerError
from ...protocol.transports import abort_transport

__all__ = [
    "ANSWERS",
    "ERRORS",
    "SURE",
    "Backoff",
    "Server",
    "ask",
    "check_open",
    "connected",
    "execute_last",
    "has_moved",
    "is_forbidden",
    "is_passing",
    "not_sent",
    "refused",
    "refused_channel",
    "uncertain",
]

ERRORS: tuple[type[Exception], ...] = (RedisError, OSError, EOFError)
"""The errors of a redis-py connection whose server is unavailable, fails or refuses."""

ANSWERS: tuple[type[Exception], ...] = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)
"""The errors among them that are a server's answer to a command, which it has not executed."""

SURE = 1  # seconds for which an idle connection is assumed to be alive

_LEAST_DELAY, _MOST_DELAY = 0.05, 1.5  # seconds between two attempts to connect
_LAST = 1.0  # seconds for the last commands of a loop, and for the end of a connection
_MOVED = ("MovedError", "AskError", "TryAgainError", "ClusterDownError", "MasterDownError")  # by names in redis-py
_MOVED_CODES = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN")  # of which redis-py 5.2 makes a ResponseError


class Server:
    """The parameters of a connection to one server.

    Args:
        connection_class: A connection class of redis-py.
        options: Its arguments.
        label: The name for log lines.
        timeout: Seconds that the server may take to answer.
    """

    def __init__(self, connection_class: Any, options: dict[str, Any], label: str, timeout: float) -> None:
        self._class = connection_class
        self._options = options
        self.label = label
        self.timeout = timeout

    async def located(self) -> "Server":
        """Returns the server to connect to at present."""
        return self

    async def check(self, connection: Any) -> None:
        """Raises a ConnectionError if the server of a new connection cannot serve yet, or is not the expected one.

        A server that loads its data refuses most commands. It counts as unavailable, so that messages wait for it.
        """
        try:
            await ask(connection, "PING")
        except BusyLoadingError:
            raise
        except ANSWERS:
            pass  # it is there; its answers to other commands give the reason of the refusal

    def new_connection(self) -> Any:
        """Returns an unconnected connection of redis-py."""
        return self._class(**self._options)

    def at(self, host: str, port: int) -> "Server":
        """Returns the same parameters for another address."""
        return Server(self._class, self._options | {"host": host, "port": port}, f"{host}:{port}", self.timeout)


def has_moved(answer: Exception) -> bool:
    """Whether an answer says that another node of the cluster serves the channel now, or will soon."""
    return type(answer).__name__ in _MOVED or str(answer).partition(" ")[0] in _MOVED_CODES


def is_passing(error: BaseException | None) -> bool:
    """Whether another attempt may succeed soon, after an error by which a command has not been executed."""
    return not isinstance(error, ANSWERS) or isinstance(error, BusyLoadingError) or has_moved(error)


def is_forbidden(answer: Exception) -> bool:
    """Whether an answer says that the user has no right to a channel, although it may subscribe to others."""
    return isinstance(answer, NoPermissionError) and "channel" in str(answer)


def refused_channel(label: str, channel: bytes, answer: Exception) -> BrokerError:
    """The error for a subscription that a server has refused."""
    error = BrokerError(f"Redis at {label} has refused the subscription to {channel!r}: {answer}")
    error.__cause__ = answer
    return error


def refused(label: str, answer: Exception) -> BrokerError:
    """The error for a command that a server has refused."""
    error = BrokerError(f"Redis at {label} has refused a message: {answer}", not_published=True)
    error.__cause__ = answer
    return error


def not_sent(label: str, reason: object) -> BrokerError:
    """The error for a message that has not been sent to a server."""
    return BrokerError(f"a message was not sent to Redis at {label}: {reason}", not_published=True)


def uncertain(label: str, reason: object) -> BrokerError:
    """The error for a message that has been sent, but is not confirmed."""
    return BrokerError(f"a message may or may not have reached Redis at {label}: {reason}")


class Backoff:
    """Seconds to wait between attempts: doubled each time up to a limit, with a random part."""

    def __init__(self) -> None:
        self._delay = _LEAST_DELAY

    def next(self) -> float:
        """Returns the seconds before the next attempt."""
        delay, self._delay = self._delay, min(2 * self._delay, _MOST_DELAY)
        return delay * random.uniform(0.5, 1.0)


def check_open(connection: Any) -> None:
    """Raises a ConnectionError if a connection has ended. A write to it would raise other errors, or go nowhere."""
    reader, writer = connection._reader, connection._writer
    if writer is None or writer.transport.is_closing() or reader.at_eof() or reader.exception() is not None:
        raise ConnectionError("the connection has been closed")


async def ask(connection: Any, *words: str) -> Any:
    """Sends a command, and returns the answer; raises an answer that is an error."""
    await connection.send_packed_command(connection.pack_command(*words), check_health=False)
    return await connection.read_response(disable_decoding=True, disconnect_on_error=False)


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Any]:
    """Yields a connected redis-py connection, and closes it at the end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + server.timeout
    async with asyncio.timeout_at(deadline):
        connection = (await server.located()).new_connection()
    writers: list[Any] = []  # redis-py does not wait for the end of the writer of a failed connection
    connect = connection._connect

    async def connect_and_note() -> None:  # in place of redis_connect_func, of whose call Python 3.14 warns
        await connect()
        writers.append(connection._writer)

    connection._connect = connect_and_note
    try:
        async with asyncio.timeout_at(deadline):
            await connection.connect()
            await server.check(connection)
        yield connection
    except GeneratorExit:  # a garbage collection, in any thread, frees groups without a `close`: nothing can wait
        for writer in writers:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(abort_transport, writer.transport)
        raise
    except BaseException:
        await _disconnect(connection, writers)
        raise
    else:
        await _disconnect(connection, writers)


async def _disconnect(connection: Any, writers: Sequence[Any]) -> None:
    """Closes a connection, and aborts it if the server does not take part.

    The last bytes leave only if the server reads, and the end of TLS takes an answer of the server. A loop that is
    closed before would leave the connection open.
    """
    try:
        with suppress(*ERRORS):
            async with asyncio.timeout(_LAST):
                await connection.disconnect()
                for writer in writers:
                    await writer.wait_closed()
    finally:
        for writer in writers:
            abort_transport(writer.transport)


async def execute_last(server: Server, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Executes commands on a connection of their own, at the end of a loop, which has cancelled the publisher's task.

    Returns:
        The server's answers.

    Raises:
        Exception: One of `ERRORS`: the server does not answer, or refuses a command.
    """
    async with asyncio.timeout(min(server.timeout, _LAST)), connected(server) as connection:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        return [await connection.read_response(disable_decoding=True) for _ in commands]
