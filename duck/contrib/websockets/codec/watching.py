"""What a view needs of its class and of assignments to it, in Python: the specification of `watching.pxi`."""

from collections.abc import Callable
from typing import Any

__all__ = ["type_version", "watching"]


def watching(names: frozenset[str]) -> tuple[Callable[[Any, str, object], None], Callable[[Any, str], None]]:
    """`__setattr__` and `__delattr__` of the class whose objects are told of some assignments before they are made.

    Args:
        names: Of the attributes. Where one is set, `_watch(name, value)` is called first.
    """

    def __setattr__(self: Any, name: str, value: object) -> None:
        if name in names:
            self._watch(name, value)
        object.__setattr__(self, name, value)

    return __setattr__, object.__delattr__


def type_version(cls: type) -> int:
    """A number that is another one whenever a class, or a class that it inherits from, has changed; 0 if unknown."""
    return 0
