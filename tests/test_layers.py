"""The direction of imports, and the allowed imports of each module."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import duck

from . import layers

ROOT = Path(duck.__file__).parent
PACKAGE = "duck.contrib.websockets"


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


GRAPH = layers.read()
IMPORTED = [name for name in GRAPH.modules if not name.endswith(("__main__", "_speedups"))]
# Modules that import an optional package.
NEEDS = {
    f"{PACKAGE}.uvicorn": "uvicorn",
    f"{PACKAGE}.metrics.prometheus": "prometheus_client",
    **{name: "redis" for name in IMPORTED if name.startswith(f"{PACKAGE}.groups.redis")},
}


def test_no_import_runs_up():
    assert not GRAPH.running_up()


def test_no_import_runs_in_a_circle():
    assert not GRAPH.circles()


def test_the_overlay_imports_only_modules_that_duck_framework_has_too():
    for source, target in GRAPH.arrows:
        if source.startswith(PACKAGE) and not target.startswith(PACKAGE):
            assert target in {"duck.http.request", "duck.views"}, f"{source} imports {target}"


def test_the_server_imports_only_the_listed_modules_of_the_package():
    """The public names, and the parts that both use: of loops, tasks, transports, the log, hosts and origins."""
    shared = (
        "__main__",
        "groups",
        "logging",
        "metrics",
        "metrics.prometheus",
        "protocol.lingering",
        "protocol.loop",
        "protocol.stepping",
        "protocol.transports",
        "sansio.host",
        "sansio.origins",
    )
    allowed = {PACKAGE, *(f"{PACKAGE}.{name}" for name in shared)}
    for source, target in GRAPH.arrows:
        if source.startswith("duck.server") and target.startswith(PACKAGE):
            assert target in allowed, f"{source} imports {target}"


def test_the_compiled_codec_imports_nothing_of_ours():
    """Read from the checkout, for an installed package has no Cython source."""
    package = Path(__file__).parents[1] / "duck/contrib/websockets"
    sources = [package / "_speedups.pyx", *package.glob("codec/*.pxi")]
    assert len(sources) > 1
    for path in sources:
        assert not re.findall(r"^\s*(?:from|import|cimport)\s+(?:\.|duck)", path.read_text(), re.MULTILINE), path.name


SANS_IO = [path for folder in ("codec", "sansio") for path in sources(f"contrib/websockets/{folder}")]


@pytest.mark.parametrize("path", SANS_IO, ids=lambda path: path.stem)
def test_the_codec_and_the_rules_know_no_input_and_output(path):
    names = {alias.name for node in ast.walk(ast.parse(path.read_text())) for alias in getattr(node, "names", ())}
    modules = {getattr(node, "module", None) or "" for node in ast.walk(ast.parse(path.read_text()))}
    assert not {name.split(".")[0] for name in names | modules} & {"asyncio", "uvloop", "socket", "ssl", "selectors"}


def test_the_reader_of_imports_sees_them(tmp_path):
    package = tmp_path / "ours"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from .inner import b\n")
    (package / "a.py").write_text("import ours.inner.b\n")
    (package / "inner/__init__.py").write_text("")
    (package / "inner/b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..a import X\ndef f():\n    from . import c\n"
    )
    (package / "inner/c.py").write_text("import sys\n")
    graph = layers.read(package)
    assert graph.modules == ["ours", "ours.a", "ours.inner", "ours.inner.b", "ours.inner.c"]
    assert graph.arrows == [
        ("ours", "ours.inner.b"),
        ("ours.a", "ours.inner.b"),
        ("ours.inner.b", "ours.a"),
        ("ours.inner.b", "ours.inner.c"),
    ]
    assert graph.circles() == [["ours.a", "ours.inner.b"]]


# For clients, pages, groups, tests, other hosts, compression in threads, dates and IPv6 literals.
NOT_FOR_EVERY_SERVER = {
    *("calendar", "concurrent.futures.thread", "datetime", "email.utils", "http", "httptools"),
    *("ipaddress", "json", "random", "redis", "ssl", "urllib.parse", "urllib.request", "uvicorn"),
    *("duck.commands", "duck.pytest_plugin", "duck.server", "duck.signal_handlers", "duck.stdio"),
    *(
        f"{PACKAGE}.{name}"
        for name in ("client", "groups", "metrics.stats", "sansio.client_handshake", "testing", "uvicorn")
    ),
    *(f"{PACKAGE}.hosts.{name}" for name in ("asgi", "asgi_session", "duckframework", "upgrade_head")),
}


def imports(module):
    """Returns the modules that it imports, except those of asyncio and of the interpreter, which differ by version."""
    program = f"import asyncio, sys; a = set(sys.modules); import {module}; print(*set(sys.modules) - a)"
    run = subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT.parent, capture_output=True, text=True)
    imported = set(run.stdout.split())
    assert module in imported
    return imported


def test_the_command_that_serves_does_not_import_the_clients():
    assert not imports("duck.server.cli") & {f"{PACKAGE}.client", "duck.commands.bench", "duck.commands.connect"}


def test_the_package_imports_only_modules_that_every_server_needs():
    imported = imports(PACKAGE)
    assert not imported & NOT_FOR_EVERY_SERVER
    assert not {f"{PACKAGE}._speedups", f"{PACKAGE}.codec.pure"} <= imported


FIRST = """if True:
    import importlib, sys, traceback, warnings
    warnings.simplefilter("ignore")
    kept = "duck.contrib.websockets._speedups"  # imports nothing of ours, and cannot be imported twice
    failed = []

    def ours():
        return {name for name in sys.modules if name.split(".")[0] == "duck" and name != kept}

    def imports_first(module):
        # Before a module Python imports the packages around it, which have been imported, and nothing else of ours.
        try:
            importlib.import_module(module)
        except Exception:
            traceback.print_exc()
            failed.append(module)
            return
        before = ours()
        for inner in sys.argv[1:]:
            if inner.rpartition(".")[0] == module:
                imports_first(inner)
                for name in ours() - before:
                    del sys.modules[name]
                    package, _, attribute = name.rpartition(".")
                    if package in before:
                        delattr(sys.modules[package], attribute)

    imports_first("duck")
    sys.exit(f"cannot be imported first: {failed}" if failed else 0)
"""


def test_every_module_can_be_the_first_to_be_imported(tmp_path):
    """One process imports them in turn, and forgets the modules of each import before the next."""
    missing = {module for module, needs in NEEDS.items() if importlib.util.find_spec(needs) is None}
    modules = [module for module in IMPORTED if module not in missing]
    # Each is compiled once at most.
    bytecode = ["-X", f"pycache_prefix={tmp_path}"] if sys.dont_write_bytecode else []
    command = [sys.executable, *bytecode, "-c", FIRST, *modules]
    subprocess.run(command, check=True, cwd=ROOT.parent, env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""})
