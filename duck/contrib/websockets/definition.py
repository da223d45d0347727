"""`Definition`: the overridden steps and the checked settings of a view's or a client's class.

Both may change after the class statement, by a decorator, a test or a plugin. So a class is examined at its creation,
and again at the first connection after an attribute has changed.
"""

import warnings
from operator import is_
from typing import Any

from .codec import type_version
from .settings import BY_NAME, SETTINGS

__all__ = ["STEPS", "WATCHED", "Definition", "check_method", "warn_of_clashes", "warn_of_misspellings"]

STEPS = (
    "_heartbeat_loop",
    "_receive_loop",
    "initiate_upgrade_to_ws",
    "on_close",
    "on_handshake",
    "on_new_frame",
    "on_open",
    "on_stream",
    "read_frame",
    "run",
    "run_forever",
    "send_frame",
)
"""The steps of serving that a class may override. Messages skip the steps that it does not override."""

WATCHED = frozenset({*STEPS, "on_receive", *BY_NAME})
"""Attributes for which an assignment to an object is checked, noted or refused."""

_HOSTS = frozenset({"drain", "start", "terminate"})
"""Methods that hosts call."""

_ALLOWED = frozenset({*STEPS, "_definition"})
"""Names with an underscore that a class may have, or that `__init_subclass__` sets."""

_WHOLE = frozenset({"_receive_loop", "on_new_frame", "read_frame"})
"""Steps that handle whole messages, so a class cannot override both one of them and `on_stream`."""

_METHODS = (*STEPS, "on_gap", "on_receive")
_ATTRIBUTES = (*_METHODS, *BY_NAME)

_HOOKS = tuple(name for name in _METHODS if name.startswith("on_"))
_ALIKE = 0.87  # the similarity of `on_recieve` and `on_receive` is 0.9


_FOREIGN = {
    "on_connect": ("on_open", "on_handshake"),
    "on_disconnect": ("on_close",),
    "on_message": ("on_receive", "on_stream", *_WHOLE),
}
"""Names of hooks in other libraries, each with the hooks of this one that may call a method of that name."""


def _attributes_of(endpoint_class: type) -> tuple[Any, ...]:
    return tuple([getattr(endpoint_class, name, None) for name in _ATTRIBUTES])


def warn_of_misspellings(endpoint_class: type) -> None:
    """Warns of attributes whose names are almost those of a setting or a hook, because they have no effect."""
    for name in vars(endpoint_class):
        known = _HOOKS if name.startswith("on_") else tuple(BY_NAME) if name.isupper() else ()
        if not known or name in known:
            continue
        import difflib  # most classes do not need it

        if meant := _foreign(endpoint_class, name) or difflib.get_close_matches(name, known, 1, _ALIKE):
            warnings.warn(
                f"{endpoint_class.__name__}.{name} has no effect: {meant[0]} is the name of the"
                f" {'hook' if known is _HOOKS else 'setting'}",
                RuntimeWarning,
                stacklevel=3,  # the class statement
            )


def _foreign(endpoint_class: type, name: str) -> tuple[str, ...]:
    """Returns our names of a hook with the name of another library's; none if a hook of the class may call it."""
    ours = _FOREIGN.get(name, ())
    package = __name__.rpartition(".")[0]
    own = (base for base in endpoint_class.__mro__ if not base.__module__.startswith(package))
    return () if any(hook in vars(base) for base in own for hook in ours) else ours


def warn_of_clashes(endpoint_class: type) -> None:
    """Warns of attributes that replace internal ones by accident, because the connection would not be served.

    The attributes are those of the class, and of its bases that are no views and come before ours.
    """
    package = __name__.rpartition(".")[0]
    if endpoint_class.__module__.startswith(package):
        return
    mro = endpoint_class.__mro__
    ours = [base for base in mro if base.__module__.startswith(package)]
    examined = {each for base in endpoint_class.__bases__ if hasattr(base, "_definition") for each in base.__mro__}
    for owner in mro[: mro.index(ours[0])]:
        for name in () if owner in examined else vars(owner):
            is_free = not name.startswith("_") or name.endswith("__") or name in _ALLOWED
            if is_free and name not in _HOSTS:
                continue
            replaced = next((base.__name__ for base in ours if name in vars(base)), "")
            if replaced:
                advice = "choose another name"
                if owner is not endpoint_class:
                    advice = f"put {owner.__name__} behind {ours[0].__name__} among the bases"
                warnings.warn(
                    f"{endpoint_class.__name__}.{name} replaces an internal attribute of {replaced}, which needs it to"
                    f" serve a connection: {advice}",
                    RuntimeWarning,
                    stacklevel=3,  # the class statement
                )


def check_method(owner: str, name: str, value: object) -> None:
    """Checks the value of a hook or of another step.

    Raises:
        TypeError: It cannot be called.
    """
    if not (callable(value) or hasattr(type(value), "__get__")):
        raise TypeError(f"{owner}.{name} is {value!r}, which cannot be called: define it as a method, or leave it out")


class Definition:
    """The result of examining a class.

    Args:
        endpoint_class: The class.
        base: The class with the original steps and all settings.

    Attributes:
        base: The same.
        overridden: Names of the overridden steps.
        computed: Names of the settings that are properties; they are checked for each connection.
        version: The `type_version` of the examined class; None if the class must be compared each time.

    Raises:
        TypeError, ValueError: A setting is invalid, or a step cannot be called. The message names it and a valid value.
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
        for name in _METHODS:
            if hasattr(endpoint_class, name):
                check_method(endpoint_class.__name__, name, getattr(endpoint_class, name))
        self.overridden = frozenset(
            name for name in STEPS if getattr(endpoint_class, name, None) is not getattr(base, name, None)
        )
        clash = self.overridden & _WHOLE if "on_stream" in self.overridden else None
        if clash:
            owner, names = endpoint_class.__name__, ", ".join(sorted(clash))
            raise TypeError(f"{owner} overrides on_stream and {names}, which handle whole messages: leave one out")
        self.computed = tuple(computed)
        self._attributes = _attributes_of(endpoint_class)
        self.version: int | None = None

    def is_that_of(self, endpoint_class: type) -> bool:
        """Whether the class still has the same steps and settings."""
        same = all(map(is_, self._attributes, _attributes_of(endpoint_class)))
        self.version = (same and not self.computed and type_version(endpoint_class)) or None
        return same
