"""Applications of FastAPI, Starlette and Django Channels, and a view, as uvicorn serves them with our protocol.

And the view on other ASGI servers. Tests of missing packages of the extra `hosts` are skipped.
"""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import websockets

from ..support.processes import NotStarted, free_port, until_listening
from .peers import chromium_peer, websockets_peer
from .serving import Server

MIB = 1024 * 1024
HERE = Path(__file__).parent
UVICORN = ("asgi_app:app", "--port", "PORT", "--host", "localhost", "--log-level", "warning")
UVICORN += ("--ws", "duck.contrib.websockets.uvicorn:WebSocketProtocol")

for package in ("uvicorn", "fastapi", "starlette", "channels", "django"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


@contextmanager
def running(tmp_path, module, *options, trust=None):
    """Runs a server on a given port, and kills it at the end: it might wait for idle clients, such as a browser."""
    port = free_port()
    command = [sys.executable, "-P", "-m", module, *(option.replace("PORT", str(port)) for option in options)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(HERE)]))}
    log = tmp_path / "log.txt"
    with (
        log.open("w") as output,
        # Not from the checkout: servers import from where they are started, and there the codec is not compiled.
        subprocess.Popen(
            command, cwd=HERE, stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True
        ) as process,
    ):
        try:
            try:
                until_listening(port, process)
            except NotStarted as error:
                pytest.fail(f"{module}: {error}\n{log.read_text()}")
            yield Server(process, port, trust)
        finally:
            with suppress(ProcessLookupError):  # none is left
                os.killpg(process.pid, signal.SIGKILL)  # with its workers, if it has some


@pytest.fixture(scope="module", params=[("uvloop", False), ("asyncio", True)], ids=["ws-uvloop", "wss-asyncio"])
def server(request, tmp_path_factory, tls):
    loop, secure = request.param
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    options = (*UVICORN, "--loop", loop, *(tls.options if secure else ()))
    folder = tmp_path_factory.mktemp("uvicorn")
    with running(folder, "uvicorn", *options, trust=tls.client if secure else None) as server:
        yield server


@pytest.fixture(params=["websockets", "chromium"])
def connect(request, server):
    """Connects to a path of `server`, with each of the clients in turn."""
    if request.param == "websockets":
        return partial(websockets_peer, server)
    return partial(chromium_peer, request.getfixturevalue("devtools"), server)


PLACES = ["fastapi", "channels", "view"]


@pytest.fixture(params=PLACES)
def place(request):
    return f"/{request.param}/echo"


@pytest.fixture(params=[*(("websockets", place) for place in PLACES), ("chromium", "fastapi")], ids="-".join)
def echo(request, server):
    """Connects to a name below an echo: one client to that of each application, the other to one of them.

    An application gets the same events from any client.
    """
    client, place = request.param
    connect = partial(websockets_peer, server)
    if client == "chromium":
        connect = partial(chromium_peer, request.getfixturevalue("devtools"), server)
    return lambda name: connect(f"/{place}/echo/{name}")


async def ending(server, name):
    """The code with which a connection has ended, as its application got to know it, once it has."""
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(server.page(f"/ending/{name}"), ssl=server.trust or True) as response:
                code = await response.json()
            if code is not None:
                return code


async def test_messages_are_echoed(echo):
    messages = ["", "mixed: é ✓ 🦆\0", b"\0" + bytes(range(256)), "🦆" * 20_000, *(f"message {i}" for i in range(50))]
    async with echo("messages") as peer:
        for message in messages:
            await peer.send(message)
        assert [await peer.receive() for _ in messages] == messages


async def test_a_message_of_5_mib_is_echoed(echo):
    async with echo("mib") as peer:
        assert await peer.echoes(bytes(range(256)), 5 * MIB // 256)


async def test_the_application_gets_the_clients_close_code(echo, server):
    name = uuid.uuid4().hex
    async with echo(name) as peer:
        await peer.send("here")
        assert await peer.receive() == "here"
        await peer.close(4000, "enough")
    assert await ending(server, name) == 4000


async def test_the_client_gets_the_applications_close_code(echo):
    async with echo("closes") as peer:
        await peer.send("close")
        assert await peer.closed() == (4001, "as asked")


async def test_an_endpoint_of_starlette_chooses_its_subprotocol(connect, server):
    name = uuid.uuid4().hex
    async with connect(f"/starlette/echo/{name}", ["one", "two"]) as peer:
        assert peer.subprotocol == "two"
        await peer.send(b"bytes")
        assert await peer.receive() == b"bytes"
        await peer.close(4000, "")
    assert await ending(server, name) == 4000


@pytest.mark.parametrize(
    ("path", "said", "heard"),
    [
        ("/fastapi/chat", json.dumps("hello"), {"said": "hello"}),
        ("/channels/echo/group", "all: hello", "all: hello"),
    ],
    ids=["fastapi", "channels"],
)
async def test_a_chat_of_fastapi_or_channels_reaches_all_clients(connect, path, said, heard):
    async with connect(path) as one, connect(path) as two, connect(path) as three:
        await two.send(said)
        for peer in (one, two, three):
            message = await peer.receive()
            assert (json.loads(message) if isinstance(heard, dict) else message) == heard


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/fastapi/closed", 403, b""),
        ("/fastapi/nowhere", 403, b""),
        ("/fastapi/denied", 401, b'{"detail":"who are you?"}'),
    ],
)
async def test_a_refusal_of_the_application_reaches_the_client(server, path, status, body):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(server.url(path), ssl=server.trust)
    assert (refused.value.response.status_code, refused.value.response.body) == (status, body)


async def test_an_application_that_fails_closes_with_1011(connect):
    async with connect("/fastapi/fails") as peer:
        await peer.send("now")
        assert (await peer.closed())[0] == 1011


async def test_a_client_that_is_killed_is_1006(server, place):
    name = uuid.uuid4().hex
    async with websockets.connect(server.url(f"{place}/{name}"), ssl=server.trust) as peer:
        await peer.send("here")
        assert await peer.recv() == "here"
        peer.transport.abort()
        assert await ending(server, name) == 1006


async def test_uvicorn_closes_with_1012_as_it_stops(tmp_path):
    with running(tmp_path, "uvicorn", *UVICORN) as server:
        async with (
            websockets.connect(server.url("/fastapi/echo/stops")) as one,
            websockets.connect(server.url("/view/echo/stops")) as two,
        ):
            server.process.terminate()
            await asyncio.gather(one.wait_closed(), two.wait_closed())
            assert (one.close_code, two.close_code) == (1012, 1012)
            assert await asyncio.to_thread(server.process.wait, 30) is not None


OTHERS = {
    "hypercorn": ("asgi_app:app", "--bind", "127.0.0.1:PORT"),
    "daphne": ("--bind", "127.0.0.1", "--port", "PORT", "asgi_app:app"),
    "gunicorn": ("--worker-class", "asgi", "--bind", "127.0.0.1:PORT", "asgi_app:app"),
    "granian": ("--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT", "asgi_app:app"),
    "uvicorn": ("asgi_app:app", "--port", "PORT", "--ws", "websockets-sansio"),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_a_view_is_served_by_another_asgi_server(tmp_path, name):
    pytest.importorskip(name)
    messages = ["text", "🦆" * 1000, bytes(range(256)), *(f"message {i}" for i in range(100)), bytes(500_000)]
    with running(tmp_path, name, *OTHERS[name]) as server:
        url = f"ws://127.0.0.1:{server.port}/view/echo"
        async with websockets.connect(f"{url}/messages") as peer:
            for message in messages:
                await peer.send(message)
            assert [await peer.recv() for _ in messages] == messages
        async with websockets.connect(f"{url}/closes") as peer:
            await peer.send("close")
            await peer.wait_closed()
            # Daphne does not pass reasons on.
            assert (peer.close_code, peer.close_reason) == (4001, "" if name == "daphne" else "as asked")
        # Daphne sends of these codes only the one for an application that has failed.
        for message, code in ("against the policy", 1011 if name == "daphne" else 1008), ("fail", 1011):
            async with websockets.connect(f"{url}/ends") as peer:
                await peer.send(message)
                await peer.wait_closed()
                assert peer.close_code == code
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{url}/origin", origin="http://example.org")
        assert refused.value.response.status_code == 403
