"""Duck Framework in the same environment, which owns the package `duck` as well: it is detected and explained."""

import os

import pytest

EXPLAINED = "duck-websockets and duckframework are installed in the same environment"
SERVER = ("-c", "import duck.server")


@pytest.fixture
def beside(tree):
    """The package, and a folder of the framework's that we have not."""
    (tree / "duck/settings").mkdir()
    (tree / "duck/settings/__init__.py").touch()
    return tree


@pytest.fixture
def metadata(tmp_path):
    """Writes the metadata of an installed package into the folder."""

    def write(name, version):
        folder = tmp_path / "metadata" / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
        return str(folder.parent)

    return write


def test_without_the_framework_there_is_no_warning(python, tree):
    process = python(*SERVER, PYTHONPATH=str(tree), DUCK_NO_EXTENSIONS="1")
    assert (process.returncode, process.stderr) == (0, "")


def test_our_package_installed_last_works_with_a_warning(python, beside):
    """Our files are complete: they work, with a warning."""
    code = "import duck.server; from duck.contrib.websockets import WebSocketView"
    process = python("-c", code, PYTHONPATH=str(beside), DUCK_NO_EXTENSIONS="1")
    assert process.returncode == 0
    assert process.stderr.count(f"RuntimeWarning: {EXPLAINED}") == 1


def test_a_framework_installed_last_is_an_error(python, beside):
    """Its files have replaced ours, so the server would fail later, or run the WebSockets of the framework."""
    (beside / "duck/__init__.py").write_text("__version__ = '2.3.2'\n")
    process = python(*SERVER, PYTHONPATH=str(beside), DUCK_NO_EXTENSIONS="1")
    assert process.returncode == 1
    assert f"ImportError: {EXPLAINED}" in process.stderr
    process = python("-m", "duck", "info", PYTHONPATH=str(beside), DUCK_NO_EXTENSIONS="1")
    assert process.returncode == 2
    assert process.stderr.startswith(f"duck: {EXPLAINED}")
    assert process.stderr.count("\n") == 1


def test_info_names_the_framework(info, tree, metadata):
    metadata("duck-websockets", "0.1.0")
    folders = [str(tree), metadata("duckframework", "2.3.2")]
    facts = info(DUCK_NO_EXTENSIONS="1", PYTHONPATH=os.pathsep.join(folders))
    assert facts["duckframework"].startswith("2.3.2 is installed too, and owns the package `duck` as well")
