"""A view's class as it is when a connection opens: the steps of serving that it overrides, and settings that hold.

Both may change after the class statement: a decorator, a test or a plugin puts a hook or a setting on a class. So a
class is looked at when it is made, and again when a connection finds an attribute that is not the one seen before.
"""

from operator import attrgetter, is_
from typing import TYPE_CHECKING

from .codec import type_version
from .settings import BY_NAME, SETTINGS

if TYPE_CHECKING:
    from .view import WebSocketView

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
"""Attributes of which an assignment to a view is checked or noted, or refused."""

_steps_of = attrgetter(*STEPS)
_attributes_of = attrgetter(*STEPS, *BY_NAME)


class Definition:
    """A class as it was looked at last.

    Args:
        view_class: The class.
        base: Has the steps that do not count as overridden.

    Attributes:
        overridden: The names of the steps that are its own.
        computed: The names of the settings that a property gives, so that they are checked for each connection.

        version: The `type_version` with which the class need not be looked at again; None where there is none.

    Raises:
        TypeError, ValueError: A setting cannot be what it is; names it and says what to write.
    """

    __slots__ = ("_attributes", "computed", "overridden", "version")

    def __init__(self, view_class: "type[WebSocketView]", base: "type[WebSocketView]") -> None:
        computed = []
        for setting in SETTINGS:
            value = getattr(view_class, setting.name)
            if hasattr(type(value), "__get__") and not callable(value):
                computed.append(setting.name)
            else:
                setting.check(view_class.__name__, value)
        steps = zip(STEPS, _steps_of(view_class), _steps_of(base), strict=True)
        self.overridden = frozenset(name for name, own, inherited in steps if own is not inherited)
        self.computed = tuple(computed)
        self._attributes = _attributes_of(view_class)
        self.version: int | None = None

    def is_that_of(self, view_class: "type[WebSocketView]") -> bool:
        """Whether the class has still the same steps and settings."""
        same = all(map(is_, self._attributes, _attributes_of(view_class)))
        self.version = (same and not self.computed and type_version(view_class)) or None
        return same
