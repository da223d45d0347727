"""Runs the package in processes of its own, in every kind of installation."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import duck

ROOT = Path(__file__).parents[2]

SETTINGS = ("DUCK_NO_EXTENSIONS", "DUCK_REQUIRE_SPEEDUPS", "DUCK_BUILD_EXTENSION")

Process = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def root() -> Path:
    """The source tree."""
    return ROOT


@pytest.fixture
def python() -> Callable[..., Process]:
    """Runs Python with arguments and environment variables, without those of the package in this environment."""

    def run(*arguments: str, **variables: str) -> Process:
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        # -P, or the source tree in the working directory would precede the installed package.
        command = [sys.executable, "-P", *arguments]
        return subprocess.run(
            command, env=environment | variables, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )

    return run


@pytest.fixture
def info(python: Callable[..., Process]) -> Callable[..., dict[str, str]]:
    """The output of `duck info`, with environment variables."""

    def run(**variables: str) -> dict[str, str]:
        process = python("-m", "duck", "info", **variables)
        assert process.returncode == 0, process.stderr
        facts = (line.partition(":") for line in process.stdout.splitlines())
        return {name: value.strip() for name, _, value in facts} | {"stderr": process.stderr}

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package without its compiled module; the folder is for PYTHONPATH."""
    source = Path(duck.__file__).parent
    # With its bytecode, so that no process compiles all modules.
    shutil.copytree(source, tmp_path / "duck", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    return tmp_path
