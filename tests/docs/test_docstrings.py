"""Every public name has a docstring: modules, classes, functions, and the methods and properties of classes."""

import ast
import importlib
import inspect
import re

import pytest

from .public import MODULES, members, names
from .snippets import ROOT

pytest.importorskip("uvicorn")

SECTION = re.compile(r"^(?:Args|Attributes|Raises):\n((?:    .*\n?)+)", re.MULTILINE)
ENTRY = re.compile(r"    \*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*: \S")


def test_every_public_name_has_a_docstring():
    missing = [name for name in MODULES if not importlib.import_module(name).__doc__]
    for (path, *_), value in names():
        if not value.__doc__:
            missing.append(path)
        if inspect.isclass(value):
            missing += [f"{path}.{name}" for name, member in members(value) if not inspect.getdoc(member)]
    assert missing == []


def test_every_entry_of_a_section_has_a_name():
    """A line that continues an entry is indented deeper: else the documents have it as another entry."""
    wrong = []
    for path in sorted(ROOT.joinpath("duck").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for section in SECTION.findall(ast.get_docstring(node) or ""):
                entries = [line for line in section.splitlines() if line.startswith("    ") and line[4] != " "]
                wrong += [f"{path.name}: {line.strip()}" for line in entries if not ENTRY.match(line)]
    assert wrong == []


def test_the_first_line_of_a_property_has_no_colon():
    """napoleon takes the words before it for a type."""
    wrong = [
        f"{path}.{name}"
        for (path, *_), value in names()
        if inspect.isclass(value)
        for name, member in members(value)
        if isinstance(member, property) and ":" in (member.__doc__ or "").partition("\n")[0]
    ]
    assert wrong == []
