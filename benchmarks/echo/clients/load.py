"""The work of every client, and the figures that it reports."""

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_SIZE", "Load"]

MAX_SIZE = 16 * 1024 * 1024


@dataclass(slots=True)  # its attributes cost the clients less
class Load:
    """One run of a client.

    Attributes:
        url: The server's.
        variant: The client of a module that has several.
        depth: Messages in flight.
        size: Bytes of a message.
        warmup: Seconds before the measurement.
        seconds: Seconds of the measurement.
        payload: The message to send.
        count: Echoes, received messages, or connects so far.
        running: False once the client is to end.
    """

    url: str
    variant: str
    depth: int
    size: int
    warmup: float
    seconds: float
    payload: bytes = b""
    count: int = 0
    running: bool = True
    _at_begin: tuple[float, float, int] = (0.0, 0.0, 0)
    _report: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Makes the payload. The measurement begins after the warm-up; a message precedes its begin, and its end."""
        self.payload = os.urandom(self.size)
        asyncio.get_running_loop().call_later(self.warmup, self._begin)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if not self.count:
            loop.call_later(0.01, self._begin)
            return
        loop.call_later(self.seconds, self._end)
        self._at_begin = time.perf_counter(), time.process_time(), self.count
        print("{}", flush=True)

    def _end(self) -> None:
        began, used, count = self._at_begin
        if self.count == count:
            asyncio.get_running_loop().call_later(0.01, self._end)
            return
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        self._report = {"seconds": seconds, "cpu": cpu, "count": self.count - count}
        self.running = False

    def report(self) -> None:
        """Prints the figures."""
        print(json.dumps(self._report), flush=True)

    def wrong(self) -> None:
        """Ends the run, because an echo differs from its message."""
        raise SystemExit("a message came that is no echo")
