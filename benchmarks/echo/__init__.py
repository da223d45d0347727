"""Whole servers, measured side by side: `python -m benchmarks.echo --help`."""

import sys
from pathlib import Path

# The installed package is measured; the one beside this folder may not be compiled.
if sys.path[0] in ("", str(Path(__file__).resolve().parents[2])):
    sys.path.append(sys.path.pop(0))
