"""The command line of `python -m benchmarks.groups`."""

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Any

from ..echo import cores, report, results
from .registry import named
from .run import WORKLOADS, Settings, run

OUT = Path("build") / "groups"


def main() -> int:
    """Measures, prints the report, and writes it with the figures.

    Returns:
        0; 1 if something that was measured failed; 2 if nothing could be measured.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description="Compares groups on Redis.")
    parser.add_argument("--servers", metavar="A,B", help="servers to measure (all)")
    parser.add_argument(
        "--workloads", metavar="X,Y", default=",".join(workload.name for workload in WORKLOADS), help="(%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=Settings.rounds, help="measurements of each (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=Settings.seconds, help="seconds of a measurement (%(default)g)"
    )
    parser.add_argument("--members", type=int, default=Settings.members, help="members of the group (%(default)s)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=OUT, help="folder for the results (%(default)s)")
    options = parser.parse_args()
    try:
        servers = named(options.servers)
    except ValueError as error:
        parser.error(str(error))
    workloads = [workload for workload in WORKLOADS if workload.name in options.workloads.split(",")]
    settings = Settings(options.rounds, options.seconds, members=options.members)
    found = run(servers, workloads, settings, cores.choose(), lambda line: print(line, file=sys.stderr, flush=True))
    if not any("value" in sample for sample in found["samples"]):
        return 2
    text = report.markdown(found, ["channels-core", "channels-pubsub", "socketio"]) + "\n" + _comparisons(found)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    results.write(found, options.out / "groups.toml", "benchmarks.groups")
    (options.out / "groups.md").write_text(text)
    return int(any("error" in sample for sample in found["samples"]))


def _comparisons(found: dict[str, Any]) -> str:
    """Returns our deliveries per second of the servers' CPU time, and our 99th percentiles, beside the rivals'."""
    lines = []
    for server in found["servers"]:
        if server["name"] != "duck":
            ours, theirs = ("chat", "duck"), ("chat", server["name"])
            if ratio := _ratio(found, "server_us", theirs, ours):
                lines.append(f"- deliveries of duck per second of the servers' CPU: {ratio} times {server['title']}")
            if ratio := _ratio(found, "p99_us", ours, theirs):
                lines.append(f"- p99 of duck: {ratio} that of {server['title']}")
    if ratio := _ratio(found, "p99_us", ("slow", "duck"), ("even", "duck")):
        lines.append(f"- p99 of duck beside slow members: {ratio} that without them")
    return "\n".join(lines)


def _ratio(found: dict[str, Any], figure: str, one: tuple[str, str], other: tuple[str, str]) -> str:
    def by_round(key: tuple[str, str]) -> dict[int, float]:
        return {
            sample["round"]: sample[figure]
            for sample in found["samples"]
            if "value" in sample and (sample["workload"], sample["server"]) == key
        }

    ones, others = by_round(one), by_round(other)
    rounds = [ones[number] / others[number] for number in ones.keys() & others.keys()]
    return f"{median(rounds):.2f} ({min(rounds):.2f} - {max(rounds):.2f})" if rounds else ""


if __name__ == "__main__":
    sys.exit(main())
