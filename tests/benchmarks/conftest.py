"""Makes `benchmarks`, which is never installed, importable."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # at the end, because the installed package is tested, not the checkout
