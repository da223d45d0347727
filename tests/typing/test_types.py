"""Findings of mypy and pyright, both as strict as possible, in code as users write it: an application, the examples,
the blocks of the documents, and a file of mistakes.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import duck

from ..docs.snippets import MODULES, SNIPPETS

for package in ("mypy", "pyright", "aiohttp", "channels", "fastapi"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = {
    **{name: (HERE / name).read_text() for name in ("application.py", "unannotated.py", "wrong.py")},
    **{path.name: path.read_text() for path in (ROOT / "examples").glob("*.py")},
    **{f"{name}.py": source for name, source in SNIPPETS},
    **MODULES,
}
# Django has no types. Those of Channels are not complete, and by them its router does not take Django's routes.
ON_DJANGO = [name for name, source in SOURCES.items() if re.search("^from (channels|django)", source, re.MULTILINE)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with all sources and the settings of the checkers."""
    folder = tmp_path_factory.mktemp("project")
    for name, source in SOURCES.items():
        (folder / name).write_text(source)
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-channels.*,django.*]\nignore_missing_imports = true")
    settings = {"strict": ["*.py"], "ignore": ON_DJANGO, "extraPaths": [str(Path(duck.__file__).parents[1])]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def mypy(folder):
    """The errors of mypy: (file, line, words)."""
    checkout = Path(duck.__file__).parents[1]
    # It finds installed packages by itself, but not an editable installation.
    paths = {} if checkout.name == "site-packages" else {"MYPYPATH": str(checkout)}
    command = [sys.executable, "-m", "mypy", "--output=json", *SOURCES]
    done = subprocess.run(
        command, check=False, cwd=folder, env={**os.environ, **paths}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, 1), done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return [(said["file"], said["line"], said["message"]) for said in found if said["severity"] == "error"]


@pytest.fixture(scope="session")
def pyright(folder):
    """The errors of pyright: (file, line, words)."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(SOURCES)
    found = report["generalDiagnostics"]
    return [(Path(said["file"]).name, said["range"]["start"]["line"] + 1, said["message"]) for said in found]


@pytest.fixture(params=["mypy", "pyright"])
def findings(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - {"wrong.py"}))
def test_right_code_has_no_fault(name, findings):
    assert [said for said in findings if said[0] == name] == []


def test_wrong_code_is_found(findings):
    lines = enumerate(SOURCES["wrong.py"].splitlines(), 1)
    wrong = {number: line for number, line in lines if line.endswith("# wrong")}
    assert len(wrong) > 20
    found = {number for name, number, _ in findings if name == "wrong.py"}
    assert {line for number, line in wrong.items() if number not in found} == set(), "not found"
    assert [said for said in findings if said[0] == "wrong.py" and said[1] not in wrong] == [], "no fault"
