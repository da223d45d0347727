"""Which way imports run, read from the source; and the names that users import."""

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

ROOT = Path(duck.__file__).parent
PACKAGE = "duck.contrib.websockets"

# From the bottom to the top; a module may import what is on its own line or above it here.
LAYERS = [
    ["opcodes", "_speedups", "_fallback", "_fallback_view", "logging", "origins"],
    ["exceptions", "_fallback_dispatch", "_fallback_hotpath"],
    ["_codec"],
    ["deflate"],
    ["frame", "extensions"],
    ["negotiation"],
    ["compression", "handshake"],
    ["connection"],
    ["tasks", "commons", "endpoint"],
    [
        "framework",
        "transport",
        "closing",
        "heartbeat",
        "hooks",
        "frame_queue",
        "decoding",
        "intake",
        "pending",
        "sending",
        "flow",
    ],
    ["settings"],
    ["definition", "protocol"],
    ["asgi_session"],
    ["asgi", "view"],
    ["uvicorn"],
    ["__init__", "__main__"],
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
SHARED = [f"{PACKAGE}.{name}" for name in ("commons", "logging", "origins", "tasks", "transport")]
ASYNCIO_FROM = LAYER["connection"] + 1


class Imports(ast.NodeVisitor):
    """The modules that a module imports when it runs, as absolute names; those for type checkers are left out."""

    def __init__(self, path):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        self.package = parts[:-1]
        self.found = set()
        self.visit(ast.parse(path.read_text()))

    def visit_If(self, node):
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node):
        base = list(self.package[: len(self.package) - node.level + 1]) if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            self.found.add(whole if is_module(whole) else module)


def is_module(name):
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists() or path.name == "_speedups"


def sources(folder=""):
    return sorted((ROOT / folder).rglob("*.py"))


def imports_of_ours(path):
    return {name for name in Imports(path).found if name.split(".")[0] == "duck"}


WEBSOCKETS = sources("contrib/websockets")


@pytest.mark.parametrize("path", WEBSOCKETS, ids=lambda path: path.stem)
def test_no_import_runs_up(path):
    assert path.stem in LAYER, f"{path.name} has no layer yet: give it one in {Path(__file__).name}"
    for name in imports_of_ours(path):
        if name in ("duck.http.request", "duck.views"):
            # All that Duck Framework has too, and only the view needs it.
            assert LAYER[path.stem] >= LAYER["view"], f"{path.name} imports {name}"
            continue
        if (path.stem, name) == ("framework", "duck.exceptions.all"):
            continue  # is there where it is called
        assert name == PACKAGE or name.startswith(f"{PACKAGE}."), f"{path.name} imports {name}"
        other = name.removeprefix(PACKAGE).lstrip(".") or "__init__"
        assert LAYER[other] <= LAYER[path.stem], f"{path.name} imports {other}, which is above it"


def test_every_layer_is_there():
    stems = {path.stem for path in WEBSOCKETS} | {"_speedups"}
    assert set(LAYER) == stems


@pytest.mark.parametrize("name", LAYERS[0])
def test_the_bottom_imports_nothing_of_ours(name):
    path = ROOT / "contrib/websockets" / f"{name}.py"
    if path.exists():
        assert imports_of_ours(path) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "contrib/websockets").glob("*.p[xy][xdi]")), ids=lambda path: path.name)
def test_the_compiled_codec_imports_nothing_of_ours(path):
    assert not re.findall(r"^\s*(?:from|import|cimport)\s+(?:\.|duck)", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", WEBSOCKETS, ids=lambda path: path.stem)
def test_asyncio_is_known_above_the_connection_only(path):
    if LAYER.get(path.stem, ASYNCIO_FROM) < ASYNCIO_FROM:
        assert not {name for name in Imports(path).found if name.split(".")[0] in ("asyncio", "uvloop", "socket")}


@pytest.mark.parametrize("path", [*sources("http"), ROOT / "urls.py", ROOT / "views.py"], ids=lambda path: path.stem)
def test_http_knows_nothing_of_websockets_and_hosts(path):
    for name in imports_of_ours(path):
        assert name.split(".")[1] in ("http", "urls"), f"{path.name} imports {name}"


def test_hosts_import_the_view_and_nothing_imports_hosts():
    """But for what both halves do: with a loop, tasks, transports, the log and origins. The rest has public names."""
    for path in sources():
        for name in imports_of_ours(path):
            if path.is_relative_to(ROOT / "server") and name in SHARED:
                continue
            if path.is_relative_to(ROOT / "server"):
                assert not name.startswith(f"{PACKAGE}."), f"{path.name} imports {name}"
            else:
                assert not name.startswith("duck.server"), f"{path.name} imports {name}"


def test_the_reader_of_imports_sees_them(tmp_path):
    folder = ROOT / "contrib/websockets"
    assert {"duck.views", f"{PACKAGE}.protocol", "asyncio"} <= Imports(folder / "view.py").found
    assert f"{PACKAGE}._speedups" in Imports(folder / "_codec.py").found
    assert f"{PACKAGE}.frame" in Imports(folder / "extensions.py").found  # inside a function
    assert "duck.http.request" not in Imports(folder / "handshake.py").found  # for type checkers


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.connection", f"{PACKAGE}.frame", "duck.views", "duck.server"])
def test_every_module_can_be_the_first_to_be_imported(module):
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


@pytest.mark.parametrize("path", WEBSOCKETS, ids=lambda path: path.stem)
def test_all_names_what_is_there(path):
    if path.stem == "__main__":
        return
    module = importlib.import_module(f"{PACKAGE}.{path.stem}" if path.stem != "__init__" else PACKAGE)
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
