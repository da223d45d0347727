"""The open files and the objects of a process, for tests of what connections leave behind."""

import gc
import os
from collections import Counter
from pathlib import Path

__all__ = ["left"]

_FILES = Path("/proc/self/fd")


def left() -> tuple[int, Counter[str]]:
    """The number of open files, 0 where the system does not list them, and of the objects of each class of ours."""
    files = len(os.listdir(_FILES)) if _FILES.exists() else 0
    kinds = map(type, gc.get_objects())
    return files, Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("duck."))
