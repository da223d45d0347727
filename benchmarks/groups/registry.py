"""The servers that can be compared, and the commands that start them."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..selection import Packaged, select

__all__ = ["SERVERS", "Server", "Wire", "named"]

_HERE = "benchmarks.groups.servers"


@dataclass(frozen=True)
class Wire:
    """The framing of a message on its way.

    Attributes:
        path: Of the handshake.
        greeting: A message that the client sends first; empty for none.
        before: Before the words of a client.
        after: Behind them.
    """

    path: str = "/"
    greeting: str = ""
    before: str = ""
    after: str = ""


_ENGINE_IO = Wire("/socket.io/?EIO=4&transport=websocket", "40", '42["say","', '"]')


@dataclass(frozen=True)
class Server(Packaged):
    """A server that can be measured.

    Attributes:
        name: On the command line and in results.
        title: In tables.
        packages: The required packages.
        target: The application that uvicorn serves; for the embedded server the module of its routes.
        ws: uvicorn's `--ws`; empty for the embedded server.
        wire: The envelope of a message.
        environment: Variables added to its environment.
        in_order: Whether members get the messages of a publisher in order.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    target: str
    ws: str = "auto"
    wire: Wire = Wire()
    environment: Mapping[str, str] = field(default_factory=dict)
    in_order: bool = True

    def command(self, port: int) -> list[str]:
        """Returns the command that starts a process of it."""
        if not self.ws:
            words = ["duck", "serve", self.target, "--port", str(port), "--loop", "uvloop"]
        else:
            words = ["uvicorn", self.target, "--port", str(port), "--ws", self.ws, "--lifespan", "off"]
            # By default uvicorn puts the checkout, whose codec may not be built, before the installed packages.
            words += ["--loop", "uvloop", "--http", "httptools", "--app-dir", str(Path(__file__).parent)]
        return [sys.executable, "-m", "benchmarks.module", *words, "--log-level", "warning"]


_DUCK = {"DUCK_REQUIRE_SPEEDUPS": "1"} if importlib.util.find_spec("duck.contrib.websockets._speedups") else {}
_UVICORN = ("uvicorn", "httptools", "uvloop")

SERVERS = (
    Server("duck", "duck", ("uvloop", "redis"), f"{_HERE}.duck", "", environment=_DUCK),
    Server(
        "uvicorn-duck",
        "duck under uvicorn",
        (*_UVICORN, "redis"),
        f"{_HERE}.duck:asgi",
        "duck.contrib.websockets.uvicorn:WebSocketProtocol",
        environment=_DUCK,
    ),
    *(
        Server(
            f"channels-{name}",
            f"channels_redis, {name}",
            (*_UVICORN, "channels", "channels_redis", "websockets"),
            f"{_HERE}.channels:app",
            environment={"CHANNEL_LAYER": f"channels_redis.{layer}"},
        )
        for name, layer in (("core", "core.RedisChannelLayer"), ("pubsub", "pubsub.RedisPubSubChannelLayer"))
    ),
    Server(
        "socketio",
        "python-socketio",
        (*_UVICORN, "python-socketio", "redis", "websockets"),
        f"{_HERE}.socketio:app",
        wire=_ENGINE_IO,
        in_order=False,  # it handles events, and sends messages, in tasks that overtake each other
    ),
)


def named(names: str | None) -> list[Server]:
    """Servers by their names, in that order; all of them for None.

    Raises:
        ValueError: There is no such server.
    """
    return select(names or "all", SERVERS, "server")
