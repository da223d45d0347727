"""What a connection needs of the endpoint that it serves (a view, or the session of an ASGI application), and of what
takes its messages."""

from collections.abc import Awaitable, Callable, Collection, Sized
from typing import Any, Protocol

__all__ = ["Consumer", "Endpoint", "Settings"]


class Settings(Protocol):
    """The settings of one connection, which `WebSocketView` documents; they are read whenever they are needed."""

    @property
    def MAX_FRAME_SIZE(self) -> int | None: ...
    @property
    def MAX_CONCURRENT_MESSAGES(self) -> int: ...
    @property
    def MAX_WAITING_MESSAGES(self) -> int: ...
    @property
    def MAX_WAITING_BYTES(self) -> int: ...
    @property
    def PING_INTERVAL(self) -> float | None: ...
    @property
    def PONG_TIMEOUT(self) -> float | None: ...
    @property
    def MAX_BACKOFF(self) -> float: ...
    @property
    def RECEIVE_TIMEOUT(self) -> float | None: ...
    @property
    def CLOSE_TIMEOUT(self) -> float: ...
    @property
    def RATE_LIMIT(self) -> float | None: ...
    @property
    def WRITE_LIMIT(self) -> int: ...
    @property
    def SLOW_CONSUMER(self) -> str: ...


class Endpoint(Settings, Protocol):
    """The settings, a label for log lines, and two notifications.

    The names have an underscore because all others in a view are its author's.
    """

    @property
    def _label(self) -> str:
        """The path of the connection, for log lines."""
        raise NotImplementedError

    def _connection_closing(self) -> None:
        """A close frame has left. No more messages will be handled."""

    def _connection_lost(self, log: bool) -> None:
        """The transport is gone, and every message has been handed to its handler.

        Args:
            log: Whether the end is to be logged.
        """


class Consumer(Protocol):
    """What takes the messages of a connection: a `codec.Dispatcher` for handlers, or an `Inbox` for who asks for them.

    Attributes:
        inbox: Messages that wait for a handler.
        workers: Tasks of handlers that wait.
        decoding: Whether a thread decodes the next message.
        full: Whether so much waits that reading is on hold.
    """

    @property
    def inbox(self) -> Sized: ...
    @property
    def workers(self) -> Collection[Any]: ...
    @property
    def decoding(self) -> bool: ...
    @property
    def full(self) -> bool: ...
    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Calls a hook, if there is one, then lets messages through."""

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Takes over a list of messages; called from a callback of the loop, while no task is running."""

    def stop(self) -> int:
        """Starts no handler any more; how many messages have been dropped."""
        raise NotImplementedError

    def forget(self) -> None:
        """Lets the connection go, which is over."""
