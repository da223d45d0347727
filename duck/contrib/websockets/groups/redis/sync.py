"""Publishing from threads without an event loop, by redis-py's client for threads.

    connecting -> sent -> answered
    no connection, or an answer such as that the server loads its data -> (backoff) -> connecting ... until the timeout

No attempt follows a connection that breaks after the sending, because the command may have been executed.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import BusyLoadingError, ReadOnlyError, RedisClusterException
from redis.retry import Retry

from ...exceptions import BrokerError
from .server import ANSWERS, ERRORS, SURE, Backoff, is_passing, not_sent, refused, uncertain

__all__ = ["SyncPublisher", "sync_options"]

_ABSENCES: tuple[type[Exception], ...] = (*ERRORS, RedisClusterException)  # the latter is no RedisError


def sync_options(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns redis-py's options for the connections to a URL; those given take precedence."""
    parse: Any = parse_url  # has no types
    own: dict[str, Any] = parse(url)
    return own | options


class SyncPublisher:
    """The publishing connections of a process's threads.

    Args:
        new_client: Returns a client of redis-py, a `Redis` or `RedisCluster`, with the given options of connections.
        label: The name of the server for errors.
        timeout: Seconds that a call waits for an absent server, and that the server may take to answer.
        is_cluster: Whether the client is a `RedisCluster`.
    """

    def __init__(
        self, new_client: Callable[[dict[str, Any]], Any], label: str, timeout: float, *, is_cluster: bool
    ) -> None:
        self._new_client = new_client
        self._label = label
        self._timeout = timeout
        self._is_cluster = is_cluster
        self._lock = threading.RLock()  # reentrant, because a signal handler may publish
        self._client: Any = None

    def execute(self, channel: bytes, *command: Any) -> Any:
        """Executes a command that concerns a channel, and returns the server's answer.

        Raises:
            BrokerError: The server does not answer, or the outcome is unknown.
        """
        deadline = time.monotonic() + self._timeout
        backoff = Backoff()
        while True:
            try:
                return self._execute_now(channel, command)
            except BrokerError as error:
                rest = deadline - time.monotonic()
                if rest <= 0 or not error.not_published or not is_passing(error.__cause__):
                    raise
            time.sleep(min(backoff.next(), rest))

    def close(self) -> None:
        """Closes the connections; a later command opens others."""
        with self._lock:
            client, self._client = self._client, None
        if client is None:
            return
        client.close()
        manager = None if self._is_cluster else getattr(client.connection_pool, "sentinel_manager", None)
        if manager is not None:  # redis-py leaves the connections to the Sentinels open
            for sentinel in manager.sentinels:
                sentinel.close()

    def _execute_now(self, channel: bytes, command: tuple[Any, ...]) -> Any:
        with ExitStack() as stack:
            try:
                connected = stack.enter_context(self._connected(channel))
                _check(connected.connection)
            except ANSWERS as error:
                raise refused(self._label, error) from error
            except _ABSENCES as error:
                self._refresh()
                reason = str(error).partition(" : <")[0]  # redis-py lists the Sentinels with all their options
                raise not_sent(self._label, reason) from error
            try:
                return connected.execute_command(*command)
            except ANSWERS as error:
                if isinstance(error, ReadOnlyError):  # the name of the server may lead to another master by now
                    self.close()
                elif is_passing(error):
                    self._refresh()
                raise refused(self._label, error) from error
            except ERRORS as error:
                if isinstance(error.__context__, ReadOnlyError):  # redis-py will ask the Sentinels again
                    raise not_sent(self._label, error) from error
                raise uncertain(self._label, error) from error

    def _connected(self, channel: bytes) -> Any:
        """Returns a client of one connection, which is connected to the server of a channel."""
        client = self._client
        if client is None:
            new = self._new_client(self._options())
            with self._lock:
                client = self._client = self._client or new
            if client is not new:  # another thread was faster
                new.close()
        if self._is_cluster:
            client = client.get_redis_connection(client.get_node_from_key(channel))
        return client.client()

    def _options(self) -> dict[str, Any]:
        """Returns options of redis-py, which override those of the URL."""
        return {
            "protocol": 2,
            "decode_responses": False,
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": SURE,
        }

    def _refresh(self) -> None:
        """Reads the slot map of a cluster again."""
        client = self._client
        if self._is_cluster and client is not None:
            with suppress(Exception):  # the next attempt reports it
                client.nodes_manager.initialize()


def _check(connection: Any) -> None:
    """Raises an error if an idle server has gone, or loads its data, as `Server.check` does."""
    try:
        connection.check_health()  # as redis-py has done for a new connection
    except BusyLoadingError:
        raise
    except ANSWERS:
        pass  # it is there
