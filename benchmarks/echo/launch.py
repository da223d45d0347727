"""Starts a server in processes of its own, waits until it answers, and ends it."""

import contextlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .. import ROOT
from . import cores, programs
from .registry import Server
from .servers.options import HOST

__all__ = ["Running", "ServerError", "certificate", "command", "free_port", "running", "started", "upgrade"]

START_TIMEOUT = 20.0
TAIL = 12  # lines of a server's output that an error shows

_UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_CLOSE = bytes([0x88, 0x80, 0, 0, 0, 0])


class ServerError(Exception):
    """A server did not start."""


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        port: Its port.
        session: The id of the session of all its processes.
    """

    port: int
    session: int


def command(
    server: Server,
    port: int,
    *,
    heartbeat: bool = False,
    tls: tuple[str, str] | None = None,
    deflate: bool = False,
) -> list[str]:
    """Returns the command that starts a server.

    Args:
        heartbeat: Whether it must ping idle connections.
        tls: Files with a certificate and its key, to encrypt.
        deflate: Whether it is to compress for a client that offers it.
    """
    if not server.module:
        return [str(programs.build("floor")), str(port)]
    words = [sys.executable, "-m", "benchmarks.echo.servers", server.module]
    words += ["--port", str(port), "--loop", server.loop, "--variant", server.variant]
    if heartbeat:
        words.append("--heartbeat")
    if deflate:
        words.append("--deflate")
    if tls:
        words += ["--certfile", tls[0], "--keyfile", tls[1]]
    return words


@contextlib.contextmanager
def running(
    server: Server,
    core: int,
    *,
    heartbeat: bool = False,
    tls: tuple[str, str] | None = None,
    deflate: bool = False,
) -> Iterator[Running]:
    """Runs a server on a core while the block runs. See `command` for the other arguments.

    Any error in the block is given the server's last words as a note.

    Raises:
        ServerError: It does not start.
    """
    port = free_port()
    words = command(server, port, heartbeat=heartbeat, tls=tls, deflate=deflate)
    with started(words, core, server.environment, lambda: _answers(port, tls is not None)) as session:
        yield Running(port, session)


@contextlib.contextmanager
def started(
    words: Sequence[str], core: int, environment: Mapping[str, str], answers: Callable[[], bool]
) -> Iterator[int]:
    """Runs a command on a core while the block runs; gives the id of the session of all its processes.

    Args:
        environment: Variables added to its environment.
        answers: Whether it has started to serve.

    Raises:
        ServerError: It does not start.
    """
    with tempfile.TemporaryFile() as output:
        with cores.pinned(core):
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until(answers, process)
            yield process.pid
        except Exception as error:
            if last := _last_words(output):
                error.add_note(last)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def certificate(folder: Path) -> tuple[str, str]:
    """Makes a certificate for this machine; the files with it and its key.

    Raises:
        OSError: There is no `openssl` command, or it fails.
    """
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    try:
        done = subprocess.run(
            [*words.split(), "-out", files[0], "-keyout", files[1]], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise OSError("TLS needs the openssl command, for a certificate") from None
    if done.returncode != 0:
        raise OSError(f"openssl makes no certificate: {done.stderr.strip()}")
    return files


def free_port() -> int:
    """A free port below those that the system assigns by itself, so that no other socket takes it meanwhile."""
    while True:
        port = random.randrange(30_000, 32_768)
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port


def upgrade(path: str = "/") -> bytes:
    """An upgrade request."""
    return _UPGRADE % path.encode()


def _wait_until(answers: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not answers():
        if process.poll() is not None:
            raise ServerError(f"it ended with status {process.returncode} before it answered")
        if time.monotonic() > deadline:
            raise ServerError(f"it did not answer within {START_TIMEOUT:g} s")
        time.sleep(0.02)


def _answers(port: int, tls: bool) -> bool:
    """Whether a WebSocket can be opened there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=2) as plain:
        if not tls:
            return _upgrades(plain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(plain) as encrypted:
            return _upgrades(encrypted)
    return False


def _upgrades(connection: socket.socket) -> bool:
    connection.sendall(upgrade())
    answer = connection.recv(4096)
    if not answer.startswith(b"HTTP/1.1 101"):
        return False
    with contextlib.suppress(OSError):
        connection.sendall(_CLOSE)
        while connection.recv(4096):
            pass
    return True


def _last_words(output: IO[bytes]) -> str:
    """The end of a server's output."""
    output.seek(0)
    lines = output.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-TAIL:])
