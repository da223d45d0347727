"""The command line of `python -m benchmarks.echo`."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import chart, cores, measure_client, programs, published, registry, report, results, workloads
from .measure_server import Sample, measure_server
from .run import Settings, run

__all__ = ["main"]

OUT = Path("build") / "echo"
OURS = "duck"
BUSY = 0.5  # load average from which on others are in the way
QUICK = Settings(rounds=1, seconds=0.3, warmup=0.1, rest=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the report on standard output, and writes it with the figures and a chart.

    Returns:
        0; 1 if something that was measured failed; 2 if nothing could be measured.
    """
    options = _parse(argv)
    try:
        servers, chosen = _chosen(options)
    except ValueError as error:
        return _refuse(str(error))
    if options.list:
        _list()
        return 0
    if options.record or options.redraw:
        return max([_record(run) for run in published.RUNS] if options.record else [0], default=0) or _redraw()
    if options.results:
        try:
            found = results.read(options.results)
        except ValueError as error:
            return _refuse(str(error))
    elif sys.platform != "linux":
        return _refuse("the load client needs Linux, for epoll and to pin processes to cores")
    else:
        try:
            for name in ("floor", "load" if options.clients is None else "floor_client"):
                programs.build(name)
        except programs.BuildError as error:
            return _refuse(str(error))
        if options.quick:
            chosen = [workload.small() for workload in chosen]
        how = measure_server if options.clients is None else measure_client.measure_client
        found = _measure(servers, chosen, _settings(options), how)
    if not found["samples"]:
        return _refuse("nothing was measured")
    baselines = _baselines(options.baseline, found)
    text = report.markdown(found, baselines)
    print(text)
    _write(options.out, found, text, baselines)
    return int(any("error" in sample for sample in found["samples"]))


def _chosen(options: argparse.Namespace) -> tuple[list[registry.Server], list[workloads.Workload]]:
    """Servers, or clients, and workloads that the command line names."""
    if options.clients is None:
        return registry.named(options.servers), workloads.named(options.workloads)
    names = None if options.clients == "" else options.clients
    return registry.named(names, registry.CLIENTS), workloads.named(options.workloads, workloads.CLIENT_WORKLOADS)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.echo",
        description="Measures WebSocket servers side by side: each in turn is started on a core of its own, and loaded "
        "from another by a client that checks every byte of every echo. With --clients it measures clients.",
    )
    parser.add_argument("--servers", metavar="A,B", help="servers to measure, or all; see --list")
    parser.add_argument(
        "--clients", metavar="A,B", nargs="?", const="", help="measure clients against the C floor instead; see --list"
    )
    parser.add_argument("--workloads", metavar="X,Y", help="workloads to measure; see --list")
    parser.add_argument("--baseline", metavar="A,B", help="compare with these (picows, or the first measured)")
    parser.add_argument("--rounds", type=int, help=f"measurements of each workload on each server ({Settings.rounds})")
    parser.add_argument("--seconds", type=float, help=f"seconds of a measurement ({Settings.seconds:g})")
    parser.add_argument("--quick", action="store_true", help="a short look: one round, few connections")
    parser.add_argument("--out", metavar="DIR", type=Path, default=OUT, help="folder for the results (%(default)s)")
    parser.add_argument("--results", metavar="FILE", type=Path, help="report on these, and measure nothing")
    parser.add_argument("--record", action="store_true", help="measure and replace the published figures: 50 minutes")
    parser.add_argument("--redraw", action="store_true", help="draw the published charts and tables anew")
    parser.add_argument("--list", action="store_true", help="name servers and workloads")
    options = parser.parse_args(argv)
    if (options.rounds or 1) < 1 or (options.seconds or 1) <= 0:
        parser.error("--rounds and --seconds must be over 0")
    return options


def _settings(options: argparse.Namespace) -> Settings:
    settings = QUICK if options.quick else Settings()
    given = {name: vars(options)[name] for name in ("rounds", "seconds") if vars(options)[name]}
    return Settings(**{**vars(settings), **given})


def _measure(
    servers: Sequence[registry.Server],
    chosen: Sequence[workloads.Workload],
    settings: Settings,
    measure: Callable[..., Sample],
) -> dict[str, Any]:
    pair = cores.choose()
    if pair.shared:
        _say("there is one core only: server and load client share it, and figures are lower than they could be")
    if (load := os.getloadavg()[0]) > BUSY:
        _say(f"the machine is busy (load average {load:.1f}): figures will be noisy")
    files = cores.raise_file_limit()
    needed = max(workload.connections for workload in chosen) + 64
    if files < needed:
        _say(f"only {files} files may be open, {needed} are needed: workloads will fail; raise ulimit -n")
    return run(servers, chosen, pair, settings, _say, measure)


def _baselines(names: str | None, found: dict[str, Any]) -> list[str]:
    """The servers to compare with, as far as they were measured."""
    measured = list(dict.fromkeys(sample["server"] for sample in found["samples"] if "value" in sample))
    if names is None:
        return ["picows"] if "picows" in measured else measured[:1]
    for name in names.split(","):
        if name not in measured:
            _say(f"nothing is compared with {name}, which was not measured")
    return [name for name in names.split(",") if name in measured]


def _write(folder: Path, found: dict[str, Any], text: str, baselines: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results.write(found, folder / "echo.toml")
    (folder / "echo.md").write_text(text)
    chart.draw(found, folder / "echo.svg")
    rivals = [name for name in baselines if name not in (OURS, "floor")]
    if rivals and any(sample["server"] == OURS for sample in found["samples"]):
        chart.draw_ratios(found, folder / "ratios.svg", OURS, rivals[: len(chart.SERIES)])
    _say(f"written to {folder}")


def _record(run: published.Run) -> int:
    """Measures the published figures anew, and replaces them if no measurement failed."""
    folder = OUT / run.name
    words = ["--clients" if run.clients else "--servers", run.servers, "--out", str(folder)]
    words += ["--rounds", str(published.ROUNDS), "--seconds", str(published.SECONDS)]
    words += ["--workloads", run.workloads] if run.workloads else []
    status = main(words)
    if status == 0:
        shutil.copy(folder / "echo.toml", published.RESULTS / f"{run.name}.toml")
    else:
        _say(f"{run.name}.toml stays as it is, because not everything could be measured")
    return status


def _redraw() -> int:
    page = published.PAGE
    page.write_text(published.insert(published.draw(), page.read_text(encoding="utf-8")), encoding="utf-8")
    _say(f"drawn: the charts in {published.RESULTS}, and the tables in {page}")
    return 0


def _list() -> None:
    print("Servers:")
    for server in registry.SERVERS:
        versions = ", ".join(f"{name} {version}" for name, version in server.versions().items())
        mark = " " if server.default else "+"
        print(f"  {mark} {server.name:<28}{server.missing() or versions}")
    print("\n  + takes part only when named, or with --servers all\n\nWorkloads:")
    for workload in workloads.WORKLOADS:
        print(f"    {workload.name:<28}{workload.title}")
    print("\nClients:")
    for client in registry.CLIENTS:
        print(f"  {' ' if client.default else '+'} {client.name:<28}{client.missing() or client.title}")
    print("\nWorkloads of clients:")
    for workload in workloads.CLIENT_WORKLOADS:
        print(f"    {workload.name:<28}{workload.title}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _refuse(reason: str) -> int:
    _say(f"benchmarks.echo: {reason}")
    return 2
