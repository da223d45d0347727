"""The method `send` of views and clients, in Python: the specification of `sending.pxi`."""

from typing import Any

__all__ = ["sending"]


def sending(cls: type) -> Any:
    """Returns the method `send` of a class whose objects have their `HotPath` in the attribute `_protocol`.

    If the attribute is the first slot of the class, the compiled codec returns a method in C with the same parameters,
    docstring and results. It gives the message to the `HotPath` itself, and calls the method in Python where there is
    none.
    """
    return cls.__dict__["send"]
