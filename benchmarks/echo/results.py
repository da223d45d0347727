"""The file of a run's results: TOML, with a line for each measurement.

The head describes the run, the machine, the servers and the workloads. `samples` is a table in a string: a line of
numbers in fixed columns, or the text of an error. The file holds every figure that the report and the chart show.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "read", "write"]

FORMAT = 2
"""Version of the layout; it grows when older readers would misread a file."""

_COLUMNS = ("value", "p50_us", "p99_us", "server_us", "server_cpu", "client_cpu", "others_cpu")
_DIGITS = 6  # significant ones; rounds differ in the second


def write(results: dict[str, Any], path: Path, program: str = "benchmarks.echo") -> None:
    """Writes the results of `run`."""
    path.write_text("\n".join(_lines(results, program)) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Reads a file of `write`.

    Raises:
        ValueError: The file is not TOML, or has another format.
    """
    results = tomllib.loads(path.read_text(encoding="utf-8"))
    if results.get("format") != FORMAT:
        raise ValueError(f"{path} has format {results.get('format')}, and this program reads format {FORMAT}")
    results.setdefault("clients", False)
    for kind in ("servers", "workloads"):
        results[kind] = [{"name": name, **facts} for name, facts in results[kind].items()]
    for server in results["servers"]:
        server.setdefault("missing", None)
    results["samples"] = [_sample(line) for line in results["samples"].splitlines()[1:]]
    return results


def _lines(results: dict[str, Any], program: str) -> Iterator[str]:
    yield f"# Results of `python -m {program}`; `python -m benchmarks.echo --results FILE` prints the report."
    for name in ("begun", "command", "interrupted"):
        yield f"{name} = {_value(results[name])}"
    yield f"clients = {_value(results.get('clients', False))}"
    yield f"format = {FORMAT}"
    yield 'samples = """'
    yield from _table(results["samples"])
    yield '"""'
    for name in ("settings", "machine"):
        yield f"\n[{name}]"
        yield from (f"{key} = {_value(value)}" for key, value in results[name].items() if value is not None)
    for name in ("servers", "workloads"):
        yield f"\n[{name}]"
        for described in results[name]:
            facts = {key: value for key, value in described.items() if key != "name"}
            yield f"{_key(described['name'])} = {_value(facts)}"


def _table(samples: list[dict[str, Any]]) -> Iterator[str]:
    rows = [["workload", "server", "round", *_COLUMNS]]
    for sample in samples:
        row = [sample["workload"], sample["server"], str(sample["round"])]
        if "error" in sample:
            # A string of JSON inside a string of TOML.
            row.append(json.dumps(sample["error"]).replace("\\", "\\\\").replace('"', '\\"'))
        else:
            row += [_number(sample[name]) if name in sample else "-" for name in _COLUMNS]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*(row[:3] for row in rows), strict=True)]
    for row in rows:
        names = [word.ljust(width) for word, width in zip(row[:3], widths, strict=True)]
        yield " ".join([*names, *(word.rjust(10) for word in row[3:])])


def _sample(line: str) -> dict[str, Any]:
    workload, server, number, rest = line.split(maxsplit=3)
    sample: dict[str, Any] = {"workload": workload, "server": server, "round": int(number)}
    if rest.startswith('"'):
        return sample | {"error": json.loads(rest)}
    cells = zip(_COLUMNS, rest.split(), strict=True)
    return sample | {name: float(cell) for name, cell in cells if cell != "-"}


def _number(value: float) -> str:
    return f"{value:.{_DIGITS}g}" if value < 10**_DIGITS else f"{value:.0f}"


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    """A value of TOML on one line; entries of a mapping that are None are left out."""
    if isinstance(value, dict):
        entries = [f"{_key(key)} = {_value(entry)}" for key, entry in value.items() if entry is not None]
        return f"{{{', '.join(entries)}}}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's strings, numbers and booleans are TOML's, but for DEL, which no name here has.
    return json.dumps(value, ensure_ascii=False)
