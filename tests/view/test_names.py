"""The names and signatures that users rely on."""

import importlib
import inspect

import pytest

from duck.contrib import websockets
from duck.contrib.websockets import WebSocketView
from duck.http.request import HttpRequest
from duck.views import View

from .. import layers

pytestmark = pytest.mark.in_memory

PACKAGE = "duck.contrib.websockets"
IMPORTED = [name for name in layers.read().modules if not name.endswith(("__main__", "_speedups"))]


def test_a_view_is_a_plain_class():
    assert type(WebSocketView) is type
    assert issubclass(WebSocketView, View)
    assert inspect.iscoroutinefunction(WebSocketView.run)
    view = WebSocketView(HttpRequest(), name="x")
    assert vars(view)["kwargs"] == {"name": "x"}
    assert websockets.View is View


def test_hooks_have_the_signatures_by_which_they_may_be_called():
    """The signatures for type checkers are wider."""
    on_receive, on_close = (inspect.signature(hook) for hook in (WebSocketView.on_receive, WebSocketView.on_close))
    assert on_receive.parameters["kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    assert on_close.parameters["frame"].default is None
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
def test_public_names_are_exported(module):
    found = importlib.import_module(PACKAGE + module)
    for name in PUBLIC[module].split():
        assert hasattr(found, name)
        assert name in found.__all__


@pytest.mark.parametrize("path", IMPORTED)
def test_all_names_exist(path):
    module = importlib.import_module(path)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)


def test_a_view_has_its_documented_members():
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
    "ping",
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
    "ping": ["self"],
    "send_close": ["self", "code", "reason"],
    "send_frame": ["self", "frame"],
    "close": ["self", "code", "reason"],
    "safe_close": ["self", "disable_logging", "call_on_close_handler"],
    "get_sec_accept_key": ["self", "sec_websocket_key"],
    "__init__": ["self", "upgrade_request", "kwargs"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_names_they_have_in_the_documentation(name):
    assert list(inspect.signature(getattr(WebSocketView, name)).parameters) == SIGNATURES[name]
