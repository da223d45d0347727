"""Both codecs have the same names, and the functions and methods of both have the same parameters."""

import inspect

import pytest

from duck.contrib.websockets.codec import pure

FUNCTIONS = [name for name in pure.__all__ if inspect.isfunction(getattr(pure, name))]
CLASSES = [name for name in pure.__all__ if inspect.isclass(getattr(pure, name))]
# Methods that a subclass has to define, and those that the compiled class keeps to itself.
ONLY_THE_TWIN = {
    "Counters": {"add_handlers", "add_received", "add_sent"},
    "Histogram": {"add"},
    "Worker": {"handler", "started", "state", "task", "context", "start", "wake", "is_context_untouched"},
    "Dispatcher": {"owner", "handle", "tasks", "release", "idle", "opened", "stopped"},
    "Burst": {"looked"},
    "HotPath": {
        *("received", "yield_reading", "move_on", "send_otherwise", "rest", "until_writable", "write_chunks"),
        *("flush_if_old", "renew_share"),
    },
    "Inbox": {"expire_in", "get_slowly", "hold_reading", "release_reading", "take_encoded"},
}


@pytest.fixture
def compiled():
    return pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)


def public(names):
    return {name for name in names if not name.startswith("_") or name == "_asyncio_future_blocking"}


def own(cls):
    """The names that a class or its bases define."""
    bases = cls.__mro__[:-1]
    return {name for base in bases for name in (*vars(base), *inspect.get_annotations(base))}


def parameters_of(function):
    return list(inspect.signature(function).parameters)


def test_the_codecs_have_the_same_names(compiled):
    assert public(vars(compiled)) == set(pure.__all__) <= set(vars(pure))


def test_the_codecs_have_the_same_numbers(compiled):
    ours, theirs = (
        {name: value for name, value in vars(codec).items() if name in public(vars(codec)) and isinstance(value, int)}
        for codec in (pure, compiled)
    )
    assert ours == theirs
    assert {*pure.numbers.__all__} - {"NOT_TEXT"} == {*ours}
    assert {type(number) for number in theirs.values()} == {int}


def test_functions_have_the_same_parameters(compiled):
    for name in FUNCTIONS:
        assert parameters_of(getattr(compiled, name)) == parameters_of(getattr(pure, name)), name


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_names_and_their_methods_the_same_parameters(compiled, name):
    theirs, ours = getattr(compiled, name), getattr(pure, name)
    names = public(own(ours)) - ONLY_THE_TWIN.get(name, set())
    assert public(own(theirs)) == names
    special = {method for method in vars(ours) if method.startswith("__") and callable(vars(ours)[method])}
    special -= {"__annotate__", "__annotate_func__"}  # of Python 3.14
    assert [method for method in special if not hasattr(theirs, method)] == []
    for method in names:
        if inspect.isroutine(getattr(ours, method, None)):
            assert parameters_of(getattr(theirs, method)) == parameters_of(getattr(ours, method)), method
