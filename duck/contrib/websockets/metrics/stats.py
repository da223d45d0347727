"""The numbers of `Metrics` at one time, as plain values that can be added, compared and sent as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from ..codec import SECONDS, Counters, Histogram
from ..opcodes import OpCode

__all__ = ["HistogramStats", "Stats", "stats_of"]

_KINDS = {opcode.name.lower(): int(opcode) for opcode in OpCode if opcode is not OpCode.CONTINUATION}


def _none_of_each() -> dict[str, int]:
    return dict.fromkeys(_KINDS, 0)


@dataclass(frozen=True, slots=True)
class HistogramStats:
    """The values that a histogram has counted.

    Attributes:
        bounds: The upper bounds of the ranges, each included in its range.
        counts: The number of values in each range, and of those above the last bound.
        sum: The sum of the values.
    """

    bounds: tuple[float, ...] = SECONDS
    counts: tuple[int, ...] = (0,) * (len(SECONDS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    def __add__(self, other: Self) -> Self:
        counts = tuple(map(sum, zip(self.counts, other.counts, strict=True)))
        return type(self)(self.bounds, counts, self.sum + other.sum)


@dataclass(frozen=True, slots=True)
class Stats:
    """The numbers of connections since their `Metrics` was created. The sum of two adds them, and keeps larger peaks.

    Payloads are counted as sent and received: compressed, without headers. The keys of mappings by opcode are `text`,
    `binary`, `close`, `ping` and `pong`.

    Attributes:
        open: The number of open connections.
        opened: The number of connections that have opened.
        refused: The number of refused handshakes, by reason: `origin` for a foreign page, `timeout` of the view's
            decision, `draining` and `no_room` of the embedded server, or else the status in words: `unauthorized`.
        closed: The number of connections that have ended, by the side that closed first (`local`, `peer`, or `none`
            for a connection lost without a close frame) and by close code. Codes of peers that RFC 6455 and its
            registry do not define are under `other`.
        received: The number of received messages and control frames, by opcode.
        received_bytes: The bytes of their payloads, by opcode.
        sent: The number of sent messages and control frames, by opcode.
        sent_bytes: The bytes of their payloads, by opcode.
        received_compressed_bytes: The bytes of compressed messages as received.
        received_plain_bytes: The bytes of the same messages, decompressed.
        sent_compressed_bytes: The bytes of compressed messages as sent.
        sent_plain_bytes: The bytes of the same messages before their compression.
        handlers: The seconds from the start of each `on_receive` to its end.
        pings: The seconds of the round trips of the pings of heartbeats.
        errors: The number of exceptions that hooks have raised.
        dropped: The number of messages that were not sent (`slow_consumer`) or not handled (`closing`), by reason.
        paused: The number of pauses of reading, by reason: `inbox`, `frames` and `parts` for messages that wait for the
            application, `writes` for a peer that does not read.
        waiting_peak: The largest number of received messages that have waited on one connection.
        waiting_bytes_peak: The largest size of such messages, in bytes.
        write_buffer_peak: The largest number of bytes seen to wait for one peer, above its high-water mark.
    """

    open: int = 0
    opened: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    closed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    received: Mapping[str, int] = field(default_factory=_none_of_each)
    received_bytes: Mapping[str, int] = field(default_factory=_none_of_each)
    sent: Mapping[str, int] = field(default_factory=_none_of_each)
    sent_bytes: Mapping[str, int] = field(default_factory=_none_of_each)
    received_compressed_bytes: int = 0
    received_plain_bytes: int = 0
    sent_compressed_bytes: int = 0
    sent_plain_bytes: int = 0
    handlers: HistogramStats = field(default_factory=HistogramStats)
    pings: HistogramStats = field(default_factory=HistogramStats)
    errors: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    paused: Mapping[str, int] = field(default_factory=dict)
    waiting_peak: int = 0
    waiting_bytes_peak: int = 0
    write_buffer_peak: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{one.name: _sum(one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(self)}
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers as dicts, lists and numbers, which JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the numbers that `as_dict` has returned, in this process or another one."""
        histograms = {
            name: HistogramStats(tuple(one["bounds"]), tuple(one["counts"]), one["sum"])
            for name, one in values.items()
            if name in _HISTOGRAMS
        }
        return cls(**{**values, **histograms})


_HISTOGRAMS = ("handlers", "pings")


def _sum(name: str, one: Any, other: Any) -> Any:
    """The sum of two values of a field; the larger one of two peaks."""
    if isinstance(one, Mapping):
        return {
            key: _sum(name, one[key], other[key]) if key in one and key in other else one.get(key, other.get(key))
            for key in {**one, **other}
        }
    return max(one, other) if name.endswith("_peak") else one + other


def stats_of(counters: Counters) -> Stats:
    """Returns the numbers of the connections of one loop."""
    labelled: dict[str, dict[str, int]] = {"refused": {}, "dropped": {}, "paused": {}}
    closed: dict[str, dict[str, int]] = {}
    errors = ended = 0
    for (name, *labels), number in list(counters.events.items()):
        if name == "close":
            code, side = labels
            closed.setdefault(side, {})[code] = number
            ended += number
        elif name == "error":
            errors = number
        else:
            labelled[name][labels[0]] = number
    return Stats(
        open=counters.opened - ended,
        opened=counters.opened,
        refused=labelled["refused"],
        closed=closed,
        received=_by_kind(counters.received),
        received_bytes=_by_kind(counters.received_bytes),
        sent=_by_kind(counters.sent),
        sent_bytes=_by_kind(counters.sent_bytes),
        received_compressed_bytes=counters.inflated[0],
        received_plain_bytes=counters.inflated[1],
        sent_compressed_bytes=counters.deflated[0],
        sent_plain_bytes=counters.deflated[1],
        handlers=_values(counters.handlers),
        pings=_values(counters.pings),
        errors=errors,
        dropped=labelled["dropped"],
        paused=labelled["paused"],
        waiting_peak=counters.waiting_peak,
        waiting_bytes_peak=counters.waiting_bytes_peak,
        write_buffer_peak=counters.write_buffer_peak,
    )


def _by_kind(counts: list[int]) -> dict[str, int]:
    return {name: counts[opcode] for name, opcode in _KINDS.items()}


def _values(histogram: Histogram) -> HistogramStats:
    return HistogramStats(histogram.bounds, tuple(histogram.counts), histogram.sum)
