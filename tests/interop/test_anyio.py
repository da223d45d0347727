"""anyio in handlers: they are coroutines in tasks as any other, on both codecs and both loops."""

import importlib.util
from pathlib import Path

import pytest
import websockets

from duck.contrib.websockets import codec

from .serving import serving

pytest.importorskip("anyio")

APP = Path(__file__).with_name("anyio_app.py")


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip("uvloop is not installed")
    return request.param


@pytest.fixture(scope="module", params=["python", "compiled"])
def server(request, loop):
    """Serves the application in a process, whose output has the logged errors."""
    with pytest.MonkeyPatch.context() as variables:
        if request.param == "python":
            variables.setenv("DUCK_NO_EXTENSIONS", "1")
            variables.delenv("DUCK_REQUIRE_SPEEDUPS", raising=False)
        elif codec.describe()["codec"] != "compiled":
            pytest.skip("the codec is not compiled, or not to be used")
        with serving(APP, "--loop", loop, "--log-level", "warning") as server:
            yield server


@pytest.fixture
def talk(server, run):
    """Sends messages to a path, and takes as many answers as are expected."""

    def talk(path, *messages, expected):
        async def scenario():
            async with websockets.connect(server.url(path)) as socket:
                for message in messages:
                    await socket.send(message)
                assert [await socket.recv() for _ in expected] == expected

        run(scenario())

    return talk


def test_the_tasks_of_a_group_send(talk):
    talk("/group", "one two three", expected=["one", "two", "three", "all sent"])


async def test_a_task_that_fails_cancels_its_group_and_nothing_else(server):
    async with websockets.connect(server.url("/failing")) as socket:
        for number in range(3):
            for message in (f"before {number}", "fail", f"behind {number}"):
                await socket.send(message)
            answers = {await socket.recv() for _ in range(3)}  # those that wait less come first
            assert answers == {f"before {number}", "cancelled fail", f"behind {number}"}


@pytest.mark.parametrize("message", ["at once", "wait"])
def test_timeouts_in_each_other(talk, message):
    talk("/timeouts", *[message] * 3, expected=["True False False"] * 3)


def test_a_scope_is_cancelled_from_another_handler(talk):
    talk(
        "/scopes", "wait a", "wait b", "cancel b",
        expected=["a waits", "b waits", "b cleans up", "b goes on"],
    )  # fmt: skip


async def test_handlers_that_wait_in_scopes_end_with_the_connection(server):
    for _ in range(3):
        async with websockets.connect(server.url("/scopes")) as socket:
            await socket.send("wait a")
            assert await socket.recv() == "a waits"


def test_a_memory_stream_leads_to_a_task_of_the_connection(talk):
    words = [f"word {number}" for number in range(50)]
    talk("/streams", *words, expected=[word.upper() for word in words])


def test_a_worker_thread_sends_through_the_loop(talk):
    talk("/threads", "go", expected=["from the thread", "elsewhere"])
