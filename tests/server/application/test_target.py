"""What the target of `duck serve` names. The errors of wrong targets are among those of the command."""

import asyncio
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


def test_a_file_is_the_module_of_its_name(loaded, folder):
    """So that a pickle, or a child process of multiprocessing, finds its functions, and another module its objects."""
    (folder / "together.py").write_text("import pickle, pond\nsame = pickle.loads(pickle.dumps(pond.Echo))\n")
    routes = loaded("pond.py").urlpatterns
    assert routes[0]["handler"] is __import__("together").same


def test_a_file_that_is_imported_already_is_no_second_module(loaded, folder, monkeypatch):
    """As by a logging configuration that names its classes."""
    monkeypatch.syspath_prepend(folder)
    pond = __import__("pond")
    assert loaded("pond.py").urlpatterns is pond.urlpatterns


@pytest.mark.parametrize("name", ["__main__.py", "asyncio.py", "sys.py", "two.words.py", "two-words.py"])
def test_a_file_may_have_the_name_of_another_module_or_none(loaded, folder, name):
    (folder / name).write_text(f"import asyncio, sys\n{ECHO}")
    assert len(loaded(name).urlpatterns) == 2
    assert asyncio.run and sys.path


def test_a_file_may_have_the_name_of_a_package_beside_it(loaded, folder):
    (folder / "pond").mkdir()
    (folder / "pond" / "__init__.py").write_text("")
    assert len(loaded("pond.py").urlpatterns) == 2
