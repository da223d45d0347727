"""The chats of the guide to migrating, before and after: the same clients, and the same answers."""

import asyncio
import importlib
import json
import re

import pytest
import websockets

from duck.contrib.websockets import Frame, OpCode
from duck.contrib.websockets.testing import HandshakeRefused
from duck.contrib.websockets.testing import connect as memory
from duck.server import serve

from .snippets import ROOT, skip_without_imports

GUIDE = (ROOT / "docs" / "guides" / "migrating.md").read_text("utf-8")


def chat(section, fence):
    """The names of a section's block: "py" before the change, "python" after it."""
    text = re.search(rf"^## From {section}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)[1]
    (source,) = re.findall(rf"^```{fence}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    skip_without_imports(source)
    names = {"__name__": f"{section}_{fence}"}
    exec(compile(source, section, "exec"), names)
    return names


def set_up_channels(monkeypatch):
    conf, layers = importlib.import_module("django.conf"), importlib.import_module("channels.layers")
    monkeypatch.setitem(conf.settings.__dict__, "_wrapped", conf.UserSettingsHolder(conf.global_settings))
    monkeypatch.setitem(layers.channel_layers.backends, "default", layers.InMemoryChannelLayer())


@pytest.fixture(params=["py", "python"], ids=["before", "after"])
def fence(request):
    return request.param


async def test_the_chats_of_websockets_and_of_the_view_behave_alike(fence):
    names = chat("websockets", fence)

    async def talk(url):
        async with websockets.connect(f"{url}?token=1") as alice, websockets.connect(f"{url}?token=2") as bob:
            await alice.send("hello")
            assert (await alice.recv(), await bob.recv()) == ("hello", "hello")
            await bob.send(b"\xff")
            assert (await alice.recv(), await bob.recv()) == (b"\xff", b"\xff")
        async with websockets.connect(url) as stranger:
            with pytest.raises(websockets.ConnectionClosed, match="no token"):
                await stranger.recv()
            assert stranger.close_code == 1008

    if fence == "py":
        async with websockets.serve(names["chat"], "127.0.0.1", 0) as server:
            await talk(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    else:
        async with serve(names["Chat"], port=0) as server:
            await talk(f"{server.addresses[0]}/")


@pytest.mark.parametrize(("section", "name"), [("Starlette and FastAPI", "app"), ("Django Channels", "application")])
async def test_the_rooms_of_asgi_applications_and_of_the_view_behave_alike(section, name, fence, monkeypatch):
    app = chat(section, fence)[name]
    if section == "Django Channels":
        set_up_channels(monkeypatch)
    async with memory(app, "/rooms/tea?token=1") as alice, memory(app, "/rooms/tea?token=2") as bob:
        await alice.send("hello")
        assert (await alice.recv(), await bob.recv()) == ("hello", "hello")
        async with memory(app, "/rooms/coffee?token=3") as carol:
            await carol.send("alone")
            assert await carol.recv() == "alone"
    with pytest.raises(HandshakeRefused, match="403"):
        await memory(app, "/rooms/tea")


def test_tests_with_the_client_of_starlette_pass_for_both(fence):
    """They pass for the endpoint and for the view."""
    pytest.importorskip("httpx2")
    from starlette.testclient import TestClient, WebSocketDenialResponse
    from starlette.websockets import WebSocketDisconnect

    with TestClient(chat("Starlette and FastAPI", fence)["app"]) as client:  # one thread for all connections
        with client.websocket_connect("/rooms/tea?token=1") as alice:
            alice.send_text("alone")
            assert alice.receive_text() == "alone"
            with client.websocket_connect("/rooms/tea?token=2") as bob:
                bob.send_text("hello")  # after bob's entry, which follows the handshake
                assert (alice.receive_text(), bob.receive_text()) == ("hello", "hello")
        with (
            pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)) as refused,
            client.websocket_connect("/rooms/tea"),
        ):
            pass
    if fence == "python":
        assert (refused.value.status_code, refused.value.text) == (403, "no token\n")


async def test_tests_with_the_communicator_of_channels_pass_for_both(fence, monkeypatch):
    """They pass for the consumer and for the view."""
    application = chat("Django Channels", fence)["application"]
    set_up_channels(monkeypatch)
    communicator = importlib.import_module("channels.testing").WebsocketCommunicator
    alice, stranger = communicator(application, "/rooms/tea?token=1"), communicator(application, "/rooms/tea")
    assert await alice.connect() == (True, None)
    await alice.send_to(text_data="hello")
    assert await alice.receive_from() == "hello"
    await alice.disconnect()
    connected, _ = await stranger.connect()
    assert not connected


def test_socket_io(fence):
    names, data = chat("Socket.IO", fence), {"room": "tea", "text": "hello"}

    async def before():
        async with memory(names["app"], "/socket.io/?EIO=4&transport=websocket") as ws:
            assert (await ws.recv()).startswith("0{")  # the packets of Engine.IO and Socket.IO
            await ws.send("40")
            assert (await ws.recv()).startswith("40{")
            await ws.send('42["join","tea"]')
            await ws.send(f'421["chat",{json.dumps(data)}]')
            assert json.loads((await ws.recv()).removeprefix("42")) == ["chat", data]
            assert await ws.recv() == '431["sent"]'

    async def after():
        async with memory(names["urlpatterns"], "/chat") as ws:
            await ws.send_json({"event": "join", "data": "tea"})
            await ws.send_json({"event": "chat", "data": data, "id": 1})
            assert json.loads(await ws.recv()) == {"event": "chat", "data": data}
            assert json.loads(await ws.recv()) == {"event": "answer", "id": 1, "data": "sent"}

    asyncio.run(before() if fence == "py" else after())


def test_the_chats_of_duck_framework_and_of_the_view_behave_alike(fence, capsys):
    with memory(chat("Duck Framework", fence)["Chat"]) as ws:
        ws.send("hello")
        assert ws.recv() == "hello"
        ws.send_raw(Frame(OpCode.TEXT, payload=b"\xff").serialize(mask=True))
        assert ws.wait_closed() == 1007
    assert capsys.readouterr().out == "left\n"
