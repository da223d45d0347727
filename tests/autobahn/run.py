"""Runs the Autobahn test suite, some 500 cases of good and bad WebSocket clients, against `duck serve` or uvicorn.

python tests/autobahn/run.py [--cases '1.*,2.*' | --cases '*'] [--venv DIR] [--host uvicorn] [--pure | --list]

The suite is a Python 2.7 program. An environment for it is made at the first run, with the Python that $PYTHON27 names,
or pyenv's, or `python2.7` of the path.

Exit status: 0 when every case passed, 1 when one did not, 2 when the suite could not be run.
"""

import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

CASES = ",".join(
    [
        *(f"{section}.*" for section in (*range(1, 8), 9, 10)),
        *(f"12.1.{size}" for size in (1, 2, 3, 4, 5, 6, 11)),
        *(f"12.{data}.4" for data in range(2, 6)),
        *(f"13.{parameters}.{size}" for parameters in range(1, 8) for size in (4, 5)),
    ]
)
"""All but most of 12 and 13, where each sends a thousand messages: the whole of them takes half an hour."""

# INFORMATIONAL is for cases in which RFC 6455 leaves the choice.
PASSED = {"OK", "INFORMATIONAL"}
MISSING = {"behavior": "MISSING", "behaviorClose": "MISSING"}

TIMEOUT = 3600

TITLES = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing",
    9: "Limits, performance",
    10: "Auto-fragmentation",
    12: "Compression, different sizes",
    13: "Compression, different parameters",
}

Case = dict[str, Any]


class CannotRun(Exception):
    """The suite cannot be run; the message names the missing part."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", default=CASES, help="ids, with * for anything, and commas between (all but the longest)"
    )
    parser.add_argument(
        "--venv", type=Path, default=ROOT / "build/autobahn", help="the suite's environment, made if it is not there"
    )
    parser.add_argument("--host", choices=HOSTS, default="duck", help="the server (%(default)s)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--pure", action="store_true", help="test the pure-Python codec")
    mode.add_argument("--list", action="store_true", help="print the ids of the cases, and run none")
    options = parser.parse_args()
    try:
        python = environment(options.venv.resolve())
        cases = select(python, options.cases)
        if options.list:
            print(*cases, sep="\n")
            return 0
        with tempfile.TemporaryDirectory(prefix="autobahn-") as folder:
            with HOSTS[options.host](options.pure) as port:
                results = run(python, cases, port, Path(folder))
            return report(results, Path(folder))
    except CannotRun as error:
        print(f"cannot run the Autobahn suite: {error}", file=sys.stderr)
        return 2


# The suite


def environment(venv: Path) -> Path:
    """The Python of the suite's environment, which this makes if it is missing."""
    python = venv / "bin/python"
    complete = venv / "complete"
    requirements = (HERE / "requirements.txt").read_text()
    if complete.exists() and complete.read_text() == requirements:
        return python
    python27 = find_python27()
    print(f"making an environment with {python27} in {venv}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        # The last virtualenv that can make one for Python 2.7.
        call(sys.executable, "-m", "venv", folder)
        call(f"{folder}/bin/python", "-m", "pip", "install", "-q", "virtualenv==20.21.1")
        call(f"{folder}/bin/python", "-m", "virtualenv", "-q", "--clear", "-p", python27, venv)
    # Python 2 says at every start that its time is over.
    pip = (python, "-W", "ignore", "-m", "pip", "-q", "--disable-pip-version-check", "--no-python-version-warning")
    call(*pip, "install", "--no-deps", "-r", HERE / "requirements.txt")
    try:
        call(*pip, "install", "--no-deps", "wsaccel==0.6.6")
    except CannotRun:
        print("without a C compiler for wsaccel the suite takes longer", file=sys.stderr)
    complete.write_text(requirements)
    return python


def find_python27() -> str:
    """A Python 2.7 with all imports of the suite."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [
        os.environ.get("PYTHON27"),
        *map(str, sorted(pyenv.glob("versions/2.7.*/bin/python2.7"), reverse=True)),
        shutil.which("python2.7"),
    ]
    for python in filter(None, found):
        try:
            subprocess.run([python, "-c", "import ctypes, ssl, zlib"], check=True, capture_output=True, env=clean())
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    raise CannotRun(
        "it needs Python 2.7, with ctypes, ssl and zlib, and there is none: "
        "install one (`pyenv install 2.7.18`), or name it in PYTHON27"
    )


def select(python: Path, patterns: str) -> list[str]:
    """The suite's cases whose ids match, in its order.

    wstest's own patterns are prefixes, and it never ends when there is no such case.
    """
    names = call(
        python,
        *("-W", "ignore", "-c"),
        "from autobahntestsuite.case import Cases, CaseBasename\n"
        "for case in Cases: print(case.__name__[len(CaseBasename):].replace('_', '.'))",
    ).split()
    wanted = set()
    for pattern in patterns.split(","):
        expression = re.escape(pattern.strip()).replace(r"\*", ".*")
        matching = [name for name in names if re.fullmatch(expression, name)]
        if not matching:
            raise CannotRun(f"it has no case {pattern!r}")
        wanted.update(matching)
    return [name for name in names if name in wanted]


def run(python: Path, cases: list[str], port: int, folder: Path) -> dict[str, Case]:
    """Runs cases against the server on a port.

    Args:
        folder: For the suite's reports.

    Returns:
        The suite's report of each case.
    """
    specification = {
        "outdir": str(folder),
        "servers": [{"agent": "duck", "url": f"ws://127.0.0.1:{port}"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    file = folder / "specification.json"
    file.write_text(json.dumps(specification))
    said = call(python.parent / "wstest", "-m", "fuzzingclient", "-s", file, timeout=TIMEOUT)
    try:
        results = json.loads((folder / "index.json").read_text())["duck"]
    except (FileNotFoundError, KeyError):
        raise CannotRun(f"it left no results:\n{said[-3000:]}") from None
    return {case: results.get(case, MISSING) for case in cases}


# The server


@contextmanager
def serving_duck(pure: bool) -> Iterator[int]:
    """Runs the echo example, and gives its port."""
    # -P, or the source tree in the working directory would precede the installed package.
    duck = [sys.executable, "-P", "-m", "duck"]
    server = [*duck, "serve", str(ROOT / "examples/echo.py"), "--port", "0", "--log-level", "error"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True, env=environment_for(pure)) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = urlsplit(line.removeprefix("listening on ").strip()).port
            if port is None:
                raise CannotRun("`duck serve` did not start")
            yield port
        finally:
            process.terminate()


def free_port() -> int:
    """A free port below those that the system assigns by itself, so that no other socket takes it meanwhile."""
    while True:
        port = random.randrange(30_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving_uvicorn(pure: bool) -> Iterator[int]:
    """Runs an ASGI application on uvicorn with our protocol, and gives its port."""
    port = free_port()
    uvicorn = [sys.executable, "-P", "-m", "uvicorn", "app:app", "--app-dir", str(HERE), "--lifespan", "off"]
    options = ["--port", str(port), "--ws", "duck.contrib.websockets.uvicorn:WebSocketProtocol", "--log-level", "error"]
    with subprocess.Popen([*uvicorn, *options], env=environment_for(pure)) as process:
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None:
                        raise CannotRun("uvicorn did not start") from None
                    time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def environment_for(pure: bool) -> dict[str, str]:
    """The environment of a server on either codec."""
    variables = {"DUCK_NO_EXTENSIONS": "1", "DUCK_REQUIRE_SPEEDUPS": ""} if pure else {}
    return os.environ | variables


HOSTS = {"duck": serving_duck, "uvicorn": serving_uvicorn}


# The outcome


def report(results: dict[str, Case], folder: Path) -> int:
    """Prints a table of the sections, and every case that did not pass.

    Returns:
        The exit status.
    """
    sections: dict[int, Counter[str]] = {}
    failed = {}
    for name, case in results.items():
        outcome = {case["behavior"], case["behaviorClose"]}
        bad = sorted(outcome - PASSED)
        if bad:
            failed[name] = ", ".join(bad)
        word = bad[0] if bad else "INFORMATIONAL" if "INFORMATIONAL" in outcome else "OK"
        sections.setdefault(int(name.split(".")[0]), Counter())[word] += 1
    print("| section | cases | OK | informational | failed |")
    print("| --- | --: | --: | --: | --: |")
    rows = [(f"{number} {TITLES[number]}", count) for number, count in sections.items()]
    for title, count in [*rows, ("all", sum(sections.values(), Counter()))]:
        passed = [count["OK"], count["INFORMATIONAL"]]
        print(f"| {title} | {count.total()} | {passed[0]} | {passed[1]} | {count.total() - sum(passed)} |")
    for name, words in failed.items():
        print(f"{name}: {words}{explanation(results[name], folder)}")
    return 1 if failed else 0


def explanation(case: Case, folder: Path) -> str:
    """The suite's own description of a failed case."""
    if "reportfile" not in case:
        return ""
    details = json.loads((folder / case["reportfile"]).read_text())
    return f": {details['result']} {details['resultClose']}"


def call(*command: str | Path, timeout: float | None = None) -> str:
    """Runs a command of the suite.

    Returns:
        Its output.

    Raises:
        CannotRun: It failed, or took too long.
    """
    try:
        process = subprocess.run(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=clean(),
            timeout=timeout,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"it did not end within {timeout} seconds") from None
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{command[0]} failed:\n{error.stdout[-3000:]}") from None
    return process.stdout


def clean() -> dict[str, str]:
    """The environment without the variables by which another Python would find our modules."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


if __name__ == "__main__":
    sys.exit(main())
