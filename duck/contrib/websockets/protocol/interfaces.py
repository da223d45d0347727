"""The interfaces that a connection uses: its endpoint (a view, a client or an ASGI session), and its consumer."""

from collections.abc import Awaitable, Callable, Collection, Sized
from typing import Any, Protocol

from ..codec import Counters

__all__ = ["Consumer", "Endpoint", "Settings"]


class Settings(Protocol):
    """The settings of one connection; see `WebSocketView`. Each is read at every use."""

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
    """The settings, a label for log lines, counters, a fact about the host, and two notifications.

    The names have an underscore because all names without one in a view belong to its author.
    """

    @property
    def _label(self) -> str:
        """The path of the connection, for log lines."""
        raise NotImplementedError

    @property
    def _counters(self) -> Counters | None:
        """The counters of the connection; None for no counting."""
        raise NotImplementedError

    @property
    def _host_detects_loss(self) -> bool:
        """Whether the host detects that the peer is lost, so that the heartbeat does nothing."""
        raise NotImplementedError

    def _connection_closing(self) -> None:
        """Called when a close frame has left. No more messages will be handled."""

    def _connection_lost(self, log: bool) -> None:
        """Called when the transport is lost, and every message has been passed to its handler.

        Args:
            log: Whether to log the end.
        """


class Consumer(Protocol):
    """The consumer of a connection's messages.

    It is a `codec.Dispatcher` for handlers, or an `Inbox` or a `StreamQueue` for tasks that receive.

    Attributes:
        waiting: Messages that wait for a handler.
        workers: Tasks of handlers that wait.
        decoding: Whether a thread is decoding the next message.
    """

    @property
    def waiting(self) -> Sized: ...
    @property
    def workers(self) -> Collection[Any]: ...
    @property
    def decoding(self) -> bool: ...
    def open(self, on_open: Callable[[], Awaitable[None]] | None) -> None:
        """Calls the hook, if there is one, then starts the delivery."""

    def deliver(self, messages: list[tuple[int, bytes]]) -> None:
        """Accepts a list of messages; called from a callback of the loop, while no task is running."""

    def stop(self) -> int:
        """Stops starting handlers; returns the number of dropped messages."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drops the reference to the connection, which has ended."""
