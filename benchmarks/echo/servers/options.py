"""The options of every server, and the event loop that it runs on."""

import asyncio
import importlib
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

__all__ = ["BACKLOG", "HEARTBEAT", "HOST", "MAX_SIZE", "Options"]

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

HOST = "127.0.0.1"
BACKLOG = 4096
MAX_SIZE = 16 * 1024 * 1024

HEARTBEAT = 20
"""Seconds between pings, where a server has to be told to send any."""


@dataclass(frozen=True)
class Options:
    """The options of a server.

    Attributes:
        port: The port to listen on.
        loop: "asyncio", "uvloop", or "aiofastnet" for its transports on uvloop.
        variant: The server of a module that has several.
        heartbeat: Whether idle connections must be pinged; a server whose default that is may do so anyway.
        deflate: Whether messages are compressed, with each server's own settings.
        certfile: The certificate for TLS; None for none.
        keyfile: Its key.
    """

    port: int
    loop: str = "uvloop"
    variant: str = ""
    heartbeat: bool = False
    deflate: bool = False
    certfile: str | None = None
    keyfile: str | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """For servers that take a context."""
        if self.certfile is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certfile, self.keyfile)
        return context

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        """Runs a server that is a coroutine, on the loop that was asked for."""
        with asyncio.Runner(loop_factory=_loop_factory(self.loop)) as runner:
            runner.run(main)


def _loop_factory(name: str) -> LoopFactory:
    if name == "asyncio":
        return asyncio.new_event_loop
    uvloop: Any = importlib.import_module("uvloop")
    factory: LoopFactory = uvloop.new_event_loop
    if name == "aiofastnet":
        aiofastnet: Any = importlib.import_module("aiofastnet")
        factory = aiofastnet.loop_factory(factory)
    return factory
