"""The installation: its files, their origin, and one version everywhere."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

import pytest

import duck.contrib.websockets


@pytest.fixture
def installed():
    """The installed distribution; the test is skipped when it is used in place."""
    try:
        found = distribution("duck-websockets")
    except PackageNotFoundError:
        pytest.skip("duck-websockets is not installed")
    is_editable = json.loads(found.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable")
    if is_editable or Path(found.locate_file("pyproject.toml")).exists():  # with `python -m pytest`, the source tree's
        pytest.skip("duck-websockets is installed in place")
    return found


@pytest.fixture
def project(root):
    with open(root / "pyproject.toml", "rb") as file:
        return tomllib.load(file)["project"]


def test_the_installed_package_is_tested(installed):
    """A source tree in the working directory must not hide the installed package."""
    assert Path(duck.__file__).samefile(installed.locate_file("duck/__init__.py"))


def test_types_are_installed(installed):
    files = {str(PurePosixPath(file)) for file in installed.files}
    assert {"duck/py.typed", "duck/contrib/websockets/_speedups.pyi"} <= files


def test_neither_sources_of_the_codec_nor_tests_are_installed(installed):
    files = [PurePosixPath(file) for file in installed.files]
    assert [str(file) for file in files if file.suffix in {".pyx", ".pxi", ".pxd", ".c", ".h"}] == []
    assert {file.parts[0] for file in files if file.suffix in {".py", ".pyi"}} == {"duck"}


def test_the_version_is_the_same_everywhere(installed, project, info, python):
    version = project["version"]
    assert installed.version == version
    assert info(DUCK_NO_EXTENSIONS="1")["duck-websockets"] == version
    process = python("-m", "duck", "--version", DUCK_NO_EXTENSIONS="1")
    assert process.stdout == f"duck-websockets {version}\n"


def test_the_package_has_its_version(project):
    assert duck.contrib.websockets.__version__ == project["version"]


def test_the_changelog_has_the_version(root, project):
    assert f"\n## [{project['version']}]" in (root / "CHANGELOG.md").read_text()


@pytest.fixture
def small_project(tmp_path, root):
    shutil.copy(root / "setup.py", tmp_path)
    links = "[here](#a), [out](https://b.test) [a file](c/d.md#e)\n![chart](f.svg)\n```python\ng[0](h)\n```\n"
    (tmp_path / "README.md").write_text(links)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("", "[here](#a), [out](https://b.test) a file\n\n```python\ng[0](h)\n```\n"),
        (
            'Source = "https://host.test/p"',
            "[here](#a), [out](https://b.test) [a file](https://host.test/p/blob/HEAD/c/d.md#e)\n"
            "![chart](https://host.test/p/raw/HEAD/f.svg)\n```python\ng[0](h)\n```\n",
        ),
    ],
)
def test_relative_links_lead_to_the_repository_on_a_package_index(small_project, source, shown):
    pytest.importorskip("setuptools")
    urls = f"[project.urls]\n{source}\n"
    (small_project / "pyproject.toml").write_text(f'[project]\nname = "x"\nversion = "1"\ndynamic = ["readme"]\n{urls}')
    command = [sys.executable, "setup.py", "-q", "--long-description"]
    environment = os.environ | {"DUCK_BUILD_EXTENSION": "no"}
    process = subprocess.run(command, cwd=small_project, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == shown.strip()


@pytest.mark.parametrize("wish", ["1", "Yes", "maybe"])
def test_an_unknown_value_of_the_build_variable_is_an_error(python, wish):
    pytest.importorskip("setuptools")
    process = python("setup.py", "--name", DUCK_BUILD_EXTENSION=wish)
    assert process.returncode == 1
    assert process.stderr == f"DUCK_BUILD_EXTENSION={wish!r}: set it to yes or no, or unset it\n"
