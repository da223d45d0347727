"""The publishing connection to a Redis server. Commands of one pass of the loop are sent in one pipeline."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from ..exceptions import BrokerError
from .redis_server import (
    SURE,
    Backoff,
    Server,
    answers,
    connected,
    errors,
    execute_last,
    has_moved,
    not_sent,
    refused,
    uncertain,
)

__all__ = ["Moved", "Publisher"]

_COST = 128  # bytes that a message counts in addition to its payload
_BATCH = 1048576  # bytes of the largest pipeline


class Moved(BrokerError):
    """Another node of the cluster serves the channel now, or will soon; the command has not been executed."""


class _Command:
    """A command in the queue.

    Attributes:
        has_left: Whether it has been taken into a pipeline, so that its outcome is unknown until it is answered.
    """

    __slots__ = ("answer", "has_left", "size", "words")

    def __init__(self, words: tuple[Any, ...], size: int, answer: "asyncio.Future[Any]") -> None:
        self.words = words
        self.size = size
        self.answer = answer
        self.has_left = False


class Publisher:
    """The publishing connection. Messages published while a pipeline is under way leave with the next one.

    A message in a pipeline whose connection broke may or may not have been published; it is not published again. A
    message that has not left waits up to `timeout` seconds for the server.

    Attributes:
        QUEUE_LIMIT: Bytes of one loop's messages that may wait to be published.
    """

    QUEUE_LIMIT = 16777216

    def __init__(self, server: Server) -> None:
        self._server = server
        self._queue: deque[_Command] = deque()
        self._size = 0  # bytes of the queue
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None  # of the absent server
        self._returned = asyncio.Event()
        self._is_closed = False

    def retry(self) -> None:
        """Ends the pause before the next attempt to connect, because the server is available again."""
        self._returned.set()

    async def execute(self, *command: Any, deadline: float | None = None) -> Any:
        """Executes a command, and returns the server's answer.

        Args:
            deadline: The time of the loop until which to wait; None for the server's timeout.

        Raises:
            BrokerError: The server does not answer, or the outcome is unknown.
        """
        size = sum(len(word) for word in command if isinstance(word, (bytes, str))) + _COST
        label = self._server.label
        if self._is_closed:
            raise not_sent(label, "the groups have been closed")
        if self._queue and self._size + size > self.QUEUE_LIMIT:
            raise not_sent(label, f"{self._size} bytes wait for it; publish less, or try again later")
        task = self._task
        if task is not None and (task.done() or task.cancelling()) and _is_being_cancelled():
            return await self._execute_alone(command)
        loop = asyncio.get_running_loop()
        if deadline is None:
            deadline = loop.time() + self._server.timeout
        entry = _Command(command, size, loop.create_future())
        self._queue.append(entry)
        self._size += size
        self._wake.set()
        if task is None or task.done():
            self._task = loop.create_task(self._run())
        try:
            async with asyncio.timeout_at(deadline):
                return await entry.answer
        except TimeoutError:
            reason = self._error or f"no answer in {self._server.timeout} s"
            # One that has not left is skipped from now on, because its future is cancelled.
            raise (uncertain if entry.has_left else not_sent)(label, reason) from self._error

    async def _execute_alone(self, command: tuple[Any, ...]) -> Any:
        """Executes a command of a `finally` at the end of the loop, which has ended our task, and ends later ones."""
        try:
            (answer,) = await execute_last(self._server, [command])
            return answer
        except answers() as error:
            raise refused(self._server.label, error) from error
        except errors() as error:
            raise uncertain(self._server.label, str(error) or type(error).__name__) from error

    async def close(self) -> None:
        self._is_closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._fail_all()  # here too, because a task that has not begun ends without its `finally`

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while True:
                await self._wake.wait()
                try:
                    async with connected(self._server) as connection:
                        self._error = None
                        backoff = Backoff()
                        while True:
                            await self._publish_all(connection)
                            await self._until_wanted(connection)
                except errors() as error:
                    self._error = error
                    self._drop_given_up()
                    self._returned.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(backoff.next()):
                            await self._returned.wait()
        finally:
            self._fail_all()

    def _fail_all(self) -> None:
        for entry in self._queue:
            _settle_with(entry.answer, not_sent(self._server.label, "the connection has been closed"))
        self._queue.clear()
        self._size = 0

    async def _until_wanted(self, connection: Any) -> None:
        """Waits for a message, then checks that the idle connection is still alive."""
        self._wake.clear()
        try:
            async with asyncio.timeout(SURE):
                await self._wake.wait()
            is_sure = not connection._reader.at_eof()
        except TimeoutError:
            await self._wake.wait()
            is_sure = False
        if not is_sure:
            async with asyncio.timeout(self._server.timeout):
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
                await connection.read_response(disable_decoding=True)

    async def _publish_all(self, connection: Any) -> None:
        while self._queue:
            commands: list[tuple[Any, ...]] = []
            futures = []
            size = 0
            while self._queue and size < _BATCH:
                entry = self._queue.popleft()
                self._size -= entry.size
                if not entry.answer.done():  # its publisher may have given up
                    entry.has_left = True
                    commands.append(entry.words)
                    futures.append(entry.answer)
                    size += entry.size
            if not commands:
                continue
            try:
                async with asyncio.timeout(self._server.timeout):
                    await self._pipeline(connection, commands, futures)
            except BaseException as error:
                for future in futures:
                    _settle_with(future, uncertain(self._server.label, str(error) or type(error).__name__))
                raise

    async def _pipeline(self, connection: Any, commands: list[Any], futures: "list[asyncio.Future[Any]]") -> None:
        from redis.exceptions import AuthenticationError, ConnectionError, ReadOnlyError

        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        demoted: Exception | None = None
        for future in futures:
            try:
                answer = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
            except answers() as error:
                if has_moved(error):
                    _settle_with(future, Moved(f"{self._server.label}: {error}", not_published=True))
                    continue
                # A connection without a password is refused each of its commands.
                for one in futures if isinstance(error, AuthenticationError) else [future]:
                    _settle_with(one, refused(self._server.label, error))
                if isinstance(error, ConnectionError):  # redis-py has discarded the other answers
                    raise
                if isinstance(error, ReadOnlyError):
                    demoted = error
            else:
                if not future.done():
                    future.set_result(answer)
        if demoted is not None:  # the name of the server may lead to another master by now
            raise demoted

    def _drop_given_up(self) -> None:
        self._queue = deque(entry for entry in self._queue if not entry.answer.done())
        self._size = sum(entry.size for entry in self._queue)
        if not self._queue:
            self._wake.clear()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _settle_with(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieved: its publisher may have given up
