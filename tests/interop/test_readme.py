"""The README's code, run as it is."""

import asyncio
import importlib.util
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import websockets

from duck.contrib.websockets import Frame, OpCode

from .serving import serving

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def shout(tmp_path):
    """The first view, in the file that the README names."""
    file = tmp_path / "shout.py"
    file.write_text(BLOCKS[0])
    return file


def block(word):
    """The only block with a word in it."""
    (found,) = [source for source in BLOCKS if word in source]
    return found


def test_the_view_in_ten_lines(shout, run):
    async def scenario():
        with serving(shout, "--log-level", "warning") as server:
            async with websockets.connect(server.url("/shout/lobby")) as socket:
                await socket.send("quack")
                assert await socket.recv() == "QUACK"

    run(scenario())


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: re.search(r"\w+(?=[^\w]*$)", source)[0])
def test_each_block_runs(source, shout):
    """As a script beside `shout.py`; one that serves is interrupted."""
    for name in re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE):
        if name != "shout" and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    script = shout.with_name("script.py")
    script.write_text(source.replace("port=8000", "port=0"))
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(shout.parent)]))
    variables = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-P", "-W", "error::SyntaxWarning", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
        if process.stdout.readline().startswith("listening on"):
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_serving_from_code(shout, run, monkeypatch, capsys):
    monkeypatch.syspath_prepend(shout.parent)
    monkeypatch.setattr("duck.server.run", lambda urlpatterns, port: None)  # for it serves until a signal comes
    script = shout.with_name("script.py")
    script.write_text(block("async def main"))
    run(runpy.run_path(str(script))["main"]())
    assert re.fullmatch(r"\['ws://127\.0\.0\.1:\d+'\]\n", capsys.readouterr().out)


def test_hosting_on_a_transport(shout, run, monkeypatch):
    monkeypatch.syspath_prepend(shout.parent)
    script = shout.with_name("script.py")
    script.write_text(block("async def host"))
    host = runpy.run_path(str(script))["host"]

    class Head(asyncio.Protocol):
        """Reads a request's head, and hands the connection over."""

        head = b""

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.head += data
            if self.head.endswith(b"\r\n\r\n"):
                self.transport.pause_reading()
                request, *fields = self.head.decode().split("\r\n")[:-2]
                headers = [tuple(field.split(": ", 1)) for field in fields]
                self.serving = asyncio.create_task(host(self.transport, *request.split()[:2], headers))

    async def scenario():
        server = await asyncio.get_running_loop().create_server(Head, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, websockets.connect(f"ws://127.0.0.1:{port}/") as socket:
            await socket.send("quack")
            assert await socket.recv() == "QUACK"
            await socket.close()

    run(scenario())


def test_an_extension_of_ones_own(shout):
    script = shout.with_name("script.py")
    script.write_text(block("class Mirror"))
    extension = runpy.run_path(str(script))["Mirror"].EXTENSIONS["x-reverse"]([])
    encoded = extension.encode(Frame(OpCode.TEXT, payload=b"quack"))
    assert (encoded.payload, encoded.rsv1) == (b"kcauq", True)
    assert extension.decode(encoded).payload == b"quack"
