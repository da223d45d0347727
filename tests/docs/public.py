"""The public names of the package, from `__all__` of its public modules."""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

__all__ = ["MODULES", "Name", "members", "names"]

PACKAGE = "duck.contrib.websockets"
MODULES = (
    PACKAGE,
    *(f"{PACKAGE}.{name}" for name in ("exceptions", "extensions", "frame", "logging", "opcodes", "uvicorn")),
    *(f"{PACKAGE}.{name}" for name in ("client", "groups", "metrics", "testing")),
    "duck.http",
    "duck.server",
    "duck.urls",
    "duck.views",
)
INTERNAL = {  # for other modules of ours
    f"{PACKAGE}.client": {"ClientOffer"},
    f"{PACKAGE}.extensions": {"Inflating"},
    f"{PACKAGE}.logging": {
        "cut",
        "end_of",
        "format_address",
        "label",
        "log_access",
        "log_event",
        "log_failure",
        "log_refusal",
        "printable",
        "text_of",
        "traceback_of",
    },
    "duck.urls": {"Paths", "check_parameters", "compile_url"},
}


class Name(NamedTuple):
    """A public name.

    Attributes:
        paths: The dotted names under which the reference may have it.
        value: Its value.
    """

    paths: tuple[str, ...]
    value: Any


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("duck")


def names() -> Iterator[Name]:
    """The classes and functions among the public names, and the submodules."""
    for name in MODULES:
        module = importlib.import_module(name)
        for one in module.__all__:
            value = getattr(module, one)
            if isinstance(value, ModuleType):
                yield Name((value.__name__,), value)
            elif callable(value) and _is_ours(value) and one not in INTERNAL.get(name, ()):
                yield Name((f"{name}.{one}", f"{value.__module__}.{one}"), value)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class of ours, inherited ones too."""
    for name in dir(cls):
        if name.startswith("_"):
            continue
        for base in cls.__mro__:
            if name in vars(base):
                value = vars(base)[name]
                if _is_ours(base) and (isinstance(value, property | classmethod | staticmethod) or callable(value)):
                    yield name, getattr(cls, name)
                break
