"""The numbers of connections for Prometheus, by `prometheus_client` (the extra `metrics`).

    from prometheus_client import REGISTRY
    from duck.contrib.websockets.metrics.prometheus import Collector

    REGISTRY.register(Collector(metrics))

`duck serve --metrics HOST:PORT` needs no registry.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as _Collector

from .stats import HistogramStats, Stats

__all__ = ["CONTENT_TYPE_LATEST", "Collector", "render"]


class Source(Protocol):
    """An object with statistics: a `Metrics`, or a server of `duck.server`."""

    def stats(self) -> Stats: ...


class Collector(_Collector):
    """Reports numbers to a registry of `prometheus_client`, at each scrape.

    Args:
        source: A `Metrics` or a `duck.server.Server`.
        namespace: Precedes the names, as `feed` in `feed_websocket_connections_open`, so that a registry can have
            several collectors; empty for none.
    """

    def __init__(self, source: Source, namespace: str = "") -> None:
        self._source = source
        self._prefix = f"{namespace}_" if namespace else ""

    def collect(self) -> Iterable[Metric]:
        """Returns the metrics; called by the registry."""
        return _renamed(_families(self._source.stats()), self._prefix)

    def describe(self) -> Iterable[Metric]:
        """Returns the metrics without connections; the registry reads their names."""
        return _renamed(_families(Stats()), self._prefix)


def render(stats: Stats) -> bytes:
    """Returns numbers in the text format of Prometheus; its media type is CONTENT_TYPE_LATEST."""

    class Fixed:
        @staticmethod
        def stats() -> Stats:
            return stats

    registry = CollectorRegistry()
    registry.register(Collector(Fixed()))
    return generate_latest(registry)


def _renamed(families: list[Metric], prefix: str) -> list[Metric]:
    for family in families if prefix else ():
        family.name = prefix + family.name
        family.samples = [sample._replace(name=prefix + sample.name) for sample in family.samples]
    return families


def _families(stats: Stats) -> list[Metric]:
    return [
        GaugeMetricFamily("websocket_connections_open", "Connections that are open.", stats.open),
        CounterMetricFamily("websocket_connections", "Connections that have opened.", stats.opened),
        _counter("websocket_refused", "Refused handshakes, by reason.", "reason", stats.refused),
        _closes(stats.closed),
        _counter("websocket_messages_received", "Received messages and control frames.", "opcode", stats.received),
        _counter("websocket_received_bytes", "Bytes of their payloads, as received.", "opcode", stats.received_bytes),
        _counter("websocket_messages_sent", "Sent messages and control frames.", "opcode", stats.sent),
        _counter("websocket_sent_bytes", "Bytes of their payloads, as sent.", "opcode", stats.sent_bytes),
        _counter(
            "websocket_compressed_bytes",
            "Bytes of compressed messages, as on the wire.",
            "direction",
            {"received": stats.received_compressed_bytes, "sent": stats.sent_compressed_bytes},
        ),
        _counter(
            "websocket_uncompressed_bytes",
            "Bytes of the same messages without compression.",
            "direction",
            {"received": stats.received_plain_bytes, "sent": stats.sent_plain_bytes},
        ),
        _histogram("websocket_handler_seconds", "Time from the start of on_receive to its end.", stats.handlers),
        _histogram("websocket_ping_round_trip_seconds", "Time from a ping to its pong.", stats.pings),
        CounterMetricFamily("websocket_hook_errors", "Exceptions raised by hooks of views.", stats.errors),
        _counter("websocket_messages_dropped", "Messages not sent or not handled, by reason.", "reason", stats.dropped),
        _counter("websocket_reads_paused", "Pauses of reading, by reason.", "reason", stats.paused),
        GaugeMetricFamily(
            "websocket_waiting_peak_messages",
            "Most messages waiting on one connection.",
            stats.waiting_peak,
        ),
        GaugeMetricFamily(
            "websocket_waiting_peak_bytes",
            "Most bytes of messages waiting.",
            stats.waiting_bytes_peak,
        ),
        GaugeMetricFamily(
            "websocket_write_buffer_peak_bytes",
            "Most bytes waiting for one peer.",
            stats.write_buffer_peak,
        ),
    ]


def _counter(name: str, words: str, label: str, numbers: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, words, labels=[label])
    for value, number in numbers.items():
        family.add_metric([value], number)
    return family


def _closes(closed: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(
        "websocket_closes", "Ended connections, by the side that closed first and its code.", labels=["side", "code"]
    )
    for side, numbers in closed.items():
        for code, number in numbers.items():
            family.add_metric([side, code], number)
    return family


def _histogram(name: str, words: str, values: HistogramStats) -> Metric:
    bounds = [*map(str, values.bounds), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(values.counts)), strict=True))
    return HistogramMetricFamily(name, words, buckets, values.sum)
