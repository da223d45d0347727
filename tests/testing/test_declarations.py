"""`Blocking` declares, for type checkers and editors, the members that it finds in its connection."""

import ast
import inspect

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing import Blocking, TestConnection, connect

# Of no use in a synchronous test, or internal.
WITHOUT = {"create_task", "doing", "open", "read_frame", "recv_stream", "run", "safe_close", "sock", "terminate"}


@pytest.fixture(scope="module")
def declared():
    """The declared members: the parameters of each method, None for an attribute."""
    module = ast.parse(inspect.getsource(inspect.getmodule(Blocking)))
    (blocking,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Blocking")
    (block,) = (node for node in blocking.body if isinstance(node, ast.If))
    members = {}
    for node in block.body:
        if isinstance(node, ast.AnnAssign):
            members[node.target.id] = None
        else:
            members[node.name] = None if node.decorator_list else [one.arg for one in node.args.args]
    return members


def test_each_member_for_a_test_is_declared_with_its_parameters(declared):
    public = {name for name in dir(TestConnection) if not name.startswith(("_", "on_")) and not name.isupper()}
    assert public - WITHOUT - set(declared) == set()
    for name, parameters in declared.items():
        member = getattr(TestConnection, name, None)
        assert (list(inspect.signature(member).parameters) if inspect.isfunction(member) else None) == parameters


def test_each_declared_member_exists(declared):
    with connect(WebSocketView, keep_frames=True) as ws:
        assert [name for name in declared if not hasattr(ws, name)] == []
