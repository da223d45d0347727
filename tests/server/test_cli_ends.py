"""The `duck` command in processes of its own: signals, lifespans, and notices to systemd."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from websockets.sync.client import connect, unix_connect

from ..support.commands import ROOT, Process, command, environment, run_command
from .command import LOOPS, ONE_VIEW, SLOW, begun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_signal_closes_the_connections_and_ends_with_0(folder, signum, loop):
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


def test_a_server_may_start_with_closed_standard_files(folder):
    """The sockets get no numbers below 3, where libuv would abort the process."""
    is_served_by(
        folder, ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command("serve", "echo.py", "--uds", "duck.sock")]
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_script_may_start_with_closed_standard_files(folder, workers):
    (folder / "script.py").write_text(
        f"from duck.server import run\nfrom one_view import Echo\n"
        f"if __name__ == '__main__':\n    run(Echo, uds='duck.sock', workers={workers})\n"
    )
    is_served_by(folder, ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "script.py"])


def test_connect_may_start_with_closed_standard_files(folder):
    """A closed input is an empty one."""
    with Process(folder, "echo.py", "--port", 0) as process:
        words = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *command("connect", process.address)]
        result = subprocess.run(
            words, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (result.returncode, result.stderr) == (0, "")


def test_a_server_needs_no_reader_of_its_output(folder):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        is_served_by(folder, command("serve", "echo.py", "--uds", "duck.sock"), stdout=output)


def is_served_by(folder, words, **options):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(folder / "notices"))
        notices.settimeout(30)
        notify = {"NOTIFY_SOCKET": str(folder / "notices")}
        with subprocess.Popen(words, cwd=folder, env=environment() | notify, **options) as process:
            try:
                assert notices.recv(100) == b"READY=1"
                with unix_connect(str(folder / "duck.sock"), "ws://localhost/") as client:
                    client.send("hello")
                    assert client.recv() == "hello"
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            finally:
                process.kill()


def test_a_second_signal_ends_the_process_at_once(folder):
    (folder / "hasty.py").write_text(
        "import duck.server.process.signals\nfrom echo import urlpatterns\n"
        "duck.server.process.signals._SAME_SIGNAL = 0.1\n"
    )
    arguments = ("hasty.py", "--port", 0, "--shutdown-timeout", 1000)
    with (
        Process(folder, *arguments) as process,
        connect(process.address + "/stubborn") as client,
    ):
        client.send("hello")
        assert client.recv() == "hello"
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionRefusedError):
            while True:
                process.dial().close()
                time.sleep(0.01)
        assert process.process.poll() is None
        while process.process.poll() is None:
            process.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert process.process.wait() == -signal.SIGTERM


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_simultaneous_signals_are_one(folder, signum):
    """`timeout` of GNU sends one to the process and one to its group."""
    (folder / "cleaning.py").write_text(
        ONE_VIEW + "\n    async def on_close(self, frame=None):\n        import asyncio\n"
        "        await asyncio.sleep(0.1)\n        print('cleaned up', flush=True)\n"
        "\nimport duck.server.process.signals\nduck.server.process.signals._SAME_SIGNAL = 1000\n"  # busy machines
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


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handler_that_swallows_its_cancellation_is_given_up(folder, loop):
    (folder / "hasty.py").write_text(
        "from duck.contrib.websockets.protocol.hooks import Hooks\nfrom duck.server.process import until_stopped\n"
        "from duck.server.shutdown import Work\nfrom echo import urlpatterns\n\n"
        "Hooks.FLUSH_TIMEOUT = Work.CANCEL_TIMEOUT = until_stopped._LAST = 0.1\n"
    )
    arguments = ("hasty.py", "--port", 0, "--loop", loop, "--shutdown-timeout", 0.2)
    with Process(folder, *arguments) as process, connect(process.address + "/stubborn") as client:
        client.send("hello")
        assert client.recv() == "hello"
        returncode, errors = process.stop(signal.SIGTERM)
        assert returncode == 0
        assert "1 did not end when cancelled, and were abandoned: Stubborn at '/stubborn'" in errors
        assert "Traceback" not in errors


HANGING = """
import asyncio, contextlib, os, time
import duck.server.options
import duck.server.process.deadline
from echo import urlpatterns

duck.server.options._GRACE = SECONDS
duck.server.process.deadline._LAST_WORDS = 1000

def listens():
    print("listening on it", flush=True)

def work():
    while True:  # a signal that comes just before a sleep does not end it
        time.sleep(0.01)

async def swallow():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)

@contextlib.asynccontextmanager
async def lifespan(server):
    asyncio.get_running_loop().run_in_executor(None, work)
    await start()
    yield
    await swallow()

async def start():
    HOW
"""


ENDLESS = [
    ("pass", 2, 3.0, "the end of the lifespan", "thread .* in work"),
    ("listens(); await swallow()", 1, 0.3, "the start", "task .* in serve_until_stopped"),
    ("listens(); work()", 1, 0.3, "the start", "the main thread in work"),
    ("listens(); 1 / 0", 1, 0.3, "the start", "(?s:thread .* in work.*ZeroDivisionError)"),
]


def test_an_end_that_hangs_is_cut_short(folder):
    """A coroutine that swallows its cancellation, a call that blocks the loop, or a thread. All wait at once."""
    with contextlib.ExitStack() as stack:
        processes = []
        for number, (how, workers, grace, *_) in enumerate(ENDLESS):
            source = HANGING.replace("HOW", how).replace("SECONDS", str(grace))
            (folder / f"hanging{number}.py").write_text(source)
            arguments = (f"hanging{number}.py", "--port", 0, "--shutdown-timeout", 0.1, "--workers", workers)
            processes.append(stack.enter_context(Process(folder, *arguments)).process)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process, (_, workers, grace, stage, where) in zip(processes, ENDLESS, strict=True):
            _, errors = process.communicate(timeout=30)
            assert process.returncode == 1
            within = f"{0.2 + grace:g} s"
            words = rf"ERROR duck.server: the process has not ended within {within}, and exits during {stage}.*"
            assert len(re.findall(rf"{words}; still running: .*{where}", errors)) == workers, errors


def test_threads_that_outlive_the_server_are_named(folder):
    (folder / "threads.py").write_text(
        "import os, threading, time\nfrom duck.server.process.deadline import Deadline\nfrom echo import urlpatterns\n"
        "Deadline.EXIT_PATIENCE = 0.01\n\ndef work():\n    while not os.path.exists('end'):\n        time.sleep(0.01)\n"
        "\nthreading.Thread(target=work).start()\nthreading.Thread(target=work, name='daemon', daemon=True).start()\n"
    )
    with Process(folder, "threads.py", "--port", 0) as process:
        process.process.send_signal(signal.SIGTERM)
        told = process.until_told("serving has ended, but the process waits")
        assert "thread Thread-1 (work) in work (" in told
        assert "daemon" not in told
        (folder / "end").touch()
        assert process.process.wait(30) == 0


def test_a_time_beyond_the_longest_wait_for_a_lock_sets_no_limit(folder):
    with Process(folder, "echo.py", "--port", 0, "--shutdown-timeout", 1e308) as process:
        status, errors = process.stop(signal.SIGTERM)
    assert (status, "OverflowError" in errors) == (0, False)


def test_shutdown_code_is_the_close_code_for_clients(folder):
    with (
        Process(folder, "echo.py", "--port", 0, "--shutdown-code", 1012) as process,
        connect(process.address) as client,
    ):
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match=r"1012.*server shutting down"):
            client.recv()


LIFESPAN = """
import contextlib

@contextlib.asynccontextmanager
async def lifespan(server):
    print("begun", flush=True)
    yield
    print("ended", flush=True)
"""


def test_the_lifespan_of_a_module_encloses_serving(folder):
    (folder / "living.py").write_text(ONE_VIEW + LIFESPAN)
    with begun(folder, command("serve", "living:Echo", "--port", 0)) as process:
        assert process.stdout.readline().startswith("listening on ")
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == ("ended\n", None)
        assert process.returncode == 0


def test_a_lifespan_that_fails_ends_the_command_with_1(folder):
    (folder / "failing.py").write_text(ONE_VIEW + LIFESPAN.replace("yield", "1 / 0\n    yield"))
    result = run_command(folder, "serve", "failing.py", "--port", 0)
    assert (result.returncode, result.stdout) == (1, "begun\n")
    assert 'failing.py", line' in result.stderr
    assert result.stderr.endswith("\nduck: the lifespan failed at startup: ZeroDivisionError: division by zero\n")


def test_an_interrupt_during_the_start_of_the_command_ends_it_with_130(folder):
    (folder / "httptools.py").write_text("raise KeyboardInterrupt\n")
    result = run_command(folder, words=["env", f"PYTHONPATH={folder}:{ROOT}", *command("info")])
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_an_interrupt_during_the_import_ends_the_command_with_130(folder):
    (folder / "slow.py").write_text(SLOW)
    with begun(folder, command("serve", "slow.py"), stderr=subprocess.PIPE) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 130


def test_a_signal_during_the_start_of_the_lifespan_ends_the_command_with_0(folder):
    sleep = "import asyncio; await asyncio.sleep(1000)\n    yield"
    (folder / "slow.py").write_text(ONE_VIEW + LIFESPAN.replace("yield", sleep))
    with begun(folder, command("serve", "slow.py", "--port", 0)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == ("", None)
        assert process.returncode == 0


def test_a_socket_of_systemd_that_takes_no_notification_is_named(folder):
    words = ["env", "NOTIFY_SOCKET=nowhere", *command("serve", "echo.py", "--port", 0)]
    with Process(folder, words=words) as process:
        status, errors = process.stop(signal.SIGTERM)
    assert status == 0
    for state in ("READY=1", "STOPPING=1"):
        assert f"cannot notify systemd of '{state}' by NOTIFY_SOCKET=nowhere: No such file" in errors


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_is_notified(folder, workers):
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
            if workers == 2:
                process.process.send_signal(signal.SIGHUP)
                reloading, since = systemd.recv(100).split(b"\nMONOTONIC_USEC=")
                assert reloading == b"RELOADING=1"
                assert 0 < int(since) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 10**6
                assert systemd.recv(100) == b"READY=1"
            assert process.stop(signal.SIGTERM)[0] == 0
            assert systemd.recv(100) == b"STOPPING=1"
