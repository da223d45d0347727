"""`python -m duck.contrib.websockets`: am I accelerated?"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from . import _codec, deflate

__all__ = ["main"]


def _version() -> str:
    try:
        return version("duck-websockets")
    except PackageNotFoundError:
        return "unknown (not installed)"


def main() -> int:
    """Prints version, codec, why this codec, the SIMD tier, and who compresses; exit code 0."""
    facts = {
        "duck-websockets": _version(),
        "python": f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}",
        **_codec.describe(),
        "compression": deflate.BACKEND.name,
    }
    for name, value in facts.items():
        print(f"{name + ':':<17}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
