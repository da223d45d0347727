"""The publishing connection to a Redis server. Commands of one pass of the loop are sent in one pipeline."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import exceptions

from ...exceptions import BrokerError
from ...logging import text_of
from .server import (
    ANSWERS,
    ERRORS,
    SURE,
    Backoff,
    Server,
    check_open,
    connected,
    execute_last,
    has_moved,
    not_sent,
    refused,
    uncertain,
)

__all__ = ["Command", "Publisher", "answer_to", "check_size"]

_COST = 128  # bytes that a message counts in addition to its payload
_BATCH = 1048576  # bytes of the largest pipeline


class Command:
    """A command that waits for a connection, or for its answer.

    Args:
        channel: The channel that it concerns.
        words: The command and its arguments.

    Attributes:
        answer: The answer of the server, or a BrokerError.
        has_left: Whether it has been taken into a pipeline, so that its outcome is unknown until it is answered.
        publisher: The publisher that has it; None while it waits for the node of its channel.
        size: The bytes that it counts in a queue.
    """

    __slots__ = ("answer", "channel", "has_left", "publisher", "size", "words")

    def __init__(self, channel: bytes, words: tuple[Any, ...]) -> None:
        self.channel = channel
        self.words = words
        self.size = sum(len(word) for word in words if isinstance(word, (bytes, str))) + _COST
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.has_left = False
        self.publisher: Publisher | None = None

    def fail(self, error: BrokerError) -> None:
        """Sets the error, unless the command has an answer, or its caller has given up."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # retrieved: its caller may have given up


class Publisher:
    """The publishing connection. Messages published while a pipeline is under way leave with the next one.

    A message in a pipeline whose connection broke may or may not have been published; it is not published again. A
    message that has not left waits up to `timeout` seconds for the server.

    Args:
        server: The server to connect to.
        moved: Called with commands that have not been executed, because another node of the cluster serves their
            channels now, or will soon: the refused ones, then those of the same channels that were behind them. None
            without a cluster.

    Attributes:
        QUEUE_LIMIT: Bytes of one loop's messages that may wait to be published.
        error: The error by which the server is absent.
        server: The server.
    """

    QUEUE_LIMIT = 16777216

    def __init__(self, server: Server, moved: Callable[[list[Command]], None] | None = None) -> None:
        self.server = server
        self._on_moved = moved
        self._queue: deque[Command] = deque()
        self._size = 0  # bytes of the queue
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error: Exception | None = None
        self._returned = asyncio.Event()
        self._is_closed = False

    def retry(self) -> None:
        """Ends the pause before the next attempt to connect, because the server is available again."""
        self._returned.set()

    async def execute(self, channel: bytes, *words: Any) -> Any:
        """Executes a command that concerns a channel, and returns the server's answer.

        Raises:
            BrokerError: The server does not answer, or the outcome is unknown.
        """
        if self.is_at_the_end():
            return await self.execute_alone(words)
        command = Command(channel, words)
        self.put(command)
        return await answer_to(command, self.server)

    def is_at_the_end(self) -> bool:
        """Whether the loop ends, which has cancelled the task of the connection, and the present one."""
        task = self._task
        return task is not None and (task.done() or task.cancelling() > 0) and _is_being_cancelled()

    def is_idle(self) -> bool:
        """Whether no command waits, or is under way."""
        return not self._wake.is_set()

    def put(self, command: Command) -> None:
        """Queues a command.

        Raises:
            BrokerError: The publisher is closed, or the queue is full.
        """
        label = self.server.label
        if self._is_closed:
            raise not_sent(label, "the groups have been closed")
        check_size(label, self._size, command)
        self._queue.append(command)
        self._size += command.size
        command.publisher = self
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def execute_alone(self, words: tuple[Any, ...]) -> Any:
        """Executes a command of a `finally` at the end of the loop, which has ended our task, and ends later ones."""
        try:
            (answer,) = await execute_last(self.server, [words])
            return answer
        except ANSWERS as error:
            raise refused(self.server.label, error) from error
        except ERRORS as error:
            raise uncertain(self.server.label, text_of(error)) from error

    async def close(self) -> None:
        """Closes the connection. Commands that wait get a BrokerError."""
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
                    async with connected(self.server) as connection:
                        self.error = None
                        backoff = Backoff()
                        while True:
                            await self._publish_all(connection)
                            await self._until_wanted(connection)
                except ERRORS as error:
                    self.error = error
                    self._drop_given_up()
                    self._returned.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(backoff.next()):
                            await self._returned.wait()
        finally:
            self._fail_all()

    def _fail_all(self) -> None:
        for command in self._queue:
            command.fail(not_sent(self.server.label, "the connection has been closed"))
        self._queue.clear()
        self._size = 0

    async def _until_wanted(self, connection: Any) -> None:
        """Waits for a message, then checks that the idle connection is still alive."""
        self._wake.clear()
        try:
            async with asyncio.timeout(SURE):
                await self._wake.wait()
        except TimeoutError:
            await self._wake.wait()
            async with asyncio.timeout(self.server.timeout):
                check_open(connection)
                await self.server.check(connection)

    async def _publish_all(self, connection: Any) -> None:
        while self._queue:
            check_open(connection)
            commands: list[Command] = []
            size = 0
            while self._queue and size < _BATCH:
                command = self._queue.popleft()
                self._size -= command.size
                if not command.answer.done():  # its caller may have given up
                    command.has_left = True
                    commands.append(command)
                    size += command.size
            if not commands:
                continue
            try:
                async with asyncio.timeout(self.server.timeout):
                    await self._pipeline(connection, commands)
            except BaseException as error:
                for command in commands:
                    if command.has_left:
                        command.fail(uncertain(self.server.label, text_of(error)))
                raise

    async def _pipeline(self, connection: Any, commands: list[Command]) -> None:
        """Sends commands, and takes their answers."""
        words = [command.words for command in commands]
        await connection.send_packed_command(connection.pack_commands(words), check_health=False)
        moved: list[Command] = []
        demoted: Exception | None = None
        try:
            for command in commands:
                try:
                    answer = await connection.read_response(disable_decoding=True, disconnect_on_error=False)
                except ANSWERS as error:
                    if self._on_moved is not None and has_moved(error):
                        moved.append(command)
                        continue
                    # A connection without a password is refused each of its commands.
                    for one in commands if isinstance(error, exceptions.AuthenticationError) else [command]:
                        one.fail(refused(self.server.label, error))
                    if isinstance(error, exceptions.ConnectionError):  # redis-py has discarded the other answers
                        raise
                    if isinstance(error, exceptions.ReadOnlyError):
                        demoted = error
                else:
                    if not command.answer.done():
                        command.answer.set_result(answer)
        finally:
            if moved:
                self._hand_back(moved)
        if demoted is not None:  # the name of the server may lead to another master by now
            raise demoted

    def _hand_back(self, moved: list[Command]) -> None:
        """Gives moved commands away, with those behind them, so that they keep their order."""
        assert self._on_moved is not None
        channels = {command.channel for command in moved}
        queue, self._queue = self._queue, deque()
        for command in queue:
            if command.channel in channels:
                self._size -= command.size
                moved.append(command)
            else:
                self._queue.append(command)
        for command in moved:
            command.has_left = False
            command.publisher = None
        self._on_moved(moved)

    def _drop_given_up(self) -> None:
        self._queue = deque(command for command in self._queue if not command.answer.done())
        self._size = sum(command.size for command in self._queue)
        if not self._queue:
            self._wake.clear()


def check_size(label: str, size: int, command: Command) -> None:
    """Raises a BrokerError if a command would make a queue of `size` bytes too large."""
    if size and size + command.size > Publisher.QUEUE_LIMIT:
        raise not_sent(label, f"{size} bytes wait for it; publish less, or try again later")


async def answer_to(command: Command, server: Server, error: Callable[[], Exception | None] = lambda: None) -> Any:
    """Waits for the answer to a command, up to the timeout of the server.

    Args:
        command: The command.
        server: The server, or a node of the cluster.
        error: Returns the error by which a command without a publisher waits.

    Raises:
        BrokerError: The server does not answer, or the outcome is unknown.
    """
    try:
        async with asyncio.timeout(server.timeout):
            return await command.answer
    except TimeoutError:
        # One that has not left is skipped from now on, because its future is cancelled.
        publisher = command.publisher
        cause = error() if publisher is None else publisher.error
        if isinstance(cause, BrokerError):  # the cluster has no node for the command
            raise BrokerError(str(cause), not_published=True) from cause
        label = server.label if publisher is None else publisher.server.label
        reason = str(cause or "") or f"no answer in {server.timeout} s"  # a TimeoutError has no text
        raise (uncertain if command.has_left else not_sent)(label, reason) from cause


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
