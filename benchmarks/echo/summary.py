"""Medians, spreads and ratios of the samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Figure", "Spread", "disturbance", "figures", "per_cpu_second", "ratios"]

CLIENT_IS_LIMIT = 0.95
"""Share of its core from which on the load client, not the server, limits the result."""


@dataclass(frozen=True)
class Spread:
    """The values of a measurement in several rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Figure:
    """The results of one server under one workload, over all rounds.

    Attributes:
        value: In the workload's unit; None if every round failed.
        p50, p99: Latencies in microseconds; None where there are none.
        server_us: Processor time of the server for each counted operation, in microseconds.
        server_cpu: Share of its core that the server was busy.
        limited_by_client: Whether the server could have done more.
        errors: The errors of failed rounds.
    """

    value: Spread | None
    p50: float | None
    p99: float | None
    server_us: float | None
    server_cpu: float | None
    limited_by_client: bool
    errors: tuple[str, ...]


def figures(results: dict[str, Any]) -> dict[tuple[str, str], Figure]:
    """The figures by the names of workload and server."""
    keys = dict.fromkeys((sample["workload"], sample["server"]) for sample in results["samples"])
    return {key: _figure(_samples(results, *key)) for key in keys}


def per_cpu_second(sample: dict[str, Any]) -> float | None:
    """Returns the operations in a second of the measured side's processor time, for runs that the other side limits."""
    each = sample.get("server_us")
    return 1e6 / each if each else None


def ratios(
    results: dict[str, Any],
    baseline: str,
    figure: Callable[[dict[str, Any]], float | None] = lambda sample: sample.get("value"),
) -> dict[tuple[str, str], Spread]:
    """Each server's figure as a multiple of the baseline's in the same round, by the names of workload and server."""
    by_key: dict[tuple[str, str], dict[int, float]] = {}
    for sample in results["samples"]:
        if (value := figure(sample)) is not None:
            by_key.setdefault((sample["workload"], sample["server"]), {})[sample["round"]] = value
    found = {}
    for (workload, server), values in by_key.items():
        base = by_key.get((workload, baseline), {})
        rounds = [value / base[number] for number, value in values.items() if base.get(number)]
        if rounds:
            found[workload, server] = Spread.of(rounds)
    return found


def disturbance(results: dict[str, Any]) -> Spread | None:
    """The share of both cores, in cores, that other processes used; None if it is unknown."""
    cores = [sample["others_cpu"] for sample in results["samples"] if "others_cpu" in sample]
    return Spread.of(cores) if cores else None


def _samples(results: dict[str, Any], workload: str, server: str) -> list[dict[str, Any]]:
    return [sample for sample in results["samples"] if sample["workload"] == workload and sample["server"] == server]


def _figure(samples: list[dict[str, Any]]) -> Figure:
    good = [sample for sample in samples if "value" in sample]

    def middle(name: str) -> float | None:
        values = [sample[name] for sample in good if name in sample]
        return median(values) if values else None

    return Figure(
        value=Spread.of([sample["value"] for sample in good]) if good else None,
        p50=middle("p50_us"),
        p99=middle("p99_us"),
        server_us=middle("server_us"),
        server_cpu=middle("server_cpu"),
        limited_by_client=(middle("client_cpu") or 0) > CLIENT_IS_LIMIT,
        errors=tuple(dict.fromkeys(sample["error"].splitlines()[0] for sample in samples if "error" in sample)),
    )
