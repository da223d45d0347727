"""Compiles the C programs on first use, and keeps them in the user's cache folder."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["BuildError", "build", "compiler"]

HERE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-O3"]
LIBRARIES = ["-ldl"]


class BuildError(Exception):
    """A program cannot be compiled; the message says why."""


def compiler() -> list[str]:
    """The C compiler's command: $CC, else the first of the usual names.

    Raises:
        BuildError: There is none.
    """
    if cc := os.environ.get("CC"):
        return shlex.split(cc)
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    raise BuildError("the load client needs a C compiler: install gcc or clang, or set CC")


def build(name: str) -> Path:
    """The program made of `<name>.c`, compiled unless that was done before.

    Raises:
        BuildError: There is no compiler, or it fails.
    """
    command = compiler()
    sources = [HERE / f"{name}.c", *sorted(HERE.glob("*.h"))]
    made_of = [" ".join(command + FLAGS), platform.machine(), *(source.read_text() for source in sources)]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "duck-benchmarks"
    program = folder / f"{name}-{digest}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / name
        words = [*command, *FLAGS, "-o", str(fresh), str(sources[0]), *LIBRARIES]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise BuildError(f"the C compiler {command[0]} does not run: {error.strerror}") from error
        if done.returncode != 0:
            raise BuildError(f"{' '.join(command)} does not compile {name}.c:\n{done.stderr}")
        fresh.replace(program)
    return program
