"""The documents, in a folder where their code runs."""

from pathlib import Path

import pytest

from .snippets import MODULES, ROOT


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
