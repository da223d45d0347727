"""The command line of `python -m benchmarks.soak`."""

import argparse
import sys

from .run import Settings, soak


def main() -> int:
    """Runs a soak; returns 0 if it found nothing, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Soaks groups on Redis.")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of the soak (%(default)g)")
    parser.add_argument("--clients", type=int, default=Settings.clients, help="number of clients (%(default)s)")
    parser.add_argument("--groups", type=int, default=Settings.groups, help="number of groups (%(default)s)")
    parser.add_argument("--pace", type=float, default=Settings.pace, help="seconds between actions (%(default)g)")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="decides on the actions (%(default)s)")
    options = parser.parse_args()
    settings = Settings(options.minutes * 60, options.clients, options.groups, options.pace, options.seed)
    report = soak(settings, lambda line: print(line, flush=True))
    for name, count in sorted(report.counts.items()):
        print(f"{count:10,} {name}")
    print(*report.lines, *(f"FAULT: {fault}" for fault in report.faults), sep="\n")
    print("no faults" if not report.faults else f"{len(report.faults)} faults")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
