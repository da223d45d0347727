"""The code of the documents, run unchanged."""

import asyncio
import inspect
import json
import re
import socket
import ssl
import subprocess
import sys

import pytest
import trustme
import websockets

from duck.contrib.websockets import Frame, OpCode, WebSocketView
from duck.contrib.websockets.client import connect
from duck.contrib.websockets.testing import HandshakeRefused, VirtualTimeLoop
from duck.contrib.websockets.testing import connect as memory
from duck.server import serve
from duck.urls import path

from ..interop.serving import serving
from .snippets import SNIPPETS, block, blocks, pages


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_a_block_runs(snippet, execute):
    for name, value in execute(snippet.source).items():
        if (
            name.startswith("test_")
            and not inspect.iscoroutinefunction(value)
            and not inspect.signature(value).parameters
        ):
            value()


def test_the_tests_with_a_fixture_and_of_unittest_pass(folder):
    """The tests that need a runner."""
    for name, word in ("test_fixture.py", "def ws()"), ("test_case.py", "class ShoutTest"):
        (folder / name).write_text(block(word))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    done = subprocess.run(
        [*command, *folder.glob("test_[cf]*e.py")], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "4 passed" in done.stdout, done.stdout
    assert done.returncode == 0


async def test_an_endpoint_with_dependencies_serves_a_view(execute, serving_asgi, ws):
    app = execute(block("class Greeter"))["app"]
    cookies = {"session": "3f9a"}
    async with memory(app, "/greeter/tea", cookies=cookies) as peer:
        await peer.send("hello")
        assert await peer.recv() == "alice in tea: hello"
    async with serving_asgi(app, ws=ws) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/greeter/tea", cookies=cookies) as peer:
            await peer.send("hello")
            assert await peer.recv(timeout=5) == "alice in tea: hello"
        with pytest.raises(HandshakeRefused, match="403"):
            await connect(f"ws://127.0.0.1:{server.port}/greeter/tea")


def test_views_in_front_of_an_application_take_their_paths(execute):
    names = execute(block("class WithViews"))
    shout = execute(block("class Shout(WebSocketView):"))["Shout"]

    async def behind(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    app = names["WithViews"](behind, {"/shout": shout.as_asgi(room="lobby")})
    with memory(app, "/shout") as ws:
        ws.send("quack")
        assert ws.recv() == "QUACK"
    assert memory(app, "/other").refusal_sync().status == 403


DJANGO = """
import django
from django.conf import settings
from django.core.management import call_command

tables = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}
settings.configure(SECRET_KEY="x", INSTALLED_APPS=tables, DATABASES={"default": database}, ROOT_URLCONF=__name__)
urlpatterns = []
django.setup()
call_command("migrate", verbosity=0)

import asyncio

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model, login
from django.db import connection
from django.http import HttpRequest
from duck.contrib.websockets.testing import connect
from live import SessionStore, users
from project.asgi import application

user = get_user_model().objects.create_user("alice")
request = HttpRequest()
request.session = SessionStore()
login(request, user)
request.session.save()


@sync_to_async
def lose_the_database():
    connection.connection.close()


for _ in range(2):
    with connect(application, "/live", cookies={"sessionid": request.session.session_key}) as ws:
        users.publish_sync(f"user:{user.pk}", "paid")
        assert ws.recv() == "paid"
    asyncio.run(lose_the_database())
assert connect(application, "/live").refusal_sync().status == 401
"""


def test_a_view_beside_django_knows_the_user_of_the_session_also_after_a_loss_of_the_database(folder):
    pytest.importorskip("django")
    (text,) = (block for page in pages() for block in blocks(page, "py") if block.startswith("# project/asgi.py"))
    (folder / "project").mkdir()
    (folder / "project/asgi.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", DJANGO], cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.in_memory
async def test_a_lost_client_is_noticed_soon_and_a_silent_one_stays(execute):
    view = execute(block("class Alert"))["Alert"]
    async with memory(view, timeout=1000) as ws:
        await asyncio.sleep(500)
        assert ws.view.close_code is None
        ws.stop_reading()
        begun = asyncio.get_running_loop().time()
        await ws.wait_closed()
        assert asyncio.get_running_loop().time() - begun < 16


@pytest.mark.parametrize("since_ping", range(0, 20, 3))
@pytest.mark.in_memory
async def test_with_the_defaults_a_lost_client_is_noticed_within_the_stated_time(root, since_ping):
    page = (root / "docs/guides/limits.md").read_text()
    earliest, latest = map(int, re.search(r"(\d+) to (\d+) seconds after its last byte", page).groups())

    class Quiet(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send("heard")

    async with memory(Quiet, timeout=1000) as ws:
        await asyncio.sleep(40 + since_ping)
        await ws.send("the last byte")
        assert await ws.recv() == "heard"
        ws.stop_reading()
        begun = asyncio.get_running_loop().time()
        await ws.wait_closed()
        seconds = asyncio.get_running_loop().time() - begun - Quiet.CLOSE_TIMEOUT
        assert earliest <= seconds <= latest + 1.5  # the deadline of the closing handshake is a little late


def test_a_token_in_the_first_message_admits_a_client(execute):
    view = execute(block("class Signed"))["Signed"]
    for word, answer in ("s3cret", "alice: hello"), ("guess", 4001), (None, 4001):
        with memory(view, loop_factory=VirtualTimeLoop, timeout=10) as ws:
            if word is not None:
                ws.send(word)
            if answer == 4001:
                assert ws.wait_closed() == 4001
            else:
                ws.send("hello")
                assert ws.recv() == answer


def test_a_base_class_logs_every_message(execute, caplog):
    view = execute(block("class Logged"))["Echo"]
    with caplog.at_level("INFO", "messages"), memory(view) as ws:
        ws.send("hello")
        ws.recv()
    found = re.findall(r"<Echo testclient:50000 / OPEN> (.*)", caplog.text)
    assert found == ["received TEXT b'hello'", "sends TEXT b'hello'"]


async def test_a_page_shows_connections_and_tasks(execute):
    inside = execute(block("def inside"))["urlpatterns"]

    class Waiting(WebSocketView):
        async def on_receive(self, message, opcode):
            await asyncio.Event().wait()

    async with (
        serve([*inside, path("/waiting", Waiting)], port=0) as server,
        websockets.connect(f"{server.addresses[0]}/waiting") as peer,
    ):
        await peer.send("x")
        await (await peer.ping())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /inside HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        for view in server.connections:
            view.terminate()
    assert re.search(r"<Waiting 127\.0\.0\.1:\d+ /waiting OPEN> latency None\n", page)
    assert re.search(r"Waiting\.on_receive\(\) running at .*test_snippets\.py", page)


def test_too_many_handshakes_are_refused(execute):
    page = execute(block("class Limited"))
    for _ in range(page["HANDSHAKES"]):
        with memory(page["Limited"]):
            pass
    with pytest.raises(HandshakeRefused, match="429") as refused, memory(page["Limited"]):
        pass
    assert 1 <= int(refused.value.headers["retry-after"]) <= 61


def test_a_player_is_admitted_once_at_a_time(execute):
    player = execute(block("class Player"))["Player"]
    cookies = {"session": "3f9a"}
    for _ in range(2):
        with memory(player, cookies=cookies):
            for others, status in ((cookies, "409"), ({}, "401")):
                with pytest.raises(HandshakeRefused, match=status), memory(player, cookies=others):
                    pass
    assert player.seated == set()


async def test_an_upload_resumes_while_the_server_has_the_lost_connection(folder, execute):
    names = execute(block("class Resumable"))
    view, urlpatterns, name = names["Resumable"], names["urlpatterns"], "0" * 64
    view.FOLDER = folder / "uploads"

    async def parts(*sent):
        for part in sent:
            yield part
        await asyncio.Event().wait()

    async with memory(urlpatterns, f"/uploads/{name}") as lost:
        assert await lost.recv_json() == {"stored": 0}
        sending = asyncio.create_task(lost.send(parts(b"qu", b"ac"), OpCode.BINARY))
        while await lost.recv_json() != {"stored": 4}:
            pass
        async with memory(urlpatterns, f"/uploads/{name}") as ws:
            assert await ws.recv_json() == {"stored": 4}
            assert await lost.wait_closed() == 1001
            await ws.send(b"k")
            while await ws.recv_json() != {"stored": 5}:
                pass
        sending.cancel()
    assert not view.uploads
    assert (view.FOLDER / name).read_bytes() == b"quack"


async def test_the_first_view_is_served_as_a_file(folder):
    with serving(folder / "shout.py", "--log-level", "warning") as server:
        async with websockets.connect(server.url("/shout/lobby")) as peer:
            await peer.send("quack")
            assert await peer.recv() == "QUACK"


def test_serving_from_code_prints_the_address(execute, capsys):
    execute(block("print(server.addresses)"))
    assert re.fullmatch(r"\['ws://127\.0\.0\.1:\d+'\]\n", capsys.readouterr().out)


def test_a_wrong_setting_gives_the_message_of_the_page(execute, capsys):
    source = block("class Wrong")
    execute(source)
    assert capsys.readouterr().out.strip() == re.search(r"# (Wrong\..*)", source)[1]


async def said(view, *lines, **options):
    """The answers of a view to lines, one after the other; the close code at the end."""
    async with serve(view, port=0) as server, websockets.connect(server.addresses[0], **options) as peer:
        answers = []
        try:
            for line in lines:
                await peer.send(line)
            while True:
                answers.append(await peer.recv())
        except websockets.ConnectionClosed:
            return [*answers, peer.close_code]


def test_a_dialogue_admits_the_right_password_only(execute, run):
    login = execute(block("class Login"))["Login"]
    assert run(said(login, "duck", "quack")) == ["name?", "password?", "welcome", 1000]
    assert run(said(login, "duck", "moo")) == ["name?", "password?", "no", 1000]


@pytest.mark.parametrize(
    ("name", "status", "headers", "greeting"),
    [
        ("Account", 403, {"Cookie": "session=3f9a"}, "hello, alice"),
        ("Device", 401, {"Authorization": "Bearer s3cret"}, None),
        ("Basic", 401, {"Authorization": "Basic YWxpY2U6cXVhY2s="}, None),
    ],
)
async def test_a_view_admits_known_users_only(execute, name, status, headers, greeting):
    view = execute(block(f"class {name}"))[name]
    async with serve(view, port=0) as server:
        with pytest.raises(websockets.InvalidStatus, match=str(status)):
            await websockets.connect(server.addresses[0])
        async with websockets.connect(server.addresses[0], additional_headers=headers) as peer:
            if greeting is not None:
                assert await peer.recv() == greeting


async def test_a_view_is_hosted_on_a_transport(execute):
    host = execute(block("async def host"))["host"]

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

    server = await asyncio.get_running_loop().create_server(Head, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, websockets.connect(f"ws://127.0.0.1:{port}/") as peer:
        await peer.send("quack")
        assert await peer.recv() == "QUACK"
        await peer.close()


def test_an_extension_reverses_payloads_and_turns_them_back(execute):
    extension = execute(block("class Mirror"))["Mirror"].EXTENSIONS["x-reverse"]([])
    encoded = extension.encode(Frame(OpCode.TEXT, payload=b"quack"))
    assert (encoded.payload, encoded.rsv1) == (b"kcauq", True)
    assert extension.decode(encoded).payload == b"quack"


def test_the_command_of_the_container_serves(folder):
    (page,) = [page for page in pages() if page.stem == "deploying"]
    (dockerfile,) = blocks(page, "dockerfile")
    _, *words = json.loads(re.search(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[1])
    command = [sys.executable, "-P", "-m", "duck", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline()
            assert address.startswith("listening on ws://0.0.0.0:"), address
            socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1]))).close()
        finally:
            process.terminate()
        assert process.wait(30) == 0


async def test_a_view_counts_in_the_state_of_a_lifespan_which_prints_it(execute, capsys):
    page = execute(block("class Count(WebSocketView)"))
    async with (
        serve(page["urlpatterns"], port=0, lifespan=page["lifespan"]) as server,
        websockets.connect(f"{server.addresses[0]}/count") as peer,
    ):
        await peer.send("quack")
        assert await peer.recv() == '{"messages": 1}'
    assert capsys.readouterr().out == "handled 1\n"


async def test_members_of_a_room_get_the_messages_of_each_other(execute):
    urlpatterns = execute(block("/rooms/<name>"))["urlpatterns"]
    async with (
        serve(urlpatterns, port=0) as server,
        websockets.connect(f"{server.addresses[0]}/rooms/tea") as alice,
        websockets.connect(f"{server.addresses[0]}/rooms/tea") as bob,
    ):
        await bob.send("me too")  # answered once bob is a member
        assert await bob.recv() == "me too"
        await alice.send("hello")
        assert await bob.recv() == "hello"


async def test_a_client_catches_up_after_a_reconnection(execute, until, capsys):
    page, printed = execute(block("class News")), []
    news = page["news"]

    def has_printed(count):
        printed.extend(re.findall(r"'text': '(\w+)'", capsys.readouterr().out))
        return len(printed) >= count

    async with serve(page["News"], port=0) as server:
        reading = asyncio.create_task(page["read"](server.addresses[0]))
        await until(lambda: news.count("news"))
        await news.publish("news", "first")
        (view,) = server.connections
        await view.safe_close()
        await news.publish("news", "missed")
        await until(lambda: has_printed(2) and news.count("news"))
        await news.publish("news", "last")
        await until(lambda: has_printed(3))
        reading.cancel()
    assert printed == ["first", "missed", "last"]


async def test_members_are_told_who_is_present_and_who_joins(execute):
    view = execute(block("def announce"))["Room"]
    async with serve(view, port=0) as server, websockets.connect(server.addresses[0]) as peer:
        told = [json.loads(await peer.recv()) for _ in range(2)]
        assert [one for _, one in told[0]["joined"]] == [{"name": "Anne"}]
        assert told == [{"joined": told[0]["joined"], "left": []}, {"joined": told[0]["joined"]}]


@pytest.mark.parametrize(("name", "status"), [("press-1", None), ("lathe", 403)])
def test_a_view_reads_the_name_in_a_client_certificate(execute, run, tmp_path, name, status):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    server_side.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    authority.issue_cert("machine.test", common_name=name).configure_cert(client_side)

    async def scenario():
        page = execute(block("class Machine"))
        async with serve(page["Machine"], port=0, ssl=server_side) as server:
            url = f"wss://localhost:{server.port}/"
            try:
                async with connect(url, ssl=client_side):
                    return server.connections[0].name
            except HandshakeRefused as refused:
                return refused.status

    assert run(scenario()) == (status or name)
