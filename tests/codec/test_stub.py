"""`_speedups.pyi` and both codecs have the same names, and methods with the same parameters."""

import ast
import inspect
from pathlib import Path

import pytest

import duck.contrib.websockets as package
from duck.contrib.websockets.codec import pure

STUB = Path(package.__file__).with_name("_speedups.pyi")


def names_of(body):
    """The names in a body of statements: None for a variable or property, else the parameters of a function."""
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = None
        elif isinstance(node, ast.FunctionDef):
            a = node.args
            parameters = [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
            found[node.name] = None if node.decorator_list else parameters
    return found


TREE = ast.parse(STUB.read_text()).body
CLASSES = {node.name: node for node in TREE if isinstance(node, ast.ClassDef)}
SUBCLASS = {
    "HotPath": {
        *("received", "yield_reading", "move_on", "send_otherwise", "rest", "until_writable", "write_chunks"),
    },
    "Inbox": {"expire_in", "get_slowly", "hold_reading", "release_reading", "take_encoded"},
}
# The compiled class has more than its specification, or keeps the same to itself.
ONLY_THE_TWIN = {
    "Counters": {"add_handlers", "add_received", "add_sent"},
    "Histogram": {"add"},
    "Worker": {"handler", "started", "state", "task", "context", "start", "wake", "is_context_untouched"},
    "Dispatcher": {
        *(
            "owner",
            "handle",
            "tasks",
            "release",
            "idle",
            "opened",
            "stopped",
        ),
    },
    "Burst": {"looked"},
    "HotPath": {"flush_if_old", "renew_share"},
}


def public(names):
    return {name for name in names if not name.startswith("_") or name == "_asyncio_future_blocking"}


def own(cls):
    return {name for base in cls.__mro__ if base is not object for name in vars(base)} | set(
        inspect.get_annotations(cls)
    )


def test_the_modules_have_the_names_of_the_stub(codec):
    names = {*names_of(TREE), *CLASSES}
    assert public(names) == {name for name in public(vars(codec)) if name in pure.__all__} == set(pure.__all__)
    assert codec is pure or public(vars(codec)) == set(pure.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_have_the_names_of_the_stub(codec, name):
    stub = names_of(CLASSES[name].body)
    for base in CLASSES[name].bases:
        stub |= names_of(CLASSES[base.id].body)
    cls = getattr(codec, name)
    expected = public(stub)
    if codec is pure:
        expected |= ONLY_THE_TWIN.get(name, set())
    else:
        expected -= SUBCLASS.get(name, set())
    assert public(own(cls)) == expected
    assert all(hasattr(cls, name) for name in stub if name.startswith("__"))


def test_functions_have_the_parameters_of_the_stub(codec):
    for name, parameters in names_of(TREE).items():
        if parameters is not None:
            assert list(inspect.signature(getattr(codec, name)).parameters) == parameters, name


@pytest.mark.parametrize("name", CLASSES)
def test_methods_have_the_parameters_of_the_stub(codec, name):
    cls = getattr(codec, name)
    for method, parameters in names_of(CLASSES[name].body).items():
        if parameters is None or method not in own(cls):
            continue
        if codec is pure or not method.startswith("__"):
            assert list(inspect.signature(getattr(cls, method)).parameters) == parameters, method
