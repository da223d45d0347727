"""The `duck` command in processes of its own: what it serves, how it stops, and what it says when it cannot."""

import asyncio
import dataclasses
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect, unix_connect

from duck.contrib.websockets import __version__
from duck.server import Limits, arguments, cli
from duck.server.options import Options

from ..support.commands import ROOT, Process, command, environment, run_command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")

ECHO = """
from duck.contrib.websockets import WebSocketView
from duck.urls import path

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

class Stubborn(Echo):
    async def on_receive(self, message, opcode):
        import asyncio
        await self.send(message, opcode)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

urlpatterns = [path("/", Echo), path("/stubborn", Stubborn)]
"""

ONE_VIEW = """
from duck.contrib.websockets import WebSocketView

class Echo(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send(message, opcode)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "one_view.py").write_text(ONE_VIEW)
    return tmp_path


def echo(address, **options):
    with connect(address, **options) as client:
        client.send("hello")
        return client.recv()


def client_of(address):
    """A bare connection."""
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 30)


@pytest.mark.parametrize(
    "target", ["echo.py", "./echo.py", "echo", "echo:urlpatterns", "echo:Echo", "one_view.py", "one_view"]
)
def test_targets(folder, target):
    with Process(folder, target, "--port", 0) as process:
        assert re.fullmatch(r"ws://127\.0\.0\.1:[1-9]\d*", process.address)
        assert echo(process.address) == "hello"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "auto"])
def test_signals(folder, signum, loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with Process(folder, "echo.py", "--port", 0, "--loop", loop) as process:
        with connect(process.address) as client:
            client.send("hello")
            assert client.recv() == "hello"
            process.process.send_signal(signum)
            with pytest.raises(Exception, match=r"1001.*server shutting down"):
                client.recv()
        _, errors = process.process.communicate(timeout=30)
        assert process.process.returncode == 0
        assert "Traceback" not in errors
        assert "Warning" not in errors


def refused(address):
    """Whether nobody listens there."""
    host, port = address.removeprefix("ws://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_later_signal_ends_it_at_once(folder):
    arguments = ("echo.py", "--port", 0, "--shutdown-timeout", 1000)
    with (
        Process(folder, *arguments) as process,
        connect(process.address + "/stubborn") as client,
    ):
        client.send("hello")
        assert client.recv() == "hello"
        process.process.send_signal(signal.SIGTERM)
        while not refused(process.address):
            time.sleep(0.01)
        first = time.monotonic()
        while process.process.poll() is None:
            process.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert time.monotonic() - first > 0.5
        assert process.process.wait() == -signal.SIGTERM


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_together_are_one(folder, signum):
    """`timeout` of GNU sends one to the process and one to its group."""
    (folder / "cleaning.py").write_text(
        ONE_VIEW + "\n    async def on_close(self, frame=None):\n        import asyncio\n"
        "        await asyncio.sleep(0.1)\n        print('cleaned up', flush=True)\n"
    )
    with Process(folder, "cleaning.py", "--port", 0) as process, connect(process.address) as client:
        for _ in range(3):
            process.process.send_signal(signum)
            time.sleep(0.01)
        with pytest.raises(Exception, match="1001"):
            client.recv()
        output, errors = process.process.communicate(timeout=30)
        assert (process.process.returncode, output) == (0, "cleaned up\n")
        assert "Traceback" not in errors


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handler_that_swallows_its_cancellation_is_given_up(folder, loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    arguments = ("echo.py", "--port", 0, "--loop", loop, "--shutdown-timeout", 0.2)
    with Process(folder, *arguments) as process, connect(process.address + "/stubborn") as client:
        client.send("hello")
        assert client.recv() == "hello"
        returncode, errors = process.stop(signal.SIGTERM)
        assert returncode == 0
        assert "1 did not end though cancelled, and were given up: Stubborn at '/stubborn'" in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize("code", [1001, 1012])
def test_the_code_of_the_shutdown(folder, code):
    with (
        Process(folder, "echo.py", "--port", 0, "--shutdown-code", code) as process,
        connect(process.address) as client,
    ):
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match=f"{code}.*server shutting down"):
            client.recv()


def test_uds(folder):
    with Process(folder, "echo.py", "--uds", "duck.sock") as process:
        assert process.address == "ws+unix:duck.sock"
        with unix_connect(str(folder / "duck.sock"), "ws://localhost/") as client:
            client.send("hello")
            assert client.recv() == "hello"
        assert process.stop(signal.SIGTERM)[0] == 0
    assert not (folder / "duck.sock").exists()


def test_uds_mode(folder):
    with Process(folder, "echo.py", "--uds", "duck.sock", "--uds-mode", "600"):
        assert stat.S_IMODE((folder / "duck.sock").stat().st_mode) == 0o600
    with Process(folder, "echo.py", "--uds", "other.sock"):
        assert stat.S_IMODE((folder / "other.sock").stat().st_mode) == 0o666


def test_every_interface(folder):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Process(folder, "echo.py", "--host", "*", "--port", 0) as process:
        port = process.address.rpartition(":")[2]
        assert process.address == f"ws://0.0.0.0:{port}"
        assert process.process.stdout.readline() == f"listening on ws://[::]:{port}\n"
        for host in ("127.0.0.1", "[::1]"):
            assert echo(f"ws://{host}:{port}") == "hello"


def test_a_file_descriptor(folder):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with Process(folder, "echo.py", "--fd", bound.fileno(), pass_fds=[bound.fileno()]) as process:
            assert process.address == f"ws://127.0.0.1:{port}"
            assert echo(process.address) == "hello"


def test_sockets_that_systemd_passes(folder):
    """They take the place of --host and --port, and no other process hears of them."""
    told = "str([name for name in __import__('os').environ if name.startswith('LISTEN_')])"
    (folder / "telling.py").write_text(ONE_VIEW.replace("send(message, opcode)", f"send({told})"))
    script = """if True:
        import os, sys
        os.dup2(int(sys.argv[1]), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, file = listening.getsockname()[1], listening.fileno()
        serve_ = command("serve", "telling.py", "--port", 0)[1:]
        words = [sys.executable, "-c", script, str(file), *serve_]
        with Process(folder, words=words, pass_fds=[file]) as process:
            assert process.address == f"ws://127.0.0.1:{port}"
            with connect(process.address) as client:
                client.send("")
                assert client.recv() == "[]"


def test_a_password_of_the_key(folder, tls):
    key = serialization.load_pem_private_key(Path(tls.keyfile).read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (folder / "key.pem").write_bytes(pem)
    (folder / "password").write_text("secret\n")
    files = ("--ssl-certfile", tls.certfile, "--ssl-keyfile", "key.pem")
    for password in ("secret", "@password"):
        with Process(folder, "echo.py", "--port", 0, *files, "--ssl-keyfile-password", password) as process:
            assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"
    assert "the key is encrypted, and needs a password" in fails(folder, "serve", "echo.py", *files)
    assert "cannot use" in fails(folder, "serve", "echo.py", *files, "--ssl-keyfile-password", "wrong")
    assert "cannot read missing" in fails(folder, "serve", "echo.py", *files, "--ssl-keyfile-password", "@missing")


def test_client_certificates(folder, tls):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    files = ("--ssl-certfile", tls.certfile, "--ssl-keyfile", tls.keyfile, "--ssl-ca-certs", "ca.pem")
    known, unknown = (ssl.create_default_context() for _ in range(2))
    for context in (known, unknown):
        context.load_verify_locations(tls.certfile)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    authority.issue_cert("client@example.org").configure_cert(known)
    with Process(folder, "echo.py", "--port", 0, *files) as process:
        assert echo(process.address, ssl=known, server_hostname="localhost") == "hello"
        with pytest.raises((OSError, WebSocketException)):
            echo(process.address, ssl=unknown, server_hostname="localhost")
    assert "--ssl-ca-certs is of no use without --ssl-certfile" in fails(
        folder, "serve", "echo.py", "--ssl-ca-certs", "ca.pem"
    )


def test_a_server_listens_in_one_place(folder):
    assert "--uds and --fd each say where to listen" in fails(folder, "serve", "echo.py", "--uds", "here", "--fd", "3")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_certificates_are_read_again(folder, tls, loop):
    """On SIGHUP; and where they cannot be, the server goes on with those that it has."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    certificate, key = folder / "cert.pem", folder / "key.pem"

    def renew():
        renewed = trustme.CA().issue_cert("localhost")
        renewed.cert_chain_pems[0].write_to_path(certificate)
        renewed.private_key_pem.write_to_path(key)

    def served(address):
        host, port = address.removeprefix("wss://").split(":")
        return ssl.get_server_certificate((host, int(port))).strip()

    renew()
    files = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    with Process(folder, "echo.py", "--port", 0, "--loop", loop, *files) as process:
        assert served(process.address) == certificate.read_text().strip()
        renew()
        process.process.send_signal(signal.SIGHUP)
        process.until_told("the certificates have been read again")
        before = certificate.read_text().strip()
        assert served(process.address) == before
        certificate.write_text("nonsense")
        process.process.send_signal(signal.SIGHUP)
        process.until_told("cannot read the certificates again")
        assert served(process.address) == before


def test_tls(folder, tls):
    options = ["--ssl-certfile", tls.certfile, "--ssl-keyfile", tls.keyfile]
    with Process(folder, "echo.py", "--port", 0, *options) as process:
        assert process.address.startswith("wss://127.0.0.1:")
        assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of a process's threads")
def test_serving_takes_no_threads(folder):
    with Process(folder, "echo.py", "--port", 0) as process:
        assert echo(process.address) == "hello"
        assert len(list(Path(f"/proc/{process.process.pid}/task").iterdir())) == 1


@pytest.mark.parametrize("option", ["--max-connections", "--max-connections-per-address"])
def test_limits(folder, option):
    with (
        Process(folder, "echo.py", "--port", 0, option, 1) as process,
        connect(process.address),
        pytest.raises(Exception, match="503"),
    ):
        connect(process.address)


@pytest.mark.parametrize(
    ("arguments", "is_on"),
    [
        (("--access-log",), True),
        (("--access-log", "--log-level", "warning"), True),
        (("--no-access-log", "--log-level", "debug"), False),
        ((), False),
    ],
)
def test_the_access_log(folder, arguments, is_on):
    with Process(folder, "echo.py", "--port", 0, *arguments) as process:
        assert echo(process.address) == "hello"
        with client_of(process.address) as client:
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 404 ")
        _, log = process.stop(signal.SIGTERM)
    answered = re.findall(r'INFO duck.access: 127\.0\.0\.1:\d+ "GET (\S+) HTTP/1\.1" (\d+) ', log)
    assert answered == ([("/", "101"), ("/nowhere", "404")] if is_on else [])


def test_who_may_connect(folder):
    arguments = ("--allowed-origins", "https://app.example, https://*.example.net", "--allowed-hosts", "127.0.0.1")
    with Process(folder, "echo.py", "--port", 0, *arguments) as process:
        for origin in ("https://app.example", "https://a.example.net"):
            assert echo(process.address, origin=origin) == "hello"
        with pytest.raises(InvalidStatus) as caught:
            echo(process.address, origin="https://evil.test")
        assert caught.value.response.status_code == 403
        with client_of(process.address) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 421 ")


def test_errors_of_hooks_are_logged(folder):
    (folder / "broken.py").write_text(ONE_VIEW.replace("await self.send(", "await self.sned("))
    with Process(folder, "broken.py", "--port", 0, "--log-level", "error") as process:
        with pytest.raises(Exception, match="1011"):
            echo(process.address)
        assert "has no attribute 'sned'" in process.stop(signal.SIGTERM)[1]


def fails(folder, *arguments):
    """The one line in which a command says what to do."""
    result = run_command(folder, *arguments)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("missing.py", "missing.py: no such file; give the path"),
        (".py", "no such file"),
        ("missing", "no module 'missing'; run this from the folder that holds it"),
        ("missing.inner:x", "no module 'missing'"),
        ("echo:nothing", "echo has no 'nothing'; check the name behind the colon"),
        ("echo:path", "is neither a list of routes nor a View class"),
        ("empty.py", "has no urlpatterns and defines 0 views; define urlpatterns, or name"),
        ("two.py", "has no urlpatterns and defines 2 views"),
        ("", "cannot be imported: ValueError: Empty module name\n"),
        ("..up", "cannot be imported: TypeError: the 'package' argument is required"),
        ("methods.py", "'/': the server offers GET and HEAD only"),
    ],
)
def test_bad_targets(folder, target, words):
    (folder / "empty.py").write_text("")
    (folder / "two.py").write_text(ONE_VIEW + "\nclass Other(Echo):\n    pass\n")
    (folder / "methods.py").write_text(
        "from duck.urls import path\nurlpatterns = [path('/', print, methods=['POST'])]\n"
    )
    line = fails(folder, "serve", target)
    assert line.startswith("duck: ")
    assert words in line


@pytest.mark.parametrize("target", ["app.py", "app"])
@pytest.mark.parametrize("level", ["debug", "critical"])
def test_an_error_in_an_application_is_shown_from_its_own_code_on(folder, target, level):
    (folder / "app.py").write_text("def begin():\n    import inner\n\nbegin()\n")
    (folder / "inner.py").write_text("from duck.urls import path\npath('a', print)\n")
    result = run_command(folder, "serve", target, "--log-level", level)
    assert (result.returncode, result.stdout) == (2, "")
    first, *_, error, last = result.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    places = re.findall(r'File ".*?([^/]+)", line (\d+)', result.stderr)
    assert places[:3] == [("app.py", "4"), ("app.py", "2"), ("inner.py", "2")]
    assert {name for name, _ in places[3:]} == {"urls.py"}
    assert error == "ValueError: 'a' does not start with a slash"
    assert re.fullmatch(rf"duck: {target} cannot be imported: {re.escape(error)} \(.*/inner.py, line 2\)", last)


@pytest.mark.parametrize(
    ("source", "shown", "words"),
    [
        ("\nx = (\n", "    x = (", "SyntaxError: '(' was never closed (/.*/app.py, line 2)"),
        ("import nowhere\n", "    import nowhere", "ModuleNotFoundError: No module named 'nowhere' (/.*, line 1)"),
        ("raise Exception('one\\ntwo')\n", "Exception: one", "Exception: one two (/.*/app.py, line 1)"),
        (
            "try:\n    1 / 0\nexcept Exception:\n    x\n",
            "    1 / 0",
            "NameError: name 'x' is not defined (/.*, line 4)",
        ),
    ],
)
def test_errors_in_applications(folder, source, shown, words):
    (folder / "app.py").write_text(source)
    result = run_command(folder, "serve", "app.py")
    assert result.returncode == 2
    assert shown in result.stderr.splitlines()
    assert "cli.py" not in result.stderr
    assert "importlib" not in result.stderr
    pattern = re.escape(words).replace(r"\.\*", ".*")
    assert re.fullmatch(f"duck: app.py cannot be imported: {pattern}", result.stderr.splitlines()[-1])


def test_an_application_beside_the_package_is_not_taken_for_a_part_of_it(folder):
    (folder / "duck").symlink_to(ROOT / "duck")
    (folder / "duckling.py").write_text("raise ValueError('quack')\n")
    error = run_command(folder, "serve", "duckling.py").stderr
    assert re.search(r'File ".*/duckling.py", line 1', error)
    assert error.endswith("/duckling.py, line 1)\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "required"),
        (("serve",), "required: TARGET"),
        (("dance",), "invalid choice: 'dance'"),
        (("serve", "echo.py", "--dance"), "unrecognized arguments: --dance; see duck serve --help"),
        (("serve", "echo.py", "--port", "abc"), "argument --port: 'abc' is not a port, 0 to 65535; see"),
        (("serve", "echo.py", "--port", "65536"), "'65536' is not a port, 0 to 65535"),
        (("serve", "echo.py", "--uds-mode", "999"), "'999' is not a mode in octal, such as 660"),
        (("serve", "echo.py", "--fd", "-1"), "'-1' is not a file descriptor"),
        (("serve", "echo.py", "--shutdown-code", "1000"), "1000"),
        (("serve", "echo.py", "--loop", "x"), "--loop"),
        (("serve", "echo.py", "--shutdown-timeout", "-1"), "-1"),
        (
            ("serve", "echo.py", "--trusted-proxies", "127.0.0.1, me"),
            "--trusted-proxies: a trusted proxy is an IP address",
        ),
        (
            ("serve", "echo.py", "--allowed-origins", "https://example.org, example.net"),
            "--allowed-origins: allowed_origins has 'example.net', which is the origin of no page: write its",
        ),
        (
            ("serve", "echo.py", "--allowed-hosts", "localhost:8000"),
            "--allowed-hosts: allowed_hosts has 'localhost:8000', which is no host: write its name alone",
        ),
        (("serve", "echo.py", "--max-connections", "0"), "'0' is not a whole number from 1 on"),
        (("serve", "echo.py", "--max-connections-per-address", "many"), "'many' is not a whole number from 1 on"),
        (("serve", "echo.py", "--shutdown-timeout", "soon"), "'soon' is not a number of seconds"),
        (("serve", "echo.py", "--shutdown-timeout", "nan"), "'nan' is not a number of seconds"),
        (("serve", "echo.py", "--head-size", "32K"), "'32K' is not a whole number from 1 on"),
    ],
)
def test_bad_usage(folder, arguments, words):
    line = fails(folder, *arguments)
    assert words in line
    assert line.rstrip().endswith("--help")


def test_a_port_in_use(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fails(folder, "serve", "echo.py", "--port", port)
    assert line == (
        f"duck: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --host or --port\n"
    )


def test_a_host_that_is_not_there(folder):
    line = fails(folder, "serve", "echo.py", "--host", "name.invalid")
    assert line.startswith("duck: cannot listen on name.invalid:8000: ")


def test_a_socket_that_cannot_be_made(folder):
    line = fails(folder, "serve", "echo.py", "--uds", "missing/duck.sock")
    assert "cannot listen on missing/duck.sock: No such file or directory" in line


def test_the_proxy_protocol(folder):
    line = fails(folder, "serve", "echo.py", "--proxy-protocol")
    assert line.startswith("duck: --proxy-protocol needs --trusted-proxies")
    arguments = ("echo.py", "--port", 0, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
    with Process(folder, *arguments) as process:
        host, port = process.address.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port))) as proxy:
            proxy.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n")
            with connect(process.address, sock=proxy) as client:
                client.send("hello")
                assert client.recv() == "hello"
        assert "192.0.2.1:4711" in process.stop(signal.SIGTERM)[1]


def test_bad_certificates(folder, tls):
    (folder / "nonsense.pem").write_text("nonsense")
    serve = ("serve", "echo.py", "--port", "0")
    key, certificate = "--ssl-keyfile", "--ssl-certfile"
    assert "without --ssl-certfile" in fails(folder, *serve, key, tls.keyfile)
    assert "cannot read missing.pem" in fails(folder, *serve, certificate, "missing.pem")
    assert "cannot use nonsense.pem" in fails(folder, *serve, certificate, "nonsense.pem")
    assert "cannot use" in fails(folder, *serve, certificate, tls.certfile)
    swapped = (certificate, tls.keyfile, key, tls.certfile)
    assert "give a certificate and its own key" in fails(folder, *serve, *swapped)


LIFESPAN = """
import contextlib

@contextlib.asynccontextmanager
async def lifespan(server):
    print("begun", flush=True)
    yield
    print("ended", flush=True)
"""


@pytest.mark.parametrize("target", ["living.py", "living:Echo"])
def test_the_lifespan_of_a_module(folder, target):
    (folder / "living.py").write_text(ONE_VIEW + LIFESPAN)
    with subprocess.Popen(
        command("serve", target, "--port", 0),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "begun\n"
        assert process.stdout.readline().startswith("listening on ")
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == ("ended\n", None)
        assert process.returncode == 0


def test_a_lifespan_that_fails(folder):
    (folder / "failing.py").write_text(ONE_VIEW + LIFESPAN.replace("yield", "1 / 0\n    yield"))
    result = run_command(folder, "serve", "failing.py", "--port", 0)
    assert (result.returncode, result.stdout) == (1, "begun\n")
    assert 'failing.py", line' in result.stderr
    assert result.stderr.endswith("\nduck: the lifespan failed at startup: ZeroDivisionError: division by zero\n")


def test_a_signal_while_the_lifespan_starts(folder):
    sleep = "import asyncio; await asyncio.sleep(1000)\n    yield"
    (folder / "slow.py").write_text(ONE_VIEW + LIFESPAN.replace("yield", sleep))
    with subprocess.Popen(
        command("serve", "slow.py", "--port", 0), cwd=folder, env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == (b"", None)
        assert process.returncode == 0


def test_a_loop_of_ones_own(folder):
    (folder / "loops.py").write_text(
        "import asyncio\nclass Own(asyncio.SelectorEventLoop):\n    pass\ndef none():\n    return None\n"
    )
    (folder / "telling.py").write_text(
        ONE_VIEW.replace("send(message, opcode)", "send(type(__import__('asyncio').get_running_loop()).__name__)")
    )
    with Process(folder, "telling.py", "--port", 0, "--loop", "loops:Own") as process:
        assert echo(process.address) == "Own"
    assert "no loop loops:nothing: AttributeError" in fails(folder, "serve", "echo.py", "--loop", "loops:nothing")
    assert "loops:none returned NoneType" in fails(folder, "serve", "echo.py", "--port", 0, "--loop", "loops:none")
    assert "'other' is not one of auto, asyncio, uvloop" in fails(folder, "serve", "echo.py", "--loop", "other")


LOG_CONFIGS = {
    "log.json": """{"version": 1, "formatters": {"own": {"format": "own %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "loggers": {"duck.access": {"level": "INFO"}}, "root": {"handlers": ["own"], "level": "WARNING"}}""",
    "log.toml": '''version = 1
[formatters.own]
format = "own %(message)s"
[handlers.own]
class = "logging.StreamHandler"
formatter = "own"
[loggers."duck.access"]
level = "INFO"
[root]
handlers = ["own"]
level = "WARNING"''',
    "log.ini": """[loggers]
keys=root,access
[handlers]
keys=own
[formatters]
keys=own
[formatter_own]
format=own %(message)s
[handler_own]
class=StreamHandler
formatter=own
args=()
[logger_root]
level=WARNING
handlers=own
[logger_access]
level=INFO
qualname=duck.access
handlers=""",
}


@pytest.mark.parametrize("name", LOG_CONFIGS)
def test_a_configuration_of_logging(folder, name):
    (folder / name).write_text(LOG_CONFIGS[name])
    with Process(folder, "echo.py", "--port", 0, "--log-config", name) as process:
        assert echo(process.address) == "hello"
        assert re.fullmatch(r'own 127.0.0.1:\d+ "GET / HTTP/1.1" 101 .*\n', process.stop(signal.SIGTERM)[1])


def test_no_configuration_of_logging(folder):
    (folder / "log.json").write_text("{}")
    line = fails(folder, "serve", "echo.py", "--log-config", "log.json")
    assert line.startswith("duck: cannot configure logging by log.json: dictionary doesn't specify a version; give")
    assert "No such file" in fails(folder, "serve", "echo.py", "--log-config", "missing.toml")


@pytest.mark.parametrize("path", ["healthz", "/health/<x>"])
def test_a_health_path_that_is_none(folder, path):
    assert "is not a path, such as /healthz" in fails(folder, "serve", "echo.py", "--health-path", path)


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_is_told_of_the_service(folder, workers):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(30)
        words = [
            "env",
            f"NOTIFY_SOCKET={folder / 'notify'}",
            *command("serve", "echo.py", "--port", 0, "--workers", workers),
        ]
        with Process(folder, words=words) as process:
            assert systemd.recv(100) == b"READY=1"
            assert process.stop(signal.SIGTERM)[0] == 0
            assert systemd.recv(100) == b"STOPPING=1"


def test_uvloop_that_is_not_installed(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert cli.main(["serve", "echo.py", "--loop", "uvloop"]) == 2
    assert "uvloop is not installed; install it, or use --loop auto" in capsys.readouterr().err
    factory = cli.loop_factory("auto")
    assert factory is asyncio.new_event_loop


@pytest.mark.parametrize(
    ("option", "head", "status"),
    [
        (("--head-size", 200), b"X: " + b"x" * 200, 431),
        (("--header-count", 3), b"A: 1\r\nB: 2\r\nC: 3", 431),
        (("--head-timeout", 0.2), None, 408),
    ],
)
def test_limits_of_requests(folder, option, head, status):
    sent = b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"" if head is None else head + b"\r\n\r\n")
    with Process(folder, "echo.py", "--port", 0, *option) as process, client_of(process.address) as client:
        client.sendall(sent)
        assert client.recv(4096).startswith(b"HTTP/1.1 %d " % status)


def test_every_limit_has_an_option():
    changed = {
        "connections": 7,
        "connections_per_address": 6,
        "head_timeout": 1.5,
        "keep_alive_timeout": 2.5,
        "linger_timeout": 3.5,
        "head_size": 1000,
        "header_count": 10,
        "body_size": 100,
    }
    assert set(changed) == {field.name for field in dataclasses.fields(Limits)}
    parser = arguments.Parser()
    arguments.add_serve_options(parser)
    assert arguments.options(parser.parse_args(["app.py"])) == Options()
    prefix = {"connections": "max-", "connections_per_address": "max-"}
    words = [f"--{prefix.get(name, '')}{name.replace('_', '-')}={value}" for name, value in changed.items()]
    assert arguments.options(parser.parse_args(["app.py", *words])).limits == Limits(**changed)


@pytest.mark.parametrize(
    "limit",
    [{"connections": "20"}, {"head_size": None}, {"header_count": 1.5}, {"head_timeout": "1"}, {"body_size": True}],
)
def test_limits_that_are_no_numbers(limit):
    (name,) = limit
    with pytest.raises(TypeError, match=rf"Limits\.{name} must be"):
        Limits(**limit)


@pytest.mark.parametrize("limit", [{"connections": -1}, {"head_timeout": float("nan")}])
def test_limits_that_are_negative(limit):
    (name,) = limit
    with pytest.raises(ValueError, match=rf"Limits\.{name} must not be negative"):
        Limits(**limit)


def test_version(folder):
    result = run_command(folder, "--version")
    assert (result.returncode, result.stdout) == (0, f"duck-websockets {__version__}\n")


def test_info(folder):
    result = run_command(folder, "info")
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_help_has_the_options_in_groups(folder):
    result = run_command(folder, "serve", "--help")
    assert result.returncode == 0
    titles = [line for line in result.stdout.splitlines() if re.fullmatch(r"\S.*:", line)]
    assert {"addresses:", "TLS:", "proxies:", "limits:", "logging:", "process:"} <= set(titles)
