"""The examples, as their readers run them."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ..support.commands import ROOT
from ..support.handshake import upgrade
from ..support.processes import free_port, until_listening

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}  # imports the tested package, wherever it is installed


@pytest.fixture
def serve():
    """Serves an example with `duck serve`; yields its address."""
    with ExitStack() as stack:

        def start(name):
            words = [sys.executable, "-P", "-m", "duck", "serve", EXAMPLES / name, "--port", "0"]
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT))
            stack.callback(process.send_signal, signal.SIGTERM)
            return process.stdout.readline().removeprefix("listening on ").strip()

        yield start


def test_the_echo_returns_messages_of_16_mib(serve):
    with connect(serve("echo.py"), max_size=None) as client:
        for message in ("text", b"binary", "", "x" * (16 << 20)):
            client.send(message)
            assert client.recv() == message


def test_the_chat_sends_text_to_all_clients(serve):
    address = serve("chat.py")
    with urlopen(address.replace("ws://", "http://")) as response:
        page = response.read().decode()
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "innerHTML" not in page
    origin = address.replace("ws://", "http://")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(address + "/chat", origin=origin)) for _ in range(3)]
        clients[0].send("<b>hello</b>")
        assert [client.recv() for client in clients] == ["<b>hello</b>"] * 3
        clients[1].close()
        clients[2].send("still here")
        assert [clients[0].recv(), clients[2].recv()] == ["still here"] * 2
        clients[0].send(b"binary")
        with pytest.raises(Exception, match=r"1003.*text only"):
            clients[0].recv()


def test_the_login_admits_signed_in_users_from_its_own_page(serve):
    address = serve("login.py")
    site = address.replace("ws://", "http://")
    with pytest.raises(InvalidStatus) as refused:
        connect(address + "/chat")
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"sign in first\n")
    jar = HTTPCookieProcessor()
    browser = build_opener(jar)
    assert b"Sign in</button>" in browser.open(site).read()
    wrong = Request(site + "/login", b"name=alice&password=guess")
    foreign = Request(site + "/login", b"name=alice&password=quack", {"Origin": "https://evil.test"})
    for form in (wrong, foreign):
        with pytest.raises(HTTPError, match="403") as error:
            browser.open(form)
        error.value.close()
    assert not jar.cookiejar
    assert b"You are <b>alice</b>" in browser.open(site + "/login", b"name=alice&password=quack").read()
    (cookie,) = jar.cookiejar
    headers = {"Cookie": f"theme=dark; {cookie.name}={cookie.value}"}
    with connect(address + "/chat", additional_headers=headers) as client:
        client.send("hello")
        assert client.recv() == "alice: hello"
    browser.open(site + "/logout", b"")
    with pytest.raises(InvalidStatus):
        connect(address + "/chat", additional_headers=headers)


def test_the_chat_does_not_wait_for_a_client_that_does_not_read(serve):
    address = serve("chat.py")
    with socket.socket() as stalled, ExitStack() as stack:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect(("127.0.0.1", int(address.rpartition(":")[2])))
        stalled.sendall(upgrade("/chat"))
        assert stalled.recv(12) == b"HTTP/1.1 101"
        clients = [stack.enter_context(connect(address + "/chat", compression=None)) for _ in range(2)]
        for number in range(2500):  # 10 MB, more than the sockets hold for the client that does not read
            message = f"{number:4000}"
            clients[0].send(message)
            assert [client.recv(30) for client in clients] == [message] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("name", ["echo.py", "chat.py"])
def test_an_example_runs_as_a_script(name):
    source = (EXAMPLES / name).read_text().replace("run(urlpatterns)", "run(urlpatterns, port=0)")
    words = [sys.executable, "-P", "-c", source]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert re.fullmatch(r"listening on ws://127\.0\.0\.1:\d+\n", line)
        assert process.wait(30) == 0


def test_the_example_of_aiohttp_hosts_a_view():
    pytest.importorskip("aiohttp")
    port = free_port()
    source = (EXAMPLES / "aiohttp_host.py").read_text().replace("port=8080", f"port={port}")
    words = [sys.executable, "-P", "-c", source]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        try:
            until_listening(port, process)
            with urlopen(f"http://127.0.0.1:{port}/") as response:
                assert b"new WebSocket" in response.read()
            address = f"ws://127.0.0.1:{port}/echo/visitor"
            with pytest.raises(Exception, match="403"):
                connect(address, origin="http://example.org")
            with connect(address, origin=f"http://127.0.0.1:{port}") as client:
                client.send("hello")
                assert client.recv() == "visitor: hello"
                process.terminate()
                with pytest.raises(Exception, match="1001"):
                    client.recv()
        finally:
            process.terminate()
