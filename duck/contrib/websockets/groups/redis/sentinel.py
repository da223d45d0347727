"""A Redis server that Sentinels watch: `redis+sentinel://host,host/name` names the server by the name of its master.

    connecting -> the address from a Sentinel -> ROLE -> connected -> broken -> (backoff) -> connecting ...

After a failover Sentinel breaks the connections to the old master, and the next attempt asks for the new one.
"""

import asyncio
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from redis import exceptions
from redis.sentinel import Sentinel

from ...credentials import port_of, split_url, without_password
from ...logging import text_of
from .server import ERRORS, Server, ask, connected

__all__ = ["HINT", "SENTINEL", "SentinelServer", "SentinelUrl"]

SENTINEL = "+sentinel"
HINT = "write redis+sentinel://host:26379,host:26379/name-of-the-master/0"
_PORT = 26379
_CREDENTIALS = ("sentinel_username", "sentinel_password")


class SentinelUrl(NamedTuple):
    """The parts of `redis+sentinel://user:password@host:port,host:port/name/db?option=value`.

    Attributes:
        label: The URL without passwords.
        master: The name of the master.
        sentinels: The addresses of the Sentinels.
        credentials: The redis-py options `username` and `password` for the Sentinels, as far as they are given.
        server: A URL with the options of the server, whose host is a placeholder.
    """

    label: str
    master: str
    sentinels: list[tuple[str, int]]
    credentials: dict[str, str]
    server: str

    @classmethod
    def parse(cls, url: str) -> "SentinelUrl":
        """Parses a URL.

        Raises:
            ValueError: A part is missing or invalid.
        """
        try:
            parts = split_url(url)
            user, at, hosts = parts.netloc.rpartition("@")
            addresses = [split_url(f"//{host}") for host in hosts.split(",")]
            sentinels = [(address.hostname or "", port_of(address) or _PORT) for address in addresses]
        except ValueError as error:
            raise ValueError(f"{without_password(url)!r} is not a URL of Sentinels: {error}; {HINT}") from None
        label = f"{parts.scheme}://{hosts}{parts.path}"
        master, _, number = parts.path.strip("/").partition("/")
        if not master or not all(host for host, _ in sentinels):
            raise ValueError(f"{label} lacks {'a host' if master else 'the name of the master'}: {HINT}")
        if number and not number.isdecimal():
            raise ValueError(f"the number of a database follows the master's name, such as /0: {HINT}")
        query = dict(parse_qsl(parts.query))
        given = {name.removeprefix("sentinel_"): query.pop(name) for name in _CREDENTIALS if name in query}
        scheme = parts.scheme.removesuffix(SENTINEL)
        server = f"{scheme}://{user}{at}sentinel/{number}?{urlencode(query)}"
        return cls(label, master, sentinels, given, server)

    def sync_client(self, options: dict[str, Any]) -> Any:
        """Returns redis-py's client for threads.

        Args:
            options: Those of connections to the master; connections to the Sentinels share those of sockets and TLS.
        """

        def on_connect(connection: Any) -> None:
            connection.on_connect()
            connection.send_command("ROLE", check_health=False)
            _check_role(connection, connection.read_response())

        own = {name: value for name, value in options.items() if name not in ("host", "port")}
        own["redis_connect_func"] = on_connect
        to_sentinels = {name: value for name, value in own.items() if name.startswith(("socket_", "ssl", "retry"))}
        new_sentinels: Any = Sentinel  # has no types
        sentinels = new_sentinels(self.sentinels, sentinel_kwargs=to_sentinels | self.credentials)
        return sentinels.master_for(self.master, **own)


class SentinelServer(Server):
    """The parameters of connections to the current master.

    Args:
        url: The parts of the URL.
        connection_class: A connection class of redis-py.
        options: Its arguments for the master.
        timeout: Seconds that a server may take to answer.
    """

    def __init__(self, url: SentinelUrl, connection_class: Any, options: dict[str, Any], timeout: float) -> None:
        super().__init__(connection_class, options, url.label, timeout)
        self._master = url.master
        others = {name: value for name, value in options.items() if name not in ("db", "username", "password")}
        sentinels = Server(connection_class, others | url.credentials, url.label, timeout)
        self._sentinels = [sentinels.at(*address) for address in url.sentinels]

    async def located(self) -> Server:
        """Asks the Sentinels, one after the other, for the address of the master.

        Raises:
            Exception: One of `ERRORS`: no Sentinel answers, or none knows the master.
        """
        reason = f"no Sentinel knows a master {self._master!r}"
        cause: Exception | None = None
        for sentinel in list(self._sentinels):
            try:
                async with asyncio.timeout(self.timeout / len(self._sentinels)), connected(sentinel) as connection:
                    answer = await ask(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._master)
            except ERRORS as error:
                reason, cause = text_of(error), error
                continue
            if answer:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)  # it is asked first from now on
                host, port = answer
                return self.at(host.decode(), int(port))
        raise ConnectionError(reason) from cause

    async def check(self, connection: Any) -> None:
        """Raises a ConnectionError for a server that is no longer a master, before Sentinel has noticed it, too."""
        await super().check(connection)
        _check_role(connection, await ask(connection, "ROLE"))


def _check_role(connection: Any, answer: list[Any]) -> None:
    """Checks the answer to ROLE."""
    if answer[0] != b"master":  # redis-py closes its connections after errors of its own only
        raise exceptions.ConnectionError(f"{connection.host}:{connection.port} is no longer a master")
