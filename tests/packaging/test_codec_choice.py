"""The choice of the codec and its report: built, switched off, required, missing, broken."""

import os
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

import pytest

INFO = ("-m", "duck.contrib.websockets")


def is_required():
    return os.environ.get("DUCK_REQUIRE_SPEEDUPS", "") not in ("", "0")


@pytest.fixture
def compiled():
    """Skips where the codec is not built; with DUCK_REQUIRE_SPEEDUPS it must be."""
    if find_spec("duck.contrib.websockets._speedups") is None:
        (pytest.fail if is_required() else pytest.skip)("the codec is not compiled here")


@pytest.mark.parametrize("command", [INFO, ("-m", "duck", "info")], ids=" ".join)
def test_info_has_a_line_for_each_fact(python, command):
    process = python(*command, DUCK_NO_EXTENSIONS="1")
    assert process.returncode == 0
    names = [line.partition(":")[0] for line in process.stdout.splitlines()]
    assert names == ["duck-websockets", "python", "codec", "reason", "simd", "simd tiers", "compression"]


def test_the_compiled_codec_is_the_default(info, compiled):
    facts = info()
    assert facts["codec"] == "compiled"
    assert facts["simd"] in facts["simd tiers"].split(", ")
    assert facts["stderr"] == ""


def test_the_required_codec_is_used(info, compiled):
    assert info(DUCK_REQUIRE_SPEEDUPS="1")["codec"] == "compiled"


@pytest.mark.parametrize("off", ["", "0"])
def test_variables_may_be_empty_or_0(info, compiled, off):
    assert info(DUCK_NO_EXTENSIONS=off, DUCK_REQUIRE_SPEEDUPS=off)["codec"] == "compiled"


def test_the_codec_is_switched_off_without_a_warning(info):
    facts = info(DUCK_NO_EXTENSIONS="1")
    assert facts["codec"] == "pure Python"
    assert facts["reason"] == "DUCK_NO_EXTENSIONS is set"
    assert facts["stderr"] == ""


def test_a_codec_that_is_switched_off_and_required_is_an_error(python):
    process = python(*INFO, DUCK_NO_EXTENSIONS="1", DUCK_REQUIRE_SPEEDUPS="1")
    assert process.returncode == 1
    assert "ImportError: DUCK_NO_EXTENSIONS and DUCK_REQUIRE_SPEEDUPS are both set" in process.stderr


IMPOSSIBLE = {
    "set it to isal, zlib-ng, zlib, or unset it": {"DUCK_DEFLATE": "gzip", "DUCK_NO_EXTENSIONS": "1"},
    "are both set: unset one": {"DUCK_NO_EXTENSIONS": "1", "DUCK_REQUIRE_SPEEDUPS": "1"},
    "set it to one of them, or unset it": {"DUCK_SIMD": "mmx"},
}


@pytest.mark.parametrize(("words", "variables"), IMPOSSIBLE.items())
def test_an_impossible_environment_ends_the_command_with_one_line(python, compiled, words, variables):
    process = python("-m", "duck", "info", **variables)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("duck: DUCK_")
    assert process.stderr.endswith(f"{words}\n")
    assert process.stderr.count("\n") == 1


def test_a_missing_codec_causes_a_warning(info, tree):
    facts = info(PYTHONPATH=str(tree))
    assert facts["codec"] == "pure Python"
    assert facts["reason"] == f"it was not built in {tree / 'duck/contrib/websockets'}"
    assert "RuntimeWarning: duck-websockets runs on its pure-Python codec" in facts["stderr"]
    assert facts["reason"] in facts["stderr"]
    assert "Reinstall with a C compiler" in facts["stderr"]


def test_a_source_tree_that_hides_the_package_is_named(info, tree, root):
    shutil.copy(root / "setup.py", tree)
    (tree / "duck/contrib/websockets/_speedups.pyx").touch()  # a wheel that is being tested has none
    said = info(PYTHONPATH=str(tree))["stderr"]
    assert f"it was not built in {tree / 'duck/contrib/websockets'}" in said
    assert f"{tree} is a source tree: run Python from another folder" in said
    assert "setup.py build_ext --inplace" in said
    assert "Reinstall" not in said


def test_a_required_codec_that_is_missing_is_an_error(python, tree):
    process = python(*INFO, DUCK_REQUIRE_SPEEDUPS="1", PYTHONPATH=str(tree))
    assert process.returncode == 1
    assert f"ImportError: the compiled codec is required, but it was not built in {tree}" in process.stderr
    assert "Reinstall with a C compiler" in process.stderr


def test_a_broken_codec_causes_a_warning_with_its_cause(info, tree):
    broken(tree)
    facts = info(PYTHONPATH=str(tree))
    assert facts["codec"] == "pure Python"
    assert facts["reason"].startswith("it does not load: ")
    assert "RuntimeWarning: duck-websockets runs on its pure-Python codec" in facts["stderr"]
    # The loader's own words have the file's name in them.
    assert "_speedups" in facts["reason"]
    assert facts["reason"] in facts["stderr"]


def test_a_required_codec_that_is_broken_is_an_error(python, tree):
    broken(tree)
    process = python(*INFO, DUCK_REQUIRE_SPEEDUPS="1", PYTHONPATH=str(tree))
    assert process.returncode == 1
    assert "ImportError: the compiled codec is required, but it does not load: " in process.stderr


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:  # CPython 3.11 and 3.12
    import _xxsubinterpreters as interpreters

import duck.contrib.websockets

sub = interpreters.create()
interpreters.run_string(sub, "import duck.contrib.websockets; print('imported')")
interpreters.destroy(sub)
"""


def test_a_subinterpreter_has_the_pure_codec_and_advice(python, compiled):
    process = python("-c", SUBINTERPRETER, DUCK_REQUIRE_SPEEDUPS="")
    assert process.stdout == "imported\n"
    assert process.stderr.count("RuntimeWarning") == 1
    assert "it does not load: " in process.stderr
    assert ". Use the main interpreter (in mod_wsgi: `WSGIApplicationGroup %{GLOBAL}`), or set DUCK" in process.stderr
    assert "Reinstall" not in process.stderr


def broken(tree):
    module = f"_speedups{EXTENSION_SUFFIXES[0]}"
    (tree / "duck/contrib/websockets" / module).write_bytes(b"this is no shared library")
