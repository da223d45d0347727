"""The targets by name, and the kept findings."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

__all__ = ["FOUND", "TARGETS", "found", "load"]

TARGETS = ("reader", "pieces", "connection", "handshake", "head", "inflate", "server")

FOUND = Path(__file__).parent / "found"
"""The folder of each target's corpus, to which atheris writes the inputs for which `check` raises."""


def load(name: str) -> ModuleType:
    """The module of a target."""
    return importlib.import_module(f"{__package__}.{name}")


def found(name: str) -> Iterator[Path]:
    """The files of the findings for a target."""
    return (path for path in sorted((FOUND / name).glob("*")) if path.is_file())
