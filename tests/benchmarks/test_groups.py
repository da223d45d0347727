"""`python -m benchmarks.groups` and `python -m benchmarks.soak` from end to end, in short."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.echo import results

from ..support.redis import program
from .compiler import needs_compiler

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, to pin processes and for their memory")


@pytest.fixture
def measure():
    """Runs a benchmark with Redis, and returns its output."""
    program()

    def run(name, *arguments):
        words = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@needs_compiler
@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
def test_groups_are_measured(measure, tmp_path):
    short = ("--servers", "duck", "--workloads", "chat", "--rounds", 1, "--seconds", 0.2, "--members", 10)
    assert "one group of 10 at two processes" in measure("groups", *short, "--out", tmp_path)
    (sample,) = results.read(tmp_path / "groups.toml")["samples"]
    assert sample["value"] > 0
    assert 0 < sample["p50_us"] <= sample["p99_us"]


def test_a_soak_in_which_redis_and_workers_are_killed(measure):
    told = measure("soak", "--minutes", 0.03, "--clients", 30, "--groups", 4, "--pace", 0.2)
    # The report may tell of handshakes that failed "as a worker was killed" as well.
    assert told.count("Redis was killed, and started again\n") == 2
    assert told.count(" was killed; another served after ") == 2
    assert told.endswith("no faults\n")
