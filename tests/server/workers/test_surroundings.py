"""Workers in their surroundings: signals that others send or ignore, child processes, and long reports."""

import errno
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from duck.server.options import Options
from duck.server.workers.worker_sockets import WorkerSockets

from ...support.commands import Process, run_command
from ..command import ONE_VIEW, echo, ignoring

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


def test_exit_statuses_are_known_where_the_parent_ignores_sigchld(folder):
    words = ignoring("SIGCHLD", "serve", "echo.py", "--port", 0, "--workers", 2)
    with Process(folder, words=words) as process:
        status, errors = process.stop(signal.SIGTERM)
    assert (status, "WARNING" in errors) == (0, False)


def test_a_hangup_that_reaches_a_worker_changes_nothing(folder):
    """A terminal that closes, or `systemctl kill -s HUP`, sends it to each process."""
    (folder / "app.py").write_text(ONE_VIEW.replace("self.send(message", "self.send(str(__import__('os').getpid())"))
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        with connect(process.address) as client:
            client.send("who?")
            os.kill(int(client.recv(30)), signal.SIGHUP)
            client.send("there?")
            assert client.recv(30)
        status, errors = process.stop(signal.SIGTERM)
    assert (status, "SIGHUP" in errors) == (0, False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers share a socket")
async def test_no_other_server_gets_the_address_while_no_worker_has_a_socket():
    """Before the first worker, and while all of them wait for their next attempt to start."""

    def is_taken(address):
        with socket.socket() as other:
            try:
                other.bind(address)
            except OSError as error:
                return error.errno == errno.EADDRINUSE
        return False

    async with WorkerSockets.at(Options(port=0), ()) as worker_sockets:
        first = worker_sockets.take()
        address = first[0].getsockname()
        worker_sockets.put_back(first)
        assert is_taken(address)
        listening = worker_sockets.take()
        listening[0].listen()
        with socket.create_connection(address):
            listening[0].accept()[0].close()
        worker_sockets.put_back(listening)
        worker_sockets.close()
        with socket.create_server(address):  # as a successor of the whole server does
            pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_child_processes_of_an_application_inherit_no_socket(folder, workers):
    """They would keep the port after the end of the server."""
    told = "' '.join(file for file in os.listdir('/proc/self/fd') if inherited(int(file)))"
    (folder / "telling.py").write_text(
        f"import os, stat\n{ONE_VIEW.replace('send(message', f'send({told}')}\ndef inherited(file):\n    try:\n"
        "        return os.get_inheritable(file) and stat.S_ISSOCK(os.fstat(file).st_mode)\n"
        "    except OSError:\n        return False\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        file = listening.fileno()
        for where, files in ((("--port", 0), []), (("--fd", file), [file])):
            with Process(folder, "telling.py", *where, "--workers", workers, pass_fds=files) as process:
                assert echo(process.address) == ""


def test_a_hangup_serves_the_release_that_a_link_leads_to(folder):
    for release in ("first", "second"):
        (folder / release).mkdir()
        (folder / release / "release.py").write_text(f"NAME = {release!r}\n")
        (folder / release / "app.py").write_text(f"import release\n{ONE_VIEW.replace('(message', '(release.NAME')}")
    link = folder / "current"
    link.symlink_to("first")
    with Process(folder, "current/app.py", "--port", 0, "--worker-timeout", 60) as process:
        with connect(process.address) as client:
            client.send("which?")
            assert client.recv(30) == "first"
            link.unlink()
            link.symlink_to("second")
            process.process.send_signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed):
                client.recv(30)
        assert echo(process.address) == "second"
        assert process.stop(signal.SIGTERM)[0] == 0


def test_certificates_that_a_new_worker_cannot_use_are_named(folder, tls):
    (folder / "cert.pem").write_bytes(Path(tls.certfile).read_bytes())
    files = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", tls.keyfile)
    refused = "the workers are not replaced, because a new one fails: "
    with Process(folder, "echo.py", "--port", 0, "--workers", 2, *files) as process:
        (folder / "cert.pem").write_text("nonsense")
        process.process.send_signal(signal.SIGHUP)
        assert f"{refused}cannot use cert.pem with {tls.keyfile}: " in process.until_told(refused)
        (folder / "cert.pem").unlink()
        process.process.send_signal(signal.SIGHUP)
        assert f"{refused}cannot read cert.pem; check the path" in process.until_told(refused)
        assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"
        status, errors = process.stop(signal.SIGTERM)
    assert (status, "Traceback" in errors) == (0, False)


@pytest.mark.parametrize(
    ("application", "words"),
    [
        ("raise ValueError('x' * 300_000)", "cannot be imported: ValueError: x"),
        (
            "import contextlib\nfrom echo import urlpatterns\n@contextlib.asynccontextmanager\n"
            "async def lifespan(server):\n    raise ValueError('x' * 3_000_000)\n    yield\n",
            "the lifespan failed at startup: ValueError: x",
        ),
    ],
)
def test_the_error_of_a_worker_has_any_length(folder, application, words):
    (folder / "wordy.py").write_text(application)
    result = run_command(folder, "serve", "wordy.py", "--port", 0, "--workers", 2)
    assert re.search(rf"^duck: .*{words}x", result.stderr, re.M)
    assert result.returncode in (1, 2)
