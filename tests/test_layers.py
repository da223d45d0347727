"""Which way imports run; and the names that users import."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import duck
from duck.contrib import websockets
from duck.contrib.websockets import WebSocketView
from duck.http.request import HttpRequest
from duck.views import View

from . import layers

ROOT = Path(duck.__file__).parent
PACKAGE = "duck.contrib.websockets"


def sources(folder):
    return sorted((ROOT / folder).rglob("*.py"))


CODEC = ROOT / "contrib/websockets/codec"
GRAPH = layers.read()
IMPORTED = [name for name in GRAPH.modules if not name.endswith(("__main__", "_speedups"))]


def test_no_import_runs_up():
    assert not GRAPH.running_up()


def test_no_import_runs_in_a_circle():
    assert not GRAPH.circles()


def test_the_overlay_needs_only_what_duck_framework_has_too():
    for source, target in GRAPH.arrows:
        if source.startswith(PACKAGE) and not target.startswith(PACKAGE):
            assert target in {"duck.http.request", "duck.views"}, f"{source} imports {target}"


def test_the_server_takes_of_the_package_only_what_is_listed():
    """The public names, and what both halves do: with a loop, its tasks and transports, the log, and origins."""
    shared = ("logging", "protocol.lingering", "protocol.loop", "protocol.stepping", "sansio.origins")
    allowed = {PACKAGE, *(f"{PACKAGE}.{name}" for name in shared)}
    for source, target in GRAPH.arrows:
        if source.startswith("duck.server") and target.startswith(PACKAGE):
            assert target in allowed, f"{source} imports {target}"


@pytest.mark.parametrize("path", sorted(CODEC.glob("*.p[xy][xdi]")), ids=lambda path: path.name)
def test_the_compiled_codec_imports_nothing_of_ours(path):
    assert not re.findall(r"^\s*(?:from|import|cimport)\s+(?:\.|duck)", path.read_text(), re.MULTILINE)


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


@pytest.mark.parametrize(
    "module", [module for module in GRAPH.modules if not module.endswith(("__main__", "_speedups"))]
)
def test_every_module_can_be_the_first_to_be_imported(module):
    if module == f"{PACKAGE}.uvicorn":
        pytest.importorskip("uvicorn")
    subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {module}"], check=True, cwd=ROOT.parent)


# What users rely on


def test_a_view_is_a_plain_class():
    assert type(WebSocketView) is type
    assert issubclass(WebSocketView, View)
    assert inspect.iscoroutinefunction(WebSocketView.run)
    view = WebSocketView(HttpRequest(), name="x")
    assert vars(view)["kwargs"] == {"name": "x"}
    assert websockets.View is View


def test_hooks_have_the_signatures_by_which_they_may_be_called():
    """Those that a type checker sees are wider."""
    on_receive = inspect.signature(WebSocketView.on_receive).parameters
    assert list(on_receive) == ["self", "message", "opcode", "kwargs"]
    assert on_receive["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    on_close = inspect.signature(WebSocketView.on_close).parameters
    assert list(on_close) == ["self", "frame"]
    assert on_close["frame"].default is None
    assert list(inspect.signature(View.run).parameters) == ["self", "request", "kwargs"]


PUBLIC = {
    "": (
        "View WebSocketView State Frame OpCode CloseCode DATA_OPCODES CONTROL_OPCODES Extension PerMessageDeflate"
        " ProtocolError PayloadTooBig ExtensionError ConnectionClosed log_message logger"
    ),
    ".opcodes": "OpCode CloseCode CONTROL_OPCODES DATA_OPCODES",
    ".exceptions": "BaseException ExtensionError ProtocolError PayloadTooBig ConnectionClosed",
    ".frame": "apply_mask Frame",
    ".compression": "Compression",
    ".extensions": "Extension PerMessageDeflate",
    ".logging": "get_django_formatted_log get_duck_formatted_log log_message logger",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module):
    found = importlib.import_module(PACKAGE + module)
    for name in PUBLIC[module].split():
        assert hasattr(found, name)
        assert name in found.__all__


@pytest.mark.parametrize("path", IMPORTED)
def test_all_names_what_is_there(path):
    module = importlib.import_module(path)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)


def test_what_a_view_has():
    assert {name: getattr(WebSocketView, name) for name in CONSTANTS} == CONSTANTS
    for name in COROUTINES:
        assert inspect.iscoroutinefunction(getattr(WebSocketView, name)), name
    for name in SENDING:
        assert callable(getattr(WebSocketView, name)), name
    for name in PROPERTIES:
        assert isinstance(inspect.getattr_static(WebSocketView, name), property), name
    assert [(state.name, state.value) for state in websockets.State] == [
        ("INITIATING", -1),
        ("CLOSED", 0),
        ("OPEN", 1),
        ("INITIATED", 2),
    ]


CONSTANTS = {
    "MAGIC_STRING": "258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
    "PING_INTERVAL": 20,
    "PONG_TIMEOUT": 10,
    "MAX_BACKOFF": 45,
    "RECEIVE_TIMEOUT": 120,
    "MAX_FRAME_SIZE": 1 << 20,
}
COROUTINES = [
    "run",
    "run_forever",
    "initiate_upgrade_to_ws",
    "on_open",
    "on_receive",
    "on_close",
    "on_new_frame",
    "read_frame",
    "_receive_loop",
    "_heartbeat_loop",
    "safe_close",
]
SENDING = [
    "send",
    "send_text",
    "send_binary",
    "send_json",
    "send_ping",
    "send_pong",
    "send_close",
    "send_frame",
]
PROPERTIES = ["server", "sock", "latency", "close_code", "close_reason"]

SIGNATURES = {
    "on_receive": ["self", "message", "opcode", "kwargs"],
    "on_close": ["self", "frame"],
    "on_new_frame": ["self", "frame"],
    "send": ["self", "data", "opcode"],
    "send_text": ["self", "data"],
    "send_binary": ["self", "data"],
    "send_json": ["self", "data"],
    "send_ping": ["self", "data"],
    "send_pong": ["self", "data"],
    "send_close": ["self", "code", "reason"],
    "send_frame": ["self", "frame"],
    "safe_close": ["self", "disable_logging", "call_on_close_handler"],
    "get_sec_accept_key": ["self", "sec_websocket_key"],
    "__init__": ["self", "upgrade_request", "kwargs"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_names_they_have_in_the_documentation(name):
    assert list(inspect.signature(getattr(WebSocketView, name)).parameters) == SIGNATURES[name]
