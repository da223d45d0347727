"""Connections of synchronous code declare, for type checkers and editors, the members that they find at run time."""

import ast
import inspect

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.client import BlockingConnection, ClientConnection
from duck.contrib.websockets.testing import Blocking, TestConnection, connect

# Of no use in synchronous code, or internal.
WITHOUT = {"create_task", "doing", "open", "read_frame", "run", "safe_close", "sock", "terminate"}


def declarations(kind):
    """The declared public members of a class: the parameters of each method, None for an attribute."""
    module = ast.parse(inspect.getsource(inspect.getmodule(kind)))
    (definition,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
    (block,) = (node for node in definition.body if isinstance(node, ast.If))
    members = {}
    for node in [*block.body, *(node for node in definition.body if isinstance(node, ast.FunctionDef))]:
        if isinstance(node, ast.AnnAssign):
            members[node.target.id] = None
        else:
            members[node.name] = None if node.decorator_list else [one.arg for one in node.args.args]
    return {name: parameters for name, parameters in members.items() if not name.startswith("_")}


@pytest.fixture(scope="module")
def of_a_client():
    return declarations(BlockingConnection)


@pytest.fixture(scope="module")
def of_a_test(of_a_client):
    return of_a_client | declarations(Blocking)


@pytest.mark.parametrize(("kind", "fixture"), [(ClientConnection, "of_a_client"), (TestConnection, "of_a_test")])
def test_each_member_is_declared_with_its_parameters(kind, fixture, request):
    declared = request.getfixturevalue(fixture)
    public = {name for name in dir(kind) if not name.startswith(("_", "on_")) and not name.isupper()}
    assert public - WITHOUT - set(declared) == set()
    for name, parameters in declared.items():
        member = getattr(kind, name, None)
        assert (list(inspect.signature(member).parameters) if inspect.isfunction(member) else None) == parameters


def test_each_declared_member_exists(of_a_test):
    with connect(WebSocketView, keep_frames=True) as ws:
        assert [name for name in of_a_test if not hasattr(ws, name)] == []
