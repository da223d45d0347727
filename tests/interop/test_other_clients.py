"""Compression with clients in C and Perl, each of which has a fault that a server can spare its users."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .app import SIZES, text_of
from .conftest import Kind

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def kind():
    """One server for all: loop and TLS do not depend on compression."""
    return Kind("auto", False)


@pytest.fixture(scope="module")
def libwebsockets(tmp_path_factory):
    """A client that is built with libwebsockets; skipped where that or a compiler is missing."""
    program = tmp_path_factory.mktemp("libwebsockets") / "client"
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler")
    command = [compiler, str(HERE / "libwebsockets.c"), "-o", str(program), "-lwebsockets"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "libwebsockets.h" in done.stderr or "-lwebsockets" in done.stderr:
            pytest.skip("libwebsockets-dev is not installed")
        pytest.fail(done.stderr)
    return program


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; client_no_context_takeover; client_max_window_bits",
        "permessage-deflate; client_no_context_takeover",
    ],
)
def test_libwebsockets_exchanges_compressed_messages(server, libwebsockets, offer):
    """Versions 4.1 to 4.3 deliver an uncompressed message for ever."""
    command = [libwebsockets, str(server.port), offer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == [text_of(size) for size in SIZES]


def test_mojolicious_exchanges_compressed_messages(server):
    """Mojolicious keeps its context despite the agreement."""
    command = [shutil.which("perl") or pytest.skip("perl is not installed"), str(HERE / "mojolicious.pl")]
    if subprocess.run([command[0], "-MMojolicious", "-e", "1"], capture_output=True, check=False).returncode:
        pytest.skip("Mojolicious is not installed")
    messages = [f'{{"number": {number}, "text": "what was said before is said again"}}' for number in range(5)]
    done = subprocess.run(
        [*command, server.url("/echo")],
        input="\n".join([*messages, text_of(5000), *messages, ""]),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer, *received, code = done.stdout.splitlines()
    assert answer == "permessage-deflate; server_max_window_bits=12"
    assert received == [*messages, text_of(5000), *messages]
    assert code == "1000"
