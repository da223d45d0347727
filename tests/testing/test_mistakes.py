"""Mistakes in the use of `testing.connect` are explained by their errors."""

import asyncio
from types import SimpleNamespace

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.testing import connect
from duck.urls import path
from duck.views import View

from ..support.views import Echo


@pytest.mark.parametrize(
    ("application", "path", "words"),
    [
        ("x", "/", "neither a view class"),
        (View, "/", "^View is a view of pages: give a WebSocketView$"),
        ([Echo], "/", "is not a route"),
        ([path("/any", Echo), path("/", Echo.as_asgi())], "/any", "'/' is an ASGI application: give the view class"),
        (Echo, "chat", "write '/chat'"),
    ],
)
def test_invalid_applications_and_paths_are_refused(application, path, words):
    with pytest.raises((TypeError, ValueError), match=words), connect(application, path):
        pass


def test_with_on_a_running_loop_is_an_error_with_advice():
    async def scenario():
        with pytest.raises(RuntimeError, match="write async with connect"), connect(Echo):
            pass

    async def call(ws):
        with pytest.raises(RuntimeError, match="use async with connect"):
            ws.send("x")

    asyncio.run(scenario())
    with connect(Echo) as ws:
        asyncio.run(call(ws))


async def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="3 is neither a view class, nor a list of routes"):
        await connect(3)
    with pytest.raises(TypeError, match="is no ASGI application: it cannot be called with scope"):
        await connect(lambda request: "page")


def test_scope_and_kwargs_of_the_other_kind_of_application_are_refused():
    with (
        pytest.raises(TypeError, match=r"connect\(View\.as_asgi\(\), scope=\.\.\.\)"),
        connect(Echo, scope={"user": 1}),
    ):
        pass
    with pytest.raises(TypeError, match="path_params"), connect(Echo.as_asgi(), kwargs={"name": "tea"}):
        pass
    with pytest.raises(TypeError, match=r"scope=\{'state': "), connect(Echo.as_asgi(), server=SimpleNamespace()):
        pass


def test_a_parameter_of_the_view_among_the_options_is_refused_with_advice():
    with pytest.raises(TypeError, match=r"'name' is not an option of connect: .* kwargs=\{'name': \.\.\.\}"):
        connect(Echo, name="tea")
    with pytest.raises(TypeError, match="use headers"), connect(Echo, extra_headers={}):
        pass
    with pytest.raises(TypeError, match="use subprotocols"):
        connect(Echo, subprotocol="v1")


@pytest.mark.parametrize(
    ("name", "ours"),
    [("receive_json", "recv_json"), ("send_to", "send"), ("receive_nothing", r"recv\(timeout=0.1\), which raises")],
)
def test_methods_of_other_test_clients_are_refused_with_advice(name, ours):
    with connect(Echo) as ws, pytest.raises(AttributeError, match=f"no attribute '{name}': use {ours}"):
        getattr(ws, name)


def test_a_forgotten_block_is_explained_with_its_synchronous_form():
    with pytest.raises(AttributeError, match=r"not open; write with connect\(\.\.\.\) as ws, or async with"):
        connect(Echo).recv()


def test_an_init_without_that_of_the_base_is_an_error_with_advice():
    class Forgetful(WebSocketView):
        def __init__(self, request, **kwargs):
            self.request = request

    for application in (Forgetful, Forgetful.as_asgi()):
        with pytest.raises(TypeError, match=r"Forgetful\.__init__ must call super\(\)\.__init__"), connect(application):
            pass
