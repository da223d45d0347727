"""The documents, in a folder where their code runs."""

import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.processes import free_port
from .snippets import MODULES, ROOT, skip_without_imports


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree."""
    return ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the documents name."""
    for name, source in MODULES.items():
        (tmp_path / name).write_text(source)
    return tmp_path


def _loggers() -> list[logging.Logger]:
    """The root, and those of the package; a block may configure them."""
    return [
        logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict) if not name or name[:4] == "duck"
    ]


@pytest.fixture
def execute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Runs a block as a script beside the files of the documents.

    Without a package that the block imports, the test is skipped. A call of `run` returns at once, and a client finds
    no server at port 8000, even if one runs on this machine.
    """
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("duck.server.run", lambda *args, **kwargs: None)
    before = set(sys.modules)
    logged = {log: (log.level, log.handlers[:], log.disabled) for log in _loggers()}

    def run(source: str) -> dict[str, Any]:
        skip_without_imports(source)
        script = folder / "script.py"
        script.write_text(source.replace("localhost:8000", f"localhost:{free_port()}"))
        return runpy.run_path(str(script), run_name="__main__")

    yield run
    for name in MODULES:
        if name.removesuffix(".py") not in before:
            sys.modules.pop(name.removesuffix(".py"), None)
    for log in _loggers():
        level, log.handlers[:], log.disabled = logged.get(log, (logging.NOTSET, [], False))
        log.setLevel(level)
