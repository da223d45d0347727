"""The published results: their runs, and the charts and tables that are drawn from their files."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import ROOT
from . import chart, results, summary
from .report import number, table

__all__ = ["PAGE", "ROUNDS", "RUNS", "SECONDS", "Run", "draw", "insert"]

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "internals" / "speed.md"
OURS = "duck"
ROUNDS, SECONDS = 3, 1.0

_SHORT = {
    "ping": "1 conn.",
    "pipeline": "64 in flight",
    "c100": "100 conn.",
    "c1000": "1,000 conn.",
    "16k": "16 KiB",
    "1m": "1 MiB",
    "connect": "connects",
    "idle": "idle, KiB",
}


@dataclass(frozen=True)
class Run:
    """A run whose results are published.

    Attributes:
        name: The stem of its files.
        servers: Names of the servers, or of the clients.
        workloads: Names of the workloads; None for all.
        clients: Whether clients are measured.
        ours: The name of the one that the others are compared with.
    """

    name: str
    servers: str
    workloads: str | None = None
    clients: bool = False
    ours: str = OURS


RUNS = (
    Run("echo", "duck,picows,websockets,floor"),
    Run(
        "rivals",
        "duck,picows,picows-websockets,websockets,aiohttp,uvicorn-websockets,uvicorn-websockets-sansio,uvicorn-wsproto,"
        "granian,socketify,floor",
        ",".join(_SHORT),
    ),
    # Hooks, because they are the like of picows' callbacks.
    Run("clients", "duck,duck-hooks,picows,websockets,aiohttp,floor", clients=True, ours="duck-hooks"),
)


def draw(folder: Path = RESULTS) -> dict[str, str]:
    """Draws the charts of the results in a folder.

    Returns:
        The blocks of the page by their names, for `insert`; without those of results that are not there.
    """
    blocks = {}
    for run in RUNS:
        if not (folder / f"{run.name}.toml").exists():
            continue
        found = results.read(folder / f"{run.name}.toml")
        chart.draw(found, folder / f"{run.name}.svg")
        if run.name == "echo":
            chart.draw_ratios(found, folder / "ratios.svg", OURS, ["picows", "websockets"])
            blocks["broadcast"] = _paragraphs(_broadcasts(found))
        rows = _by_server(found) if run.name == "rivals" else _by_workload(found, run.ours)
        image = f"![The same as bars, with ranges of rounds](../../benchmarks/results/{run.name}.svg)"
        blocks[run.name] = _paragraphs(_origin(found), rows, image)
    return blocks


def insert(blocks: dict[str, str], text: str) -> str:
    """Returns the text of the page with new blocks, each between `<!-- NAME -->` and `<!-- end -->`."""
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda found, block=block: f"{found[1]}{block}{found[2]}", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page has {count} places for the block {name}, not one")
    return text


def _paragraphs(*parts: str) -> str:
    return "".join(f"\n{part}\n" for part in parts) + "\n"


def _origin(found: dict[str, Any]) -> str:
    machine, settings = found["machine"], found["settings"]
    versions: dict[str, str] = {}
    for server in found["servers"]:
        versions |= server["versions"]
    rivals = ", ".join(f"{name} {version}" for name, version in versions.items())
    kind = "virtual cores" if machine["virtual"] else "cores"
    words = (
        f"Medians of {settings['rounds']} interleaved rounds of {settings['seconds']:g} s, {found['begun'][:10]}: "
        f"{machine['cpu']}, two {kind}; {machine['python']}; {rivals}."
    )
    return textwrap.fill(words, 120, break_on_hyphens=False)


def _by_workload(found: dict[str, Any], ours: str) -> str:
    """A row for each workload: our figure, and its ratios to those of the others."""
    figures = summary.figures(found)
    others = [server for server in found["servers"] if server["name"] != ours]
    ratios = {server["name"]: summary.ratios(found, server["name"]) for server in others}
    [title] = [server["title"] for server in found["servers"] if server["name"] == ours]
    rows = [
        [
            f"{workload['title']} ({workload['unit']})",
            _value(figures, workload["name"], ours),
            *(
                # A connection of the floor has no state, so its memory is no measure.
                ""
                if workload["lower_is_better"] and server["name"] == "floor"
                else _ratio(ratios[server["name"]], workload["name"], ours)
                for server in others
            ),
        ]
        for workload in found["workloads"]
    ]
    return table(["", title, *(f"to {server['title']}" for server in others)], rows)


def _by_server(found: dict[str, Any]) -> str:
    figures = summary.figures(found)
    names = [workload["name"] for workload in found["workloads"] if workload["name"] in _SHORT]
    rows = [
        [server["title"], *(_value(figures, name, server["name"]) for name in names)] for server in found["servers"]
    ]
    return table(["", *(_SHORT[name] for name in names)], rows)


def _broadcasts(found: dict[str, Any]) -> str:
    """A row for each broadcast: the server's processor time for a delivery, and its ratios."""
    figures = summary.figures(found)
    others = [server for server in found["servers"] if server["name"] != OURS]
    ratios = {server["name"]: summary.ratios(found, server["name"], summary.per_cpu_second) for server in others}
    rows = []
    for workload in found["workloads"]:
        figure = figures.get((workload["name"], OURS))
        if workload["mode"] in ("broadcast", "chat") and figure is not None and figure.server_us is not None:
            cells = [_ratio(ratios[server["name"]], workload["name"], OURS) for server in others]
            rows.append([workload["title"], f"{figure.server_us:.1f} µs", *cells])
    head = ["deliveries per second of the server's CPU time", "a delivery", *(f"to {s['title']}" for s in others)]
    return table(head, rows)


def _value(figures: dict[tuple[str, str], summary.Figure], workload: str, server: str) -> str:
    figure = figures.get((workload, server))
    return "" if figure is None or figure.value is None else number(figure.value.median)


def _ratio(spreads: dict[tuple[str, str], summary.Spread], workload: str, ours: str) -> str:
    spread = spreads.get((workload, ours))
    return f"{spread.median:.2f}" if spread else ""
