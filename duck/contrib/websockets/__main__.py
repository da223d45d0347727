"""`python -m duck.contrib.websockets`: shows the installed versions, and whether the codec is compiled."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from . import __version__, codec
from .codec import deflate

__all__ = ["main"]


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _python() -> str:
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    name = f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
    return name if has_gil else f"{name}, without the GIL"


def _neighbour(framework: str) -> str:
    """The consequence of an installed Duck Framework, which owns the package `duck` as well."""
    if _version("duck-websockets") is None:
        return f"{framework}, whose WebSockets are replaced by these"
    return f"{framework} is installed too, and owns the package `duck` as well: give each an environment of its own"


def main() -> int:
    """Prints the version, the codec and the reason for its choice, the SIMD tier and the compression library."""
    facts = {
        "duck-websockets": __version__ if _version("duck-websockets") else f"{__version__} (not installed)",
        "python": _python(),
        **codec.describe(),
        "compression": deflate.BACKEND.name,
    }
    framework = _version("duckframework")
    if framework is not None:
        facts["duckframework"] = _neighbour(framework)
    for name, value in facts.items():
        print(f"{name + ':':<17}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
