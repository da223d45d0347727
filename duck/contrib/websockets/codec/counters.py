"""Counters of messages, bytes and events, in plain Python: the specification of `counters.pxi`.

The connections of one loop share one `Counters`, which their readers, writers and dispatchers increment. So the end of
a connection and a scrape of the counters cost nothing for each connection. `metrics` reads the counters.
"""

from collections.abc import Iterable
from time import perf_counter

__all__ = ["SECONDS", "Counters", "Histogram"]

_OPCODES = 16
_MOST_BOUNDS = 20

SECONDS = (0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The bounds of histograms of times in seconds, for handlers that only echo as well as for slow networks."""


class Histogram:
    """Counts of observed values, by ranges.

    Args:
        bounds: The upper bounds of the ranges, each included in its range; 1 to 20, in ascending order.

    Attributes:
        bounds: The same, as floats.
        counts: The number of values in each range, and of those above the last bound.
        sum: The sum of the values.

    Raises:
        ValueError: The bounds are too many or not in order.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(float(bound) for bound in bounds)
        if not 0 < len(self.bounds) <= _MOST_BOUNDS or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"a histogram has 1 to {_MOST_BOUNDS} bounds in ascending order, not {bounds!r}")
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self.add(value, 1)

    def add(self, value: float, number: int) -> None:
        """Counts a value a number of times. In the compiled codec, only C code calls this."""
        at = 0
        while at < len(self.bounds) and value > self.bounds[at]:
            at += 1
        self.counts[at] += number
        self.sum += value * number


class Counters:
    """Counts for the connections of one loop since the creation of the object. Only the loop's thread may change them.

    Payloads are counted as sent and received: compressed, without headers.

    Attributes:
        opened: The number of connections that have opened.
        events: The number of rarer events, by a name and labels: ("close", "1000", "peer").
        waiting_peak: The largest number of messages that have waited for handlers of one connection.
        waiting_bytes_peak: The largest size of such messages, in bytes.
        write_buffer_peak: The largest number of bytes that have waited for one peer above its high-water mark.
        pings: The round-trip times of pings, in seconds.
        handlers: The time from the start of each handler to its end, in seconds. Handlers that run one after another
            without waiting are counted with the mean of their times, because reading the clock for each would slow
            them down.
        received: The number of received messages and control frames, by opcode.
        received_bytes: The bytes of their payloads, by opcode.
        sent: The number of messages and control frames that have been sent at least in part, by opcode.
        sent_bytes: The bytes of their payloads, by opcode; those of fragments belong to their message.
        inflated: The bytes of decompressed messages, before and after.
        deflated: The bytes of messages that were compressed, after and before.
    """

    __slots__ = (
        "deflated",
        "events",
        "handlers",
        "inflated",
        "opened",
        "pings",
        "received",
        "received_bytes",
        "sent",
        "sent_bytes",
        "waiting_bytes_peak",
        "waiting_peak",
        "write_buffer_peak",
    )

    def __init__(self) -> None:
        self.opened = 0
        self.events: dict[tuple[str, ...], int] = {}
        self.waiting_peak = self.waiting_bytes_peak = self.write_buffer_peak = 0
        self.pings = Histogram(SECONDS)
        self.handlers = Histogram(SECONDS)
        self.received = [0] * _OPCODES
        self.received_bytes = [0] * _OPCODES
        self.sent = [0] * _OPCODES
        self.sent_bytes = [0] * _OPCODES
        self.inflated = [0, 0]
        self.deflated = [0, 0]

    def note(self, event: tuple[str, ...], number: int = 1) -> None:
        """Counts a rare event."""
        self.events[event] = self.events.get(event, 0) + number

    def note_waiting(self, messages: int, size: int) -> None:
        """Notes the messages that wait for handlers of one connection, and their size in bytes."""
        self.waiting_peak = max(self.waiting_peak, messages)
        self.waiting_bytes_peak = max(self.waiting_bytes_peak, size)

    def note_write_buffer(self, size: int) -> None:
        """Notes the number of bytes that wait for one peer."""
        self.write_buffer_peak = max(self.write_buffer_peak, size)

    def note_inflated(self, size: int, plain: int) -> None:
        """Counts a decompressed message; may be called in any thread.

        Args:
            size: Bytes as received.
            plain: Bytes of the message.
        """
        self.inflated[0] += size
        self.inflated[1] += plain

    def note_deflated(self, size: int, plain: int) -> None:
        """Counts a compressed message, or a fragment of one.

        Args:
            size: Bytes as sent.
            plain: Bytes of the message.
        """
        self.deflated[0] += size
        self.deflated[1] += plain

    def add_received(self, opcode: int, size: int, ends: bool) -> None:
        """Counts a received message, a part of one, or a control frame.

        In the compiled codec, only C code calls this, `add_sent` and `add_handlers`.

        Args:
            opcode: That of the message.
            size: Bytes of payload.
            ends: Whether they are the last of the message.
        """
        self.received[opcode] += ends
        self.received_bytes[opcode] += size

    def add_sent(self, opcode: int, size: int, begins: bool) -> None:
        """Counts a sent frame.

        Args:
            opcode: That of the message, also for a continuation frame.
            size: Bytes of payload.
            begins: Whether the frame is the first one of its message.
        """
        self.sent[opcode] += begins
        self.sent_bytes[opcode] += size

    def add_handlers(self, started: float, ended: int, waiting: int) -> float:
        """Counts handlers that have run one after another, each with the mean of their times.

        Args:
            started: The time when the first one began.
            ended: The number of handlers that have ended.
            waiting: 1 if a further handler, the last one, waits; else 0.

        Returns:
            The time when the waiting handler began; the current time if none waits.
        """
        now = perf_counter()
        mean = (now - started) / (ended + waiting)
        self.handlers.add(mean, ended)
        return now - mean * waiting
