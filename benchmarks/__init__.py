"""Benchmarks: `pytest benchmarks` for the codec, `python -m benchmarks.echo` for whole servers, `.groups`, `.soak`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The installed package is measured; the one beside this folder may not be compiled.
if sys.path[0] in ("", str(ROOT)):
    sys.path.append(sys.path.pop(0))
