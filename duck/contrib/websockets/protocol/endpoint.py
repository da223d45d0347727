"""What a connection needs to know of the endpoint that it serves: a view, or the session of an ASGI application."""

from typing import Protocol

__all__ = ["Endpoint", "Settings"]


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
