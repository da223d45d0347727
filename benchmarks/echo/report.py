"""The results as Markdown."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .summary import Figure, Spread, disturbance, figures, per_cpu_second, ratios

__all__ = ["markdown", "number", "table"]

Row = Sequence[str]


def markdown(results: dict[str, Any], baselines: Sequence[str]) -> str:
    """The whole report.

    Args:
        results: The results of `run`.
        baselines: Names of the servers that others are compared with.
    """
    found = figures(results)
    parts = [_heading(results), _overview(results, found)]
    measured = {server for _, server in found}
    parts += [_compared(results, baseline) for baseline in baselines if baseline in measured]
    parts += [_detail(results, workload, found, baselines) for workload in results["workloads"]]
    parts.append(_notes(results, found))
    return "\n\n".join(part for part in parts if part) + "\n"


def _measured(results: dict[str, Any]) -> str:
    """Returns the measured one of the two sides."""
    return "client" if results.get("clients") else "server"


def _heading(results: dict[str, Any]) -> str:
    machine, settings = results["machine"], results["settings"]
    versions: dict[str, str] = {}
    for server in results["servers"]:
        versions |= server["versions"]
    duck = " ".join(str(fact) for fact in machine["duck"].values() if fact)
    sides = ("C floor", "client") if results.get("clients") else ("server", "load client")
    where = (
        f"{sides[0]} and {sides[1]} on the same core {machine['server_core']}, for want of another"
        if machine["server_core"] == machine["client_core"]
        else f"{sides[0]} on core {machine['server_core']}, {sides[1]} on core {machine['client_core']}"
    )
    lines = [
        f"- {machine['cpu']}{' (virtual)' if machine['virtual'] else ''}; {where}",
        f"- {machine['system']}; {machine['python']}; {machine['openssl']}; {machine['compiler']}",
        f"- duck {duck}" + "".join(f", {name} {version}" for name, version in versions.items()),
        f"- {results['begun'][:10]}: medians of {settings['rounds']} interleaved rounds of {settings['seconds']:g} s"
        + (", interrupted" if results["interrupted"] else ""),
    ]
    if others := disturbance(results):
        lines.append(
            f"- other processes took {_share(others.median)} of a core meanwhile, {_share(others.highest)} at worst"
        )
    return "\n".join(lines)


def _overview(results: dict[str, Any], found: dict[tuple[str, str], Figure]) -> str:
    def cell(workload: dict[str, Any], server: str) -> str:
        figure = found.get((workload["name"], server))
        if figure is None:
            return "-"
        if figure.value is None:
            return "failed"
        return number(figure.value.median) + ("†" if figure.limited_by_client else "")

    return _matrix(results, found, cell, "Medians; more is better, but for KiB")


def _compared(results: dict[str, Any], baseline: str) -> str:
    spreads = ratios(results, baseline)

    def cell(workload: dict[str, Any], server: str) -> str:
        spread = spreads.get((workload["name"], server))
        return f"{spread.median:.2f}" if spread else "-"

    title = next(server["title"] for server in results["servers"] if server["name"] == baseline)
    return _matrix(results, spreads, cell, f"As multiples of {title} in the same round")


def _matrix(
    results: dict[str, Any],
    known: dict[tuple[str, str], Any],
    cell: Callable[[dict[str, Any], str], str],
    caption: str,
) -> str:
    """A table with a row for each workload and a column for each server, as far as they are known."""
    servers = [server for server in results["servers"] if any(name == server["name"] for _, name in known)]
    workloads = [workload for workload in results["workloads"] if any(name == workload["name"] for name, _ in known)]
    rows = [
        [f"{workload['title']} ({workload['unit']})", *(cell(workload, server["name"]) for server in servers)]
        for workload in workloads
    ]
    return f"**{caption}**\n\n" + table(["", *(server["title"] for server in servers)], rows)


def _detail(
    results: dict[str, Any],
    workload: dict[str, Any],
    found: dict[tuple[str, str], Figure],
    baselines: Sequence[str],
) -> str:
    name = workload["name"]
    compared = {baseline: ratios(results, baseline) for baseline in baselines if (name, baseline) in found}
    titles = {server["name"]: server["title"] for server in results["servers"]}
    is_memory = workload["mode"] == "idle"
    head = ["", workload["unit"], "lowest - highest", *(f"x {titles[baseline]}" for baseline in compared)]
    if not is_memory:
        by_cpu = [ratios(results, baseline, per_cpu_second) for baseline in compared]
        head += ["p50", "p99", f"{_measured(results)} CPU each", f"{_measured(results)} busy"]
        head += [f"x {titles[baseline]} by CPU" for baseline in compared]
    rows = []
    for server in results["servers"]:
        figure = found.get((name, server["name"]))
        if figure is None:
            continue
        if figure.value is None:
            rows.append([server["title"], "failed", *[""] * (len(head) - 2)])
            continue
        row = [server["title"], number(figure.value.median), _range(figure.value)]
        row += [_ratio(spreads.get((name, server["name"]))) for spreads in compared.values()]
        if not is_memory:
            row += [_time(figure.p50), _time(figure.p99), _time(figure.server_us), _share(figure.server_cpu)]
            row += [_ratio(spreads.get((name, server["name"]))) for spreads in by_cpu]
        rows.append(row)
    return f"### {workload['title']}\n\n" + table(head, rows) if rows else ""


def _notes(results: dict[str, Any], found: dict[tuple[str, str], Figure]) -> str:
    lines = []
    if any(figure.limited_by_client for figure in found.values()):
        lines.append("† The load client's core was busy all the time: the server can do more.")
    lines += [
        f"Not measured: {server['title']}, {server['missing'].splitlines()[0]}"
        for server in results["servers"]
        if server["missing"]
    ]
    for (workload, server), figure in found.items():
        lines += [f"Failed: {server} under {workload}: {error}" for error in figure.errors]
    return "\n".join(f"- {line}" for line in lines)


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table of Markdown, its first column to the left and the others to the right."""
    return "\n".join(_lines(head, rows))


def _lines(head: Row, rows: Sequence[Row]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def number(value: float) -> str:
    """A figure in three digits or so, with a k for thousands from 10,000 on."""
    if value >= 100_000:
        return f"{value / 1000:,.0f}k"
    if value >= 10_000:
        return f"{value / 1000:.1f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _range(spread: Spread) -> str:
    return f"{number(spread.lowest)} - {number(spread.highest)}"


def _ratio(spread: Spread | None) -> str:
    return f"{spread.median:.2f} ({spread.lowest:.2f} - {spread.highest:.2f})" if spread else ""


def _time(microseconds: float | None) -> str:
    if microseconds is None:
        return ""
    if microseconds >= 1000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds:.1f} µs" if microseconds < 10 else f"{microseconds:.0f} µs"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
