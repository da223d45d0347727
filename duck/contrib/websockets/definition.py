"""The class of a view or a client as it is when a connection opens: the steps that it overrides, settings that hold.

Both may change after the class statement: a decorator, a test or a plugin puts a hook or a setting on a class. So a
class is looked at when it is made, and again when a connection finds an attribute that is not the one seen before.
"""

from operator import is_
from typing import Any

from .codec import type_version
from .settings import BY_NAME, SETTINGS

__all__ = ["STEPS", "WATCHED", "Definition"]

STEPS = (
    "_heartbeat_loop",
    "_receive_loop",
    "initiate_upgrade_to_ws",
    "on_close",
    "on_new_frame",
    "on_open",
    "read_frame",
    "run",
    "run_forever",
    "send_frame",
)
"""Messages take a shorter way past those that a class does not override."""

WATCHED = frozenset({*STEPS, "on_receive", *BY_NAME})
"""Attributes of which an assignment to an object is checked or noted, or refused."""

_ATTRIBUTES = (*STEPS, *BY_NAME)


def _attributes_of(endpoint_class: type) -> tuple[Any, ...]:
    return tuple([getattr(endpoint_class, name, None) for name in _ATTRIBUTES])


class Definition:
    """A class as it was looked at last.

    Args:
        endpoint_class: The class.
        base: Has the steps that do not count as overridden, and the settings that there are.

    Attributes:
        base: The same.
        overridden: The names of the steps that are its own.
        computed: The names of the settings that a property gives, so that they are checked for each connection.
        version: The `type_version` with which the class need not be looked at again; None where there is none.

    Raises:
        TypeError, ValueError: A setting cannot be what it is; names it and says what to write.
    """

    __slots__ = ("_attributes", "base", "computed", "overridden", "version")

    def __init__(self, endpoint_class: type, base: type) -> None:
        computed = []
        self.base = base
        for setting in SETTINGS:
            if not hasattr(base, setting.name):
                continue
            value = getattr(endpoint_class, setting.name)
            if hasattr(type(value), "__get__") and not callable(value):
                computed.append(setting.name)
            else:
                setting.check(endpoint_class.__name__, value)
        self.overridden = frozenset(
            name for name in STEPS if getattr(endpoint_class, name, None) is not getattr(base, name, None)
        )
        self.computed = tuple(computed)
        self._attributes = _attributes_of(endpoint_class)
        self.version: int | None = None

    def is_that_of(self, endpoint_class: type) -> bool:
        """Whether the class has still the same steps and settings."""
        same = all(map(is_, self._attributes, _attributes_of(endpoint_class)))
        self.version = (same and not self.computed and type_version(endpoint_class)) or None
        return same
