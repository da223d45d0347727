"""The fixtures of all tests; `tests/conftest.py` imports them."""

import asyncio
import collections
import gc
import importlib
import importlib.metadata
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any

import pytest

from duck.contrib.websockets import codec as chosen
from duck.contrib.websockets.protocol.closing import Closing, Drain
from duck.contrib.websockets.protocol.flow_control import FlowControl
from duck.contrib.websockets.protocol.lingering import Lingering
from duck.contrib.websockets.sansio.connection import Connection
from duck.contrib.websockets.testing import VirtualTimeLoop
from duck.server import Server
from duck.server.process.loops import loop_factory

from . import servers
from . import tls as certificates
from .peers import Peer, Session
from .peers import dial as dial_
from .servers import AsgiServer
from .tls import Tls

__all__ = [
    "codec",
    "connect",
    "dial",
    "eager_tasks",
    "either_tls",
    "impatient",
    "log",
    "loop_name",
    "no_collector",
    "on_codec",
    "quick_collection",
    "run",
    "runner",
    "serving",
    "serving_asgi",
    "tls",
    "until",
    "ws",
]

SECONDS = 30
"""Seconds after which a test fails."""

VIRTUAL_SECONDS = 7200
"""The same for tests in virtual time."""

EAGER = os.environ.get("DUCK_TEST_EAGER", "") not in ("", "0")
"""Whether the loop has an eager task factory, as in some applications (Python 3.12)."""


# The codec


@pytest.fixture(scope="session", params=["codec.pure", "_speedups"], ids=["python", "compiled"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """Each of the two codecs; skips the compiled one if it is not built."""
    try:
        return importlib.import_module(f"duck.contrib.websockets.{request.param}")
    except ImportError as error:
        pytest.skip(f"the compiled codec does not load: {error}")


@pytest.fixture
def on_codec(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test twice: once for each codec, which all its connections use."""
    for name, value in vars(codec).items():
        if hasattr(chosen, name) and not name.startswith("_"):
            monkeypatch.setattr(chosen, name, value)
    assert type(Connection().reader) is codec.MessageReader, "connections do not use the codec of the package"


# The loop


def eager_task(loop: Any, coroutine: Any, *, eager_start: bool | None = None, **options: Any) -> asyncio.Task[Any]:
    """asyncio.eager_task_factory for uvloop, whose argument `eager_start` it rejects before Python 3.13.3."""
    return asyncio.Task(coroutine, loop=loop, **options | {"eager_start": eager_start is not False})


@pytest.fixture
def eager_tasks() -> Callable[..., asyncio.Task[Any]]:
    """A factory of eager tasks, which run to their first wait at once."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("before Python 3.12 no task starts eagerly")
    return eager_task


@pytest.fixture
def loop_name(request: pytest.FixtureRequest) -> str:
    """The kind of the loop; `pytest_generate_tests` sets the parameters."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture
def runner(loop_name: str) -> Iterator[asyncio.Runner]:
    """A runner of coroutines on a loop of that kind; with DUCK_TEST_EAGER=1 its tasks are eager."""
    factory = VirtualTimeLoop if loop_name == "virtual" else loop_factory(loop_name)
    with asyncio.Runner(loop_factory=factory) as runner:
        if EAGER:
            runner.get_loop().set_task_factory(eager_task)
        yield runner


@pytest.fixture
def run(runner: asyncio.Runner) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine on each kind of loop. Exceptions that only the loop's exception handler sees fail the test."""
    unseen: list[dict[str, Any]] = []
    seconds = VIRTUAL_SECONDS if isinstance(runner.get_loop(), VirtualTimeLoop) else SECONDS

    async def limited(scenario: Coroutine[Any, Any, Any]) -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(seconds) as limit:
            result = await scenario
        assert not limit.expired(), "the test has taken the cancellation at its limit for something else"
        return result

    yield lambda scenario: runner.run(limited(scenario))
    runner.close()
    assert not unseen


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens those waits for the peer that have no setting."""
    monkeypatch.setattr(Drain, "QUIET", 0.03)
    monkeypatch.setattr(Closing, "LINGER", 0.5)  # its eighth is more than a delayed acknowledgement
    monkeypatch.setattr(Lingering, "QUIET", 0.03)
    monkeypatch.setattr(FlowControl, "CHECK_INTERVAL", 0.03)


@pytest.fixture(scope="module")
def quick_collection() -> None:
    """Restricts the garbage collector to objects that the tests of this module and later ones create."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_collector(quick_collection: None) -> Iterator[None]:
    """Disables the garbage collector, so that objects in reference cycles are not freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Coroutine[Any, Any, None]]:
    """Waits for a condition that has no event."""

    async def wait(condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    return wait


# Servers and clients


@pytest.fixture
def serving() -> Callable[..., AbstractAsyncContextManager[Server]]:
    """Serves a view: `async with serving(View) as server`."""
    return servers.serving


@pytest.fixture
def dial() -> Callable[..., AbstractAsyncContextManager[Peer]]:
    """Connects to a server: `async with dial(server) as peer`. The response is not read."""
    return dial_


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[Session]]:
    """Serves a view and connects to it, on a socket or in memory: `async with connect(View) as session`."""
    return servers.connected_in_memory if request.node.get_closest_marker("in_memory") else servers.connected


@pytest.fixture
def serving_asgi() -> Callable[..., AbstractAsyncContextManager[AsgiServer]]:
    """Serves an ASGI application: `async with serving_asgi(app) as server`, with uvicorn's settings as options."""
    pytest.importorskip("uvicorn")
    return servers.serving_asgi


@pytest.fixture(params=["taken over", "bridged"])
def ws(request: pytest.FixtureRequest) -> str:
    """The WebSocket protocols of uvicorn for a view: ours hands over the connection; the other exchanges events."""
    if request.param == "taken over":
        return servers.OURS
    if tuple(map(int, importlib.metadata.version("uvicorn").split(".")[:2])) < (0, 53):
        pytest.skip("the events of this version of uvicorn have faults; fixed in 0.53")
    return "websockets-sansio"


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for localhost."""
    return certificates.make(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["tcp", "tls"])
def either_tls(request: pytest.FixtureRequest) -> Tls | None:
    """None, and then a certificate, for tests on both kinds of transport."""
    found: Tls | None = request.getfixturevalue("tls") if request.param == "tls" else None
    return found


# The log

Entry = collections.namedtuple("Entry", "level message error")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Entry]]:
    """The records of the package from WARNING on, as (level, message, exception)."""
    caplog.set_level("INFO", "duck")

    def entries() -> list[Entry]:
        return [
            Entry(record.levelname, record.getMessage(), record.exc_info and record.exc_info[1])
            for record in caplog.records
            if record.levelno >= 30
        ]

    return entries
