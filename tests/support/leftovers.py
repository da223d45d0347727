"""The open files and the objects of a process, for tests of leaks."""

import gc
import os
from collections import Counter
from pathlib import Path

__all__ = ["left"]

_FILES = Path("/proc/self/fd")


def left() -> tuple[int, Counter[str]]:
    """The number of open files (0 if the system lists none), and of the objects of each class of the package."""
    files = len(os.listdir(_FILES)) if _FILES.exists() else 0
    kinds = map(type, gc.get_objects())
    return files, Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("duck."))
