"""Runs every workload on every server, several times over, in turn."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import launch, machine, receiving
from .cores import Cores
from .launch import ServerError
from .load_client import LoadError
from .measure_server import Sample, measure_server
from .registry import Server
from .workloads import Workload

__all__ = ["Settings", "explained", "run"]

Say = Callable[[str], None]

STARTING = 1.0
"""Seconds that it takes, about, to start a server and open connections; for the estimate only."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Attributes:
        rounds: Measurements of each workload on each server.
        seconds: The length of a measurement.
        warmup: Seconds of load before it.
        rest: Seconds between two measurements.
    """

    rounds: int = 5
    seconds: float = 2.0
    warmup: float = 0.5
    rest: float = 0.2


@dataclass(frozen=True)
class Turn:
    """One measurement: one workload in one round.

    Attributes:
        workload: The workload.
        number: The round, from 1 on.
        servers: Servers or clients: one, or several that are measured together.
    """

    workload: Workload
    number: int
    servers: Sequence[Server]

    def seconds(self, settings: Settings) -> float:
        """An estimate of its length."""
        return len(self.servers) * settings.seconds + settings.warmup + settings.rest + STARTING


def run(
    servers: Sequence[Server],
    workloads: Sequence[Workload],
    cores: Cores,
    settings: Settings,
    say: Say,
    measure: Callable[..., Sample] = measure_server,
) -> dict[str, Any]:
    """Measures. An interrupted run keeps its measurements.

    The rounds of a workload go through the servers in turn, A B C A B C, so that a machine that gets slower or
    faster meanwhile does so for all of them. Clients that receive a few messages take turns within a round.

    Args:
        say: Called with lines about the progress.
        measure: `measure_server`, or `measure_client` where `servers` are clients.

    Returns:
        The results, in the form that `results.write` takes.
    """
    results: dict[str, Any] = {
        "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv[1:],
        "clients": measure is not measure_server,
        "settings": vars(settings),
        "machine": machine.describe(cores),
        "servers": [_described_server(server) for server in servers],
        "workloads": [_described_workload(workload) for workload in workloads],
        "samples": [],
        "interrupted": False,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            tls = _certificate(Path(folder), workloads, say)
            present = []
            for server, described in zip(servers, results["servers"], strict=True):
                described["missing"] = _reason_to_miss(server, cores, say, measure)
                if not described["missing"]:
                    present.append(server)
            turns = [
                Turn(workload, number, group)
                for workload in workloads
                for number in range(1, settings.rounds + 1)
                for group in _groups(workload, [one for one in present if _can_take_part(one, workload, bool(tls))])
            ]
            for index, turn in enumerate(turns):
                samples = _samples(turn, cores, settings, tls, measure)
                for server, sample in zip(turn.servers, samples, strict=True):
                    row = {"workload": turn.workload.name, "server": server.name, "round": turn.number}
                    results["samples"].append(row | sample)
                    say(_progress(index, turns, server, sample, settings))
                time.sleep(settings.rest)
        except KeyboardInterrupt:
            results["interrupted"] = True
    return results


def _can_take_part(server: Server, workload: Workload, tls: bool) -> bool:
    if workload.tls and not (tls and server.tls):
        return False
    return server.deflate if workload.deflate else server.plain


def _groups(workload: Workload, servers: Sequence[Server]) -> list[Sequence[Server]]:
    """Returns the groups of servers or clients that a workload measures together."""
    if workload.mode == "receive":
        return [servers] if servers else []
    return [[server] for server in servers]


def _described_server(server: Server) -> dict[str, Any]:
    return {"name": server.name, "title": server.title, "versions": server.versions(), "missing": None}


def _described_workload(workload: Workload) -> dict[str, Any]:
    return {
        "name": workload.name,
        "mode": workload.mode,
        "title": workload.title,
        "unit": workload.unit,
        "lower_is_better": workload.lower_is_better,
    }


def _certificate(folder: Path, workloads: Sequence[Workload], say: Say) -> tuple[str, str] | None:
    """A certificate and its key, if a workload needs them and they can be had."""
    if any(workload.tls for workload in workloads):
        try:
            return launch.certificate(folder)
        except OSError as error:
            say(f"without TLS: {error}")
    return None


def _reason_to_miss(server: Server, cores: Cores, say: Say, measure: Callable[..., Sample]) -> str | None:
    """Returns the reason why a server cannot take part; None if it can. The server is started once to find out."""
    reason = server.missing()
    if reason is None:
        try:
            measure(server, Workload("probe"), cores, seconds=0.05, warmup=0)
        except (LoadError, ServerError) as error:
            reason = explained(error)
    if reason:
        say(f"without {server.name}: {reason}")
    return reason


def _samples(
    turn: Turn,
    cores: Cores,
    settings: Settings,
    tls: tuple[str, str] | None,
    measure: Callable[..., Sample],
) -> list[Sample]:
    workload, servers = turn.workload, turn.servers
    if workload.one_core:
        cores = Cores(cores.server, cores.server)
    how = {"seconds": settings.seconds, "warmup": settings.warmup}
    try:
        if workload.mode == "receive":
            found = receiving.measure(servers, workload, cores, **how)
            return [{"error": explained(one)} if isinstance(one, LoadError) else one for one in found]
        return [measure(servers[0], workload, cores, **how, tls=tls)]
    except (LoadError, ServerError) as error:
        return [{"error": explained(error)} for _ in servers]


def explained(error: Exception) -> str:
    """Describes an error, with the last words of a server."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def _progress(index: int, turns: Sequence[Turn], server: Server, sample: Sample, settings: Settings) -> str:
    turn = turns[index]
    left = sum(later.seconds(settings) for later in turns[index + 1 :])
    figure = f"failed: {sample['error']}" if "error" in sample else f"{sample['value']:,.1f} {turn.workload.unit}"
    return (
        f"[{index + 1}/{len(turns)}, {left / 60:.0f} min left] {turn.workload.name}, round {turn.number}, "
        f"{server.name}: {figure}"
    )
