"""The `duck` command in processes of its own: where it listens, and its certificates."""

import errno
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect, unix_connect

from duck.server.listening.sockets import UnixListener

from ..support.commands import Process, command, environment, run_command
from .command import LOOPS, ONE_VIEW, SLOW, each_fails, echo, fails

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


@pytest.mark.parametrize(("options", "mode"), [((), 0o666), (("--uds-mode", "600"), 0o600)])
def test_a_unix_socket_is_served_with_its_permissions_and_removed(folder, options, mode):
    with Process(folder, "echo.py", "--uds", "duck.sock", *options) as process:
        assert process.address == "ws+unix:duck.sock"
        assert stat.S_IMODE((folder / "duck.sock").stat().st_mode) == mode
        with unix_connect(str(folder / "duck.sock"), "ws://localhost/") as client:
            client.send("hello")
            assert client.recv() == "hello"
        assert process.stop(signal.SIGTERM)[0] == 0
    assert not (folder / "duck.sock").exists()


def test_a_unix_socket_whose_folder_has_gone_does_not_disturb_the_shutdown(folder):
    (folder / "run").mkdir()
    with Process(folder, "echo.py", "--uds", "run/duck.sock") as process:
        with unix_connect(str(folder / "run/duck.sock"), "ws://localhost/") as client:
            (folder / "run").rename(folder / "moved")
            (folder / "run").touch()
            process.process.send_signal(signal.SIGTERM)
            with pytest.raises(WebSocketException, match="1001"):
                client.recv(30)
        _, errors = process.process.communicate(timeout=30)
    assert process.process.returncode == 0
    assert "WARNING duck.server: cannot remove run/duck.sock: Not a directory" in errors


def test_a_unix_socket_is_taken_before_the_workers_serve(folder):
    (folder / "slow.py").write_text(SLOW)
    words = command("serve", "slow.py", "--uds", "duck.sock", "--workers", 2)
    with subprocess.Popen(words, cwd=folder, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"begun\n"
            assert "Address already in use" in fails(folder, "serve", "echo.py", "--uds", "duck.sock")
        finally:
            process.terminate()


def test_a_server_does_not_remove_the_unix_socket_of_its_successor(folder):
    """Its file may have the same inode number, which the file system has used again."""
    path = str(folder / "duck.sock")
    first = UnixListener(path)
    first.socket.close()
    second = UnixListener(path)
    first.unlink()
    with second.socket, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    second.unlink()
    assert not (folder / "duck.sock").exists()


def test_a_star_listens_on_every_interface(folder):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Process(folder, "echo.py", "--host", "*", "--port", 0) as process:
        port = process.port
        assert process.address == f"ws://0.0.0.0:{port}"
        assert process.process.stdout.readline() == f"listening on ws://[::]:{port}\n"
        for host in ("127.0.0.1", "[::1]"):
            assert echo(f"ws://{host}:{port}") == "hello"


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("127.0.0.1", "127.0.0.1")])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_page_to_open_is_at_an_address_that_every_browser_can_open(folder, host, shown, workers):
    """Those of every interface can be opened only on some systems."""
    (folder / "page.py").write_text("from duck.urls import path\nurlpatterns = [path('/page', lambda request: '')]\n")
    with Process(folder, "page.py", "--port", 0, "--host", host, "--workers", workers) as process:
        assert f"open http://{shown}:{process.port}/page in a browser\n" in iter(process.process.stdout.readline, "")


def test_a_passed_file_descriptor_is_served(folder):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with Process(folder, "echo.py", "--fd", bound.fileno(), pass_fds=[bound.fileno()]) as process:
            assert process.address == f"ws://127.0.0.1:{port}"
            assert echo(process.address) == "hello"


def test_a_file_descriptor_that_cannot_listen_is_an_error(folder):
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        for sock, words in (
            (unbound, "has no address; bind it first"),
            (datagrams, "nor a Unix stream socket; choose"),
        ):
            line = fails(folder, "serve", "echo.py", "--workers", 2, "--fd", sock.fileno(), pass_fds=[sock.fileno()])
            assert words in line


PASSING = """if True:
    import os, sys
    os.dup2(int(sys.argv[1]), 3)
    os.set_inheritable(3, True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ.setdefault("LISTEN_FDS", "1")
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def test_a_socket_of_systemd_that_cannot_listen_is_an_error(folder):
    """As from a socket unit with `Accept=yes`, or with `ListenDatagram=` or `ListenSequentialPacket=`."""
    serve_ = command("serve", "echo.py")[1:]
    connected, other = socket.socketpair()
    datagrams, packets = socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connected, other, datagrams, packets, open(__file__) as no_socket:
        datagrams.bind(("127.0.0.1", 0))
        packets.bind(str(folder / "packets"))
        for file in (connected.fileno(), datagrams.fileno(), packets.fileno(), no_socket.fileno()):
            words = [sys.executable, "-c", PASSING, str(file), *serve_]
            line = fails(folder, words=words, pass_fds=[file])
            assert re.match(r"duck: cannot listen on file descriptor 3: .*; pass sockets of ListenStream=", line)


@pytest.mark.parametrize("number", ["", "-1", "one"])
def test_a_number_of_sockets_that_systemd_does_not_pass_is_an_error(folder, number):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        file = listening.fileno()
        passing = ["env", f"LISTEN_FDS={number}", sys.executable, "-c", PASSING, str(file)]
        line = fails(folder, words=[*passing, *command("serve", "echo.py")[1:]], pass_fds=[file])
    assert line.startswith(f"duck: LISTEN_FDS={number!r} is not a number of passed sockets")


def test_sockets_that_systemd_passes_replace_host_and_port(folder):
    """They replace --host and --port, and no child process inherits them."""
    told = "str([name for name in __import__('os').environ if name.startswith('LISTEN_')])"
    (folder / "telling.py").write_text(ONE_VIEW.replace("send(message, opcode)", f"send({told})"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, file = listening.getsockname()[1], listening.fileno()
        serve_ = command("serve", "telling.py", "--port", 0)[1:]
        words = [sys.executable, "-c", PASSING, str(file), *serve_]
        with Process(folder, words=words, pass_fds=[file]) as process:
            assert process.address == f"ws://127.0.0.1:{port}"
            with connect(process.address) as client:
                client.send("")
                assert client.recv() == "[]"


def write_encrypted_key(path, tls, password):
    key = serialization.load_pem_private_key(Path(tls.keyfile).read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def test_the_password_of_a_key_is_given_or_in_a_file(folder, tls):
    write_encrypted_key(folder / "key.pem", tls, b"secret")
    (folder / "password").write_text("secret\n")
    files = ("--ssl-certfile", tls.certfile, "--ssl-keyfile", "key.pem")
    for password in ("secret", "@password"):
        with Process(folder, "echo.py", "--port", 0, *files, "--ssl-keyfile-password", password) as process:
            assert process.address.startswith("wss://127.0.0.1:")
            assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"
    wrong = {"wrong": "cannot use", "@missing": "cannot read missing", "@.": "cannot read .;"}
    serve_ = ("serve", "echo.py", *files)
    none, *others = each_fails(folder, serve_, *((*serve_, "--ssl-keyfile-password", password) for password in wrong))
    assert "the key is encrypted, and needs a password" in none
    for line, words in zip(others, wrong.values(), strict=True):
        assert words in line


def test_a_password_in_a_file_has_any_encoding(folder, tls):
    write_encrypted_key(folder / "key.pem", tls, b"g\xe9heim")
    (folder / "password").write_bytes(b"g\xe9heim\r\nof the key\n")
    files = ("--ssl-certfile", tls.certfile, "--ssl-keyfile", "key.pem", "--ssl-keyfile-password", "@password")
    with Process(folder, "echo.py", "--port", 0, *files) as process:
        assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"
    (folder / "password").write_bytes(bytes(2000))
    assert "password cannot be longer than 1024 bytes" in fails(folder, "serve", "echo.py", *files)


def test_clients_without_a_required_certificate_are_refused(folder, tls):
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
        process.process.terminate()
        _, errors = process.process.communicate(timeout=30)
    assert "the connection has failed at its start: [SSL: PEER_DID_NOT_RETURN_A_CERTIFICATE]" in errors
    assert "cannot use echo.py: " in fails(folder, "serve", "echo.py", *files[:4], "--ssl-ca-certs", "echo.py")


@pytest.mark.parametrize("loop", LOOPS)
def test_certificates_are_read_again(folder, loop):
    """SIGHUP reads them; if that fails, the previous ones stay in use."""
    certificate, key = folder / "cert.pem", folder / "key.pem"

    def renew():
        renewed = trustme.CA().issue_cert("localhost")
        renewed.cert_chain_pems[0].write_to_path(certificate)
        renewed.private_key_pem.write_to_path(key)

    def served(process):
        return ssl.get_server_certificate(("127.0.0.1", process.port)).strip()

    renew()
    files = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    with Process(folder, "echo.py", "--port", 0, "--loop", loop, *files) as process:
        assert served(process) == certificate.read_text().strip()
        renew()
        process.process.send_signal(signal.SIGHUP)
        process.until_told("the certificates have been read again")
        before = certificate.read_text().strip()
        assert served(process) == before
        certificate.write_text("nonsense")
        process.process.send_signal(signal.SIGHUP)
        process.until_told("the certificates cannot be read again")
        assert served(process) == before


CONTEXTS = """
import sys
from duck.server import run
from duck.server.listening.tls import Certificates

made = []

def context():
    made.append(Certificates(*sys.argv[3:])())
    return made[-1] if len(made) < int(sys.argv[1]) else None  # as one without its `return`

if __name__ == "__main__":
    run(Echo, port=0, ssl=context, workers=int(sys.argv[2]))
"""


def test_a_function_that_returns_no_tls_context_does_not_end_tls(folder, tls):
    (folder / "contexts.py").write_text(ONE_VIEW + CONTEXTS)
    script = [sys.executable, "-P", "contexts.py"]
    for workers in ("1", "2"):
        result = run_command(folder, words=[*script, "1", workers, tls.certfile, tls.keyfile])
        assert (result.returncode, result.stdout) == (1, "")
        assert "TypeError: ssl must be an ssl.SSLContext, or for run a function" in result.stderr
    with Process(folder, words=[*script, "2", "1", tls.certfile, tls.keyfile]) as process:
        process.process.send_signal(signal.SIGHUP)
        process.until_told("the previous ones stay in use: ssl must be an ssl.SSLContext")
        assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"


def test_a_port_in_use_is_an_error_with_advice(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fails(folder, "serve", "echo.py", "--port", port)
    assert line == (
        f"duck: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --host or --port\n"
    )


def test_places_where_nothing_can_listen_are_errors(folder):
    long = "long" * 30
    host, missing, too_long = each_fails(
        folder,
        ["serve", "echo.py", "--host", "name.invalid"],
        ["serve", "echo.py", "--uds", "missing/duck.sock"],
        ["serve", "echo.py", "--uds", long],
    )
    assert host.startswith("duck: cannot listen on name.invalid:8000: ")
    assert "cannot listen on missing/duck.sock: No such file or directory" in missing
    assert too_long == f"duck: cannot listen on {long}: {os.strerror(errno.ENAMETOOLONG)}; choose another --uds\n"


def test_the_proxy_protocol_names_the_client(folder):
    arguments = ("echo.py", "--port", 0, "--proxy-protocol", "--trusted-proxies", "127.0.0.1")
    with Process(folder, *arguments) as process:
        with process.dial() as proxy:
            proxy.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n")
            with connect(process.address, sock=proxy) as client:
                client.send("hello")
                assert client.recv() == "hello"
        assert "192.0.2.1:4711" in process.stop(signal.SIGTERM)[1]


def test_unusable_certificates_are_errors_with_advice(folder, tls):
    (folder / "nonsense.pem").write_text("nonsense")
    key, certificate = "--ssl-keyfile", "--ssl-certfile"
    expected = {
        (certificate, "missing.pem"): "cannot read missing.pem",
        (certificate, "nonsense.pem"): "cannot use nonsense.pem",
        (certificate, tls.certfile): "cannot use",
        (certificate, tls.keyfile, key, tls.certfile): "give a certificate and its own key",
    }
    lines = each_fails(folder, *(["serve", "echo.py", *files] for files in expected))
    for line, words in zip(lines, expected.values(), strict=True):
        assert words in line


@pytest.mark.parametrize("command", ["serve", "connect"])
def test_a_log_of_keys_that_cannot_be_written_is_an_error_with_its_variable(folder, tls, monkeypatch, command):
    monkeypatch.setenv("SSLKEYLOGFILE", "missing/keys")
    arguments = {
        "serve": ["echo.py", "--ssl-certfile", tls.certfile, "--ssl-keyfile", tls.keyfile],
        "connect": ["wss://127.0.0.1:1", "--insecure"],
    }
    line = fails(folder, command, *arguments[command])
    assert re.fullmatch(r"duck: .*SSLKEYLOGFILE.*No such file or directory.*\n", line)
