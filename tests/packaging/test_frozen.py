"""Programs that freeze applications, such as PyInstaller: they read import statements, and bring no interpreter."""

import sys
from modulefinder import ModuleFinder

import pytest

from duck.server import run
from duck.server.workers.supervisor import WorkersUnavailableError


def test_each_module_is_found_by_import_statements(root):
    finder = ModuleFinder(path=[str(root)])  # modules from elsewhere are among the missing ones
    finder.import_hook("duck.server.cli")
    found, missing = set(finder.modules), set(finder.badmodules)
    assert {
        "duck.commands.bench",
        "duck.commands.connect",
        "duck.contrib.websockets.__main__",
        "duck.contrib.websockets.codec.pure",
        "duck.contrib.websockets.groups.redis",
        "duck.contrib.websockets.metrics.prometheus",
    } <= found
    assert {"ctypes", "httptools", "isal", "prometheus_client", "redis", "uvloop", "watchfiles", "zlib_ng"} <= missing


def test_modules_that_the_interpreter_has_frozen_need_no_files(python):
    """As in programs of cx_Freeze."""
    code = "import importlib, os; del importlib.__file__, os.__file__; from duck.server.cli import main; main(['info'])"
    process = python("-c", code, DUCK_NO_EXTENSIONS="1")
    assert process.stdout.startswith("duck-websockets:"), process.stderr


def test_a_frozen_program_starts_no_workers(monkeypatch):
    """Each of them would be the program itself, and start workers again."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(WorkersUnavailableError, match="once for each process"):
        run([], port=0, workers=2)
