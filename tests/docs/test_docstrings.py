"""Every public name has a docstring: modules, classes, functions, and the methods and properties of classes."""

import importlib
import inspect

import pytest

from .public import MODULES, members, names

pytest.importorskip("uvicorn")


def test_every_public_name_has_a_docstring():
    missing = [name for name in MODULES if not importlib.import_module(name).__doc__]
    for (path, *_), value in names():
        if not value.__doc__:
            missing.append(path)
        if inspect.isclass(value):
            missing += [f"{path}.{name}" for name, member in members(value) if not inspect.getdoc(member)]
    assert missing == []
