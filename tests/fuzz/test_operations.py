"""The operations that `.ci/sanitize` runs under sanitizers and valgrind."""

import subprocess
import sys
from pathlib import Path

import pytest

# The checkout comes last on the path, because the codec may be compiled in an installed package only.
PROGRAM = f"""
import runpy, sys
sys.path.append({str(Path(__file__).parents[2])!r})
runpy.run_module("tests.fuzz.operations", run_name="__main__")
"""


def test_every_operation_succeeds_and_leaves_no_object():
    """In a process of its own, because the compiled module keeps functions that the operations give it."""
    pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)
    done = subprocess.run([sys.executable, "-P", "-c", PROGRAM], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
