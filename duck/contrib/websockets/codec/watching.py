"""Detection of changed attributes of a view and of its class, in plain Python: the specification of `watching.pxi`."""

from collections.abc import Callable
from typing import Any

__all__ = ["type_version", "watching"]


def watching(names: frozenset[str]) -> tuple[Callable[[Any, str, object], None], Callable[[Any, str], None]]:
    """Returns `__setattr__` and `__delattr__` for a class that watches assignments to some attributes of its objects.

    To be called for one class only: the compiled function keeps the names of the last call.

    Args:
        names: The names of the attributes. Before an assignment to one of them, `_watch(name, value)` is called.
    """

    def __setattr__(self: Any, name: str, value: object) -> None:
        if name in names:
            self._watch(name, value)
        object.__setattr__(self, name, value)

    return __setattr__, object.__delattr__


def type_version(cls: type) -> int:
    """Returns a number that changes with each change of a class or of its bases; 0 if unknown."""
    return 0
