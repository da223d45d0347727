"""What the target of `duck serve` names. The errors of wrong targets are among those of the command."""

import sys

import pytest

from duck.server.application.target import load

from ..command import ECHO, ONE_VIEW


@pytest.fixture
def loaded(folder, monkeypatch):
    """Loads a target from the folder, as a new process would."""
    (folder / "pond.py").write_text(ECHO)
    (folder / "lone_duck.py").write_text(ONE_VIEW)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield load
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("target", ["pond.py", "./pond.py", "pond", "pond:urlpatterns"])
def test_a_file_or_a_module_has_routes(loaded, target):
    assert [pattern["url"] for pattern in loaded(target).urlpatterns] == ["/", "/stubborn"]


@pytest.mark.parametrize("target", ["pond:Echo", "lone_duck.py", "lone_duck"])
def test_a_view_is_named_or_the_only_one(loaded, target):
    assert loaded(target).urlpatterns.__name__ == "Echo"


@pytest.mark.parametrize("target", ["living.py", "living", "living:Echo"])
def test_the_lifespan_is_that_of_the_module(loaded, folder, target):
    (folder / "living.py").write_text(f"{ONE_VIEW}\ndef lifespan(server): pass\n")
    assert loaded(target).lifespan.__name__ == "lifespan"
