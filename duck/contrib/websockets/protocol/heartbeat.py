"""The heartbeat of a connection: pings, and the closing of a connection whose peer stays silent.

    QUIET -- PING_INTERVAL ------------------------> PINGED
    PINGED -- a sign of life ----------------------> ANSWERED
    ANSWERED -- at the next check -----------------> QUIET
    PINGED -- PONG_TIMEOUT: a miss ----------------> QUIET, and the next ping follows the backoff

Any received byte is a sign of life. If 64 KiB or more wait for the peer, its reading of them is one too, because a ping
waits behind those bytes. If the application does not read, and the peer has filled the receive buffer, it counts as
alive. The third consecutive miss, or RECEIVE_TIMEOUT seconds without a byte, ends the connection.
A sign of life after a miss ends the backoff at the next check.
If PONG_TIMEOUT is None, there are no misses.

All connections of a loop share a clock, and a received message only sets a flag. Therefore the time of the last byte is
known only as the time of the check that found the flag set. A check in every tenth of RECEIVE_TIMEOUT bounds the error:
a silent connection ends after 1.0 to 1.1 times RECEIVE_TIMEOUT, never earlier.

An application may measure round trips itself. Its pings have times as payloads, too, and are independent of the watch.
"""

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from ..codec import Clock, Counters
from ..opcodes import CloseCode
from .interfaces import Endpoint

__all__ = ["Heartbeat"]

_WAKES = 10  # checks in one RECEIVE_TIMEOUT
_NEVER = float("inf")


class _Watch(enum.Enum):
    """The state of the last ping."""

    QUIET = enum.auto()  # no answer is expected; the next ping is due later
    PINGED = enum.auto()  # a sign of life is expected
    ANSWERED = enum.auto()  # the peer has shown one


_QUIET = _Watch.QUIET  # a look-up in the class takes several times as long


class Owner(Protocol):
    """The connection whose peer is watched."""

    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def is_receive_buffer_full(self) -> bool: ...
    @property
    def counters(self) -> Counters | None: ...
    def take_sign_of_life(self) -> bool: ...
    def ping(self, payload: bytes) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def hook_failed(self, error: BaseException) -> None: ...


class Heartbeat:
    """The heartbeat of one connection, with the times of its endpoint's settings.

    Attributes:
        MISSES: Consecutive unanswered pings that end the connection.
        CODE: The close code of that end.
        REASON: The close reason of that end.
        LATE: Seconds of timer delay that indicate a busy loop, in which a pong may wait unread.
        has_given_up: Whether it has closed the connection.
        latency: Round-trip time in seconds of the last answered ping; None before the first pong.
        awaited_pings: The application's pings without a pong, the oldest first: outcomes by the times in the payloads.
    """

    MISSES = 3
    CODE = CloseCode.GOING_AWAY
    REASON = "no pong"
    LATE = 1.0

    __slots__ = (
        "_clock",
        "_due",
        "_loop",
        "_misses",
        "_owner",
        "_pinged",
        "_sent",
        "_silent_since",
        "_tick",
        "_watch",
        "awaited_pings",
        "has_given_up",
        "latency",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._owner = owner
        self._loop = loop
        self._clock = clock
        self._tick = 0  # the last one at which the clock was to wake this object; 0 for none
        self._due = 0.0  # the time of the next step; 0 while it is stopped
        self._watch = _QUIET
        self._misses = 0
        self._pinged = 0.0  # time of the last ping; of the start before the first
        # The payload of a ping without a pong: its time in nanoseconds, because uvloop's clock counts milliseconds.
        self._sent: int | None = None
        self._silent_since = 0.0
        self.awaited_pings: dict[int, asyncio.Future[float]] | None = None
        self.latency: float | None = None
        self.has_given_up = False

    def start(self) -> None:
        """Starts the checks, unless they are left to the host."""
        if self._owner.endpoint._host_detects_loss:
            return
        now = self._silent_since = self._pinged = self._loop.time()
        self._wait(now, self._owner.endpoint.PING_INTERVAL or _NEVER)

    def renew(self) -> None:
        """Applies changed settings: the next ping is due PING_INTERVAL after the last."""
        if not self._due:
            return  # not started, or stopped
        now, due = self._loop.time(), self._due
        if self._watch is _QUIET:
            due = self._pinged + (self._owner.endpoint.PING_INTERVAL or _NEVER)
        self.stop()
        self._wait(now, max(due - now, 0))

    def stop(self) -> None:
        """Stops the checks."""
        self._due = 0.0
        if self._tick:
            self._clock.drop(self._tick, self)
            self._tick = 0

    def forget(self) -> None:
        """Drops the reference to the connection."""
        del self._owner

    def pong(self, payload: bytes) -> None:
        """Handles a pong; one that answers the last ping, or one of the application, gives the latency."""
        now = time.perf_counter_ns()
        if self.awaited_pings:
            self._answer(payload, self.awaited_pings, now)
        if self._watch is not _QUIET and self._sent is not None and payload == b"%d" % self._sent:
            self.latency = (now - self._sent) / 1e9
            self._sent = None
            if self._owner.counters is not None:
                self._owner.counters.pings.observe(self.latency)

    async def measure(self, send: Callable[[bytes], Awaitable[None]]) -> float:
        """Sends a ping of the application by `send`, and returns the seconds until its pong."""
        if self.awaited_pings is None:
            self.awaited_pings = {}
        sent = time.perf_counter_ns()
        while sent in self.awaited_pings:  # the clock of Windows has steps of 100 nanoseconds
            sent += 1
        outcome: asyncio.Future[float] = self._loop.create_future()
        self.awaited_pings[sent] = outcome
        try:
            await send(b"%d" % sent)
            return await outcome
        finally:
            del self.awaited_pings[sent], outcome  # its error would form a cycle with this frame and the handler's

    def _answer(self, payload: bytes, awaited: dict[int, "asyncio.Future[float]"], now: int) -> None:
        """Completes the ping of a pong and all before it: a peer may answer only the last (RFC 6455, section 5.5.3)."""
        last = int(payload) if payload.isdigit() else 0
        if last not in awaited and last != self._sent:
            return
        for sent, outcome in awaited.items():
            if sent <= last and not outcome.done():
                self.latency = (now - sent) / 1e9
                outcome.set_result(self.latency)

    def fail(self, new_error: Callable[[], Exception]) -> None:
        """Ends the waits for pongs of the application's pings, each with an error of its own, as its traceback is."""
        for outcome in (self.awaited_pings or {}).values():
            if not outcome.done():
                outcome.set_exception(new_error())
                outcome.exception()  # marks it as retrieved: asyncio does not log it if the caller was cancelled

    def _wait(self, now: float, seconds: float) -> None:
        """Schedules the next check in `seconds`, or earlier if RECEIVE_TIMEOUT requires it."""
        wake = self._due = now + seconds
        limit = self._owner.endpoint.RECEIVE_TIMEOUT
        if limit:
            check = now + limit / _WAKES
            end = self._silent_since + limit
            if end < check:
                check = max(end, now)
            wake = check if check < wake else wake  # a call of min() costs as much as five of these lines
        if wake != _NEVER:
            self._tick = self._clock.set(self._loop, wake, self)

    def wake(self) -> None:
        """Checks whether the peer has shown a sign of life; called by the clock."""
        try:
            self._check()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # in a setting that is a property: without checks a lost peer would stay
            self._owner.hook_failed(error)

    def _check(self) -> None:
        now = self._loop.time()
        settings = self._owner.endpoint
        # If the loop was busy, received bytes may wait unread, so the peer gets one more check.
        is_late = now - self._clock.time(self._tick) > self.LATE
        if self._owner.take_sign_of_life():
            self._silent_since = now
            if self._misses:  # the backoff ends: a proxy might close the connection before the next ping
                self._misses = 0
                self._due = min(self._due, self._pinged + (settings.PING_INTERVAL or _NEVER))
            if self._watch is _Watch.PINGED:
                self._watch = _Watch.ANSWERED
        elif settings.RECEIVE_TIMEOUT and now - self._silent_since >= settings.RECEIVE_TIMEOUT and not is_late:
            self.has_given_up = True
            self._owner.close(CloseCode.GOING_AWAY, "nothing received for too long")
            return
        if now < self._due:
            self._wait(now, self._due - now)
        elif self._watch is _QUIET or settings.PONG_TIMEOUT is None:
            self._ping(now)
        elif self._watch is _Watch.ANSWERED:
            self._quiet(now)
        elif now < self._pinged + settings.PONG_TIMEOUT:
            self._wait(now, self._pinged + settings.PONG_TIMEOUT - now)
        elif is_late or self._owner.is_receive_buffer_full:
            self._wait(now, settings.PONG_TIMEOUT)
        else:
            self._missed(now)

    def _ping(self, now: float) -> None:
        settings = self._owner.endpoint
        interval = settings.PING_INTERVAL
        if not interval:  # it has changed
            self._quiet(now)
            return
        self._watch = _Watch.PINGED
        self._pinged = now
        self._sent = time.perf_counter_ns()
        self._owner.ping(b"%d" % self._sent)
        self._wait(now, interval if settings.PONG_TIMEOUT is None else min(settings.PONG_TIMEOUT, interval))

    def _quiet(self, now: float) -> None:
        """Waits until the next ping is due, PING_INTERVAL after the last."""
        settings = self._owner.endpoint
        interval = settings.PING_INTERVAL or _NEVER
        self._watch = _QUIET
        self._wait(now, max(interval - (now - self._pinged), 0))

    def _missed(self, now: float) -> None:
        self._misses += 1
        if self._misses >= self.MISSES:
            self._give_up()
            return
        settings = self._owner.endpoint
        interval = settings.PING_INTERVAL or _NEVER
        self._watch = _QUIET
        self._wait(now, min(interval * 2**self._misses, settings.MAX_BACKOFF))

    def _give_up(self) -> None:
        self.has_given_up = True
        self._owner.close(self.CODE, self.REASON)
