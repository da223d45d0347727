"""Servers that are processes of their own, clients that others wrote, and a limit to how long anything may take."""

import asyncio
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..support.programs import unavailable
from ..support.tls import Tls
from . import chromium
from .peers import Peer, aiohttp_peer, chromium_peer, websockets_peer
from .serving import Server, serving

SECONDS = 60
"""Seconds that a test waits for anything before it fails."""

NODE = Path(__file__).with_name("node")


class Kind(NamedTuple):
    """The loop and the encryption of a server."""

    loop: str
    secure: bool


KINDS = [Kind("uvloop", False), Kind("asyncio", True)]  # the other two are shown on bare connections


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{'wss' if kind.secure else 'ws'}-{kind.loop}")
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    if kind.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return kind


def _serving(target: Path, kind: Kind, tls: Tls) -> AbstractContextManager[Server]:
    # At the end a browser's idle connection over TLS is waited for.
    options = ("--loop", kind.loop, "--log-level", "warning", "--linger-timeout", "0.2")
    return serving(target, *options, *(tls.options if kind.secure else ()), trust=tls.client if kind.secure else None)


@pytest.fixture(scope="module")
def server(kind: Kind, tls: Tls) -> Iterator[Server]:
    """Serves `app.py`."""
    with _serving(Path(__file__).with_name("app.py"), kind, tls) as server:
        yield server


@pytest.fixture(scope="session")
def devtools() -> Iterator[str]:
    """A running Chromium; the test is skipped without one, unless DUCK_REQUIRE_CHROMIUM is set."""
    executable = chromium.find()
    if executable is None:
        unavailable("CHROMIUM", f"none of {', '.join(chromium.NAMES)} is on the path")
    with chromium.launch(executable) as url:
        yield url


@pytest.fixture(scope="session")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds its ws package; skipped where that cannot be had, unless DUCK_REQUIRE_NODE."""
    folder = tmp_path_factory.mktemp("node")
    if shutil.which("node") is None or shutil.which("npm") is None:
        unavailable("NODE", "node and npm are not on the path")
    shutil.copy(NODE / "package.json", folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=3", "--fetch-timeout=20000"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        unavailable("NODE", "npm takes too long to install ws")
    if done.returncode:
        unavailable("NODE", f"npm cannot install ws:\n{done.stderr}")
    return folder


@pytest.fixture(params=["websockets", "aiohttp", "chromium"])
def connect(request: pytest.FixtureRequest, server: Server) -> Callable[..., AbstractAsyncContextManager[Peer]]:
    """Connects to a path of `server`, with each of the clients in turn."""
    if request.param == "websockets":
        return partial(websockets_peer, server)
    if request.param == "aiohttp":
        return partial(aiohttp_peer, server)
    return partial(chromium_peer, request.getfixturevalue("devtools"), server)


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Runs a coroutine."""

    async def limited(scenario: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(SECONDS):
            await scenario

    with asyncio.Runner() as runner:
        yield lambda scenario: runner.run(limited(scenario))
