"""The folder `duck/contrib/websockets` in the place of Duck Framework's own, in each of the framework's modes.

This installs the framework into an environment of its own and takes a minute or two, so it runs where DUCK_FRAMEWORK
names the requirement, such as `duckframework==2.3.2`; `.ci/run` does that.
"""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import websockets

import duck.contrib.websockets

from ..support.processes import NotStarted, free_port, until_listening
from . import chromium

FRAMEWORK = os.environ.get("DUCK_FRAMEWORK", "")

pytestmark = [
    pytest.mark.framework,
    pytest.mark.skipif(not FRAMEWORK, reason="DUCK_FRAMEWORK does not say which Duck Framework to install"),
]

MIB = 1024 * 1024

STARTING = 60
"""Seconds that the framework may take to start."""

CONNECTIONS = {True: 50, False: 8}
"""At a time; without ASYNC_HANDLING each of them blocks a thread of a pool."""

TLS_AT_A_TIME = 4
"""For not everybody may come at once, see `Site.dial`."""

MAIN = """
import os
from duck.app import App

app = App(port=int(os.environ["TEST_PORT"]), addr="127.0.0.1", domain="localhost")

if __name__ == "__main__":
    app.run()
"""

SETTINGS = """
ASYNC_HANDLING = os.environ["TEST_ASYNC"] == "1"
ENABLE_HTTPS = os.environ["TEST_TLS"] == "1"
ASYNC_LOOP = os.environ["TEST_LOOP"]
AUTO_RELOAD = False
"""


class Mode(NamedTuple):
    """The way in which the framework runs."""

    asynchronous: bool
    secure: bool
    loop: str


MODES = [
    Mode(asynchronous, secure, loop)
    for asynchronous in (True, False)
    for secure in (False, True)
    for loop in ("asyncio", "uvloop")
]


class Site(NamedTuple):
    """The running framework."""

    mode: Mode
    port: int
    trust: ssl.SSLContext | None

    @property
    def origin(self) -> str:
        return f"{'https' if self.mode.secure else 'http'}://localhost:{self.port}"

    async def dial(self, path, **options):
        """A connection; the framework wants to know the origin.

        It gives each half of a TLS handshake 10 ms to come, and hangs when that is not enough: then one tries again.
        """
        options = {"origin": self.origin, "max_size": None, "open_timeout": 5 if self.mode.secure else 50, **options}
        url = f"ws{self.origin.removeprefix('http')}{path}"
        for _ in range(20):
            try:
                return await websockets.connect(url, ssl=self.trust, **options)
            except (TimeoutError, ConnectionError, ssl.SSLError):
                if not self.mode.secure:
                    raise
        raise AssertionError("the framework does not get a TLS handshake done")

    @asynccontextmanager
    async def connect(self, path, **options):
        async with await self.dial(path, **options) as socket:
            yield socket


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project, beside an environment with the framework and our folder in it."""
    folder = tmp_path_factory.mktemp("framework")
    python = folder / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    installed = subprocess.run([*pip, FRAMEWORK, "uvloop"], capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.fail(f"{FRAMEWORK} cannot be installed:\n{installed.stderr}")
    where = "import importlib.util; print(importlib.util.find_spec('duck').submodule_search_locations[0])"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    root = subprocess.run([python, "-P", "-c", where], capture_output=True, text=True, check=True, env=clean).stdout
    theirs = Path(root.strip()) / "contrib/websockets"
    shutil.rmtree(theirs)
    shutil.copytree(Path(duck.contrib.websockets.__file__).parent, theirs)
    subprocess.run([python.with_name("duck"), "makeproject", "site"], cwd=folder, check=True, capture_output=True)
    web = folder / "site/web"
    (web / "main.py").write_text(MAIN)
    shutil.copy(Path(__file__).with_name("framework_urls.py"), web / "urls.py")
    with (web / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    return folder / "site"


@contextmanager
def running(project: Path, mode: Mode) -> Iterator[Site]:
    port = free_port()
    variables = {
        "TEST_PORT": str(port),
        "TEST_ASYNC": str(int(mode.asynchronous)),
        "TEST_TLS": str(int(mode.secure)),
        "TEST_LOOP": mode.loop,
    }
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    trust = None
    if mode.secure:
        trust = ssl.create_default_context()
        trust.check_hostname = False
        trust.verify_mode = ssl.CERT_NONE
        trust.set_alpn_protocols(["http/1.1"])
    log = project / "log.txt"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [project.with_name("venv") / "bin/python", "web/main.py"],
            cwd=project,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            try:
                until_listening(port, process, STARTING)
            except NotStarted as error:
                pytest.fail(f"the framework: {error}\n{log.read_text()}")
            yield Site(mode, port, trust)
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture(
    scope="module",
    params=MODES,
    ids=lambda mode: f"{'asgi' if mode.asynchronous else 'wsgi'}-{'wss' if mode.secure else 'ws'}-{mode.loop}",
)
def site(request, project):
    with running(project, request.param) as site:
        yield site


async def endings(site):
    """The ends of connections, by their names."""
    async with site.connect("/endings") as socket:
        await socket.send("")
        return {one: rest for one, *rest in json.loads(await socket.recv())}


async def ending(site, name):
    """Waits for the end of a connection, and returns it."""
    while name not in (found := await endings(site)):
        pass
    return found[name]


async def test_messages_are_echoed(site):
    async with site.connect("/echo/messages") as socket:
        for message in ("", "duck 🦆", b"", bytes(range(256))):
            await socket.send(message)
            assert await socket.recv() == message
        messages = [f"message {i}" for i in range(300)]
        for message in messages:
            await socket.send(message)
        assert [await socket.recv() for _ in messages] == messages
        await (await socket.ping())


async def test_a_message_of_5_mib_is_echoed(site):
    message = bytes(range(256)) * (5 * MIB // 256)
    async with site.connect("/echo/5-mib", compression=None) as socket:
        await socket.send(message)
        assert (await socket.recv() == message) is True


async def test_fragments_go_both_ways(site):
    async with site.connect("/echo/fragments", compression=None) as socket:
        await socket.send(["in ", "three ", "parts"])
        assert await socket.recv() == "in three parts"
        await socket.send("fragments")
        assert [part async for part in socket.recv_streaming()] == ["frag", "ments", ""]


async def test_the_view_gets_the_clients_close_code(site):
    async with site.connect("/echo/client-closes") as socket:
        await socket.close(4000, "enough")
        assert socket.close_code == 4000
    assert await ending(site, "client-closes") == [4000, "enough", True]


async def test_the_client_gets_the_views_close_code(site):
    async with site.connect("/echo/view-closes") as socket:
        await socket.send("close")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "as asked")
    assert await ending(site, "view-closes") == [4001, "as asked", True]


async def test_a_client_that_vanishes_is_1006(site):
    async with site.connect("/echo/client-goes") as socket:
        await socket.send("here")
        assert await socket.recv() == "here"
        socket.transport.abort()
    assert await ending(site, "client-goes") == [1006, "", False]


async def test_an_error_in_a_hook_closes_with_1011(site):
    async with site.connect("/echo/hook-fails") as socket:
        await socket.send("fail")
        await socket.wait_closed()
        assert socket.close_code == 1011
    assert (await ending(site, "hook-fails"))[0] == 1011


async def test_another_origin_is_refused(site):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await site.dial("/echo/origin", origin="http://example.org")
    assert refused.value.response.status_code == 403


async def test_a_view_decides_on_its_handshake(site):
    with pytest.raises(websockets.InvalidStatus) as refused:
        await site.dial("/member")
    response = refused.value.response
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Cookie")
    assert response.body == b"log in first\n"
    options = {"additional_headers": {"Cookie": "session=3f9a"}, "subprotocols": ["v1", "v2"]}
    async with site.connect("/member", **options) as socket:
        assert await socket.recv() == "alice"
        assert socket.subprotocol == "v2"
        assert socket.response.headers["Set-Cookie"] == "seen=1"


async def test_a_client_may_leave_while_a_view_decides(site):
    url = f"ws{site.origin.removeprefix('http')}/undecided"
    while "undecided" not in await endings(site):
        with pytest.raises((TimeoutError, ConnectionError, ssl.SSLError)):
            await websockets.connect(url, ssl=site.trust, origin=site.origin, open_timeout=0.5)


async def test_many_connections_are_served_at_once(site):
    gate = asyncio.Semaphore(TLS_AT_A_TIME if site.mode.secure else 1000)

    async def dial(i):
        async with gate:
            return await site.dial(f"/echo/many-{i}")

    sockets = await asyncio.gather(*(dial(i) for i in range(CONNECTIONS[site.mode.asynchronous])))
    for turn in range(10):
        messages = [f"{i}, turn {turn}" for i in range(len(sockets))]
        await asyncio.gather(*(socket.send(message) for socket, message in zip(sockets, messages, strict=True)))
        assert await asyncio.gather(*(socket.recv() for socket in sockets)) == messages
    await asyncio.gather(*(socket.close() for socket in sockets))
    assert {socket.close_code for socket in sockets} == {1000}


async def test_a_click_on_a_lively_component_is_handled(site, devtools):
    """Its handler waits for the answer to a message that it sends, while its own message is being handled."""
    if site.mode.secure:
        pytest.skip("a browser does not try again as `Site.dial` does")
    async with chromium.open_page(devtools, f"{site.origin}/page") as page:
        # Until Lively is connected it lets clicks go by.
        await page.evaluate("""
                window.clicking = setInterval(() => document.getElementById("button").click(), 300);
            """)
        await page.until("document.getElementById('button').textContent.includes('It is 42.')")
        await page.evaluate("clearInterval(window.clicking)")
