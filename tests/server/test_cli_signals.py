"""The `duck` command in processes of its own: hangups, a container's first process, and a lack of threads."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from duck.server.process.signals import waking_loop

from ..support.commands import Process, adjusted, command, run_command
from .command import LOOPS, ONE_VIEW, SLOW, begun, echo, ignoring

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


@pytest.fixture(autouse=True)
def hangup():
    """The default of SIGHUP, which processes inherit: `nohup pytest` ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_hangup_with_nothing_to_reload_stops_the_server(folder, loop):
    with Process(folder, "echo.py", "--port", 0, "--loop", loop) as process, connect(process.address) as client:
        process.process.send_signal(signal.SIGHUP)
        with pytest.raises(Exception, match=r"1001.*server shutting down"):
            client.recv(30)
        assert process.process.wait(30) == 0


def test_a_hangup_that_is_ignored_stays_ignored(folder):
    """`nohup duck serve` outlives its terminal."""
    with Process(folder, words=ignoring("SIGHUP", "serve", "echo.py", "--port", 0)) as process:
        process.process.send_signal(signal.SIGHUP)
        assert echo(process.address) == "hello"
        assert process.stop(signal.SIGTERM)[0] == 0


def test_a_hangup_while_a_server_with_tls_starts_or_stops_does_not_end_it(folder, tls):
    """At the start, the certificates have been read, and are read again; at the end, none are needed."""
    hangup = "os.kill(os.getpid(), signal.SIGHUP); await asyncio.sleep(0)"
    (folder / "living.py").write_text(
        f"import asyncio, contextlib, os, signal\n{ONE_VIEW}\n@contextlib.asynccontextmanager\n"
        f"async def lifespan(server):\n    {hangup}\n    yield\n    {hangup}\n    print('ended', flush=True)\n"
    )
    files = ("--ssl-certfile", tls.certfile, "--ssl-keyfile", tls.keyfile)
    with Process(folder, "living.py", "--port", 0, *files) as process:
        assert echo(process.address, ssl=tls.client, server_hostname="localhost") == "hello"
        process.process.send_signal(signal.SIGTERM)
        output, errors = process.process.communicate(timeout=30)
    assert (process.process.returncode, output) == (0, "ended\n")
    assert errors.count("the certificates have been read again") == 1
    assert "Traceback" not in errors


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_while_the_loop_is_created_ends_the_command(folder, number, status, workers):
    """The order to stop would be one to another loop, which never runs."""
    kill = f"os.kill(os.getpid(), {number:d})"
    create = (
        f"import asyncio, os; create = asyncio.new_event_loop; asyncio.new_event_loop = lambda: ({kill}, create())[1]"
    )
    arguments = ("echo.py", "--port", 0, "--loop", "asyncio", "--workers", workers, "--shutdown-timeout", 0)
    result = run_command(folder, words=adjusted(create, "serve", *arguments))
    assert (result.returncode, result.stdout) == (status, "")


def test_a_signal_before_the_loop_runs_ends_the_server_without_its_lifespan(folder):
    (folder / "stopped.py").write_text(
        f"import contextlib, os, signal, ssl\nfrom duck.server import run\n{ONE_VIEW}\n"
        "def context():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(server):\n    print('begun')\n    yield\n\n"
        "run(Echo, port=0, ssl=context, lifespan=lifespan)\n"
    )
    result = run_command(folder, words=[sys.executable, "-P", "stopped.py"])
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


NO_THREADS = """
import _thread
from duck.contrib.websockets import WebSocketView

class Echo(WebSocketView):
    async def on_open(self):
        _thread.start_new_thread = none_left
        await self.send("no thread is left")

    async def on_receive(self, message, opcode):
        pass

def none_left(*arguments):
    raise RuntimeError("can't start new thread")
"""


@pytest.mark.parametrize(("loop", "workers"), [*((loop, 1) for loop in LOOPS), ("auto", 2)])
def test_a_server_stops_where_the_system_has_no_thread_left(folder, loop, workers):
    """A container at its limit of processes."""
    (folder / "crowded.py").write_text(NO_THREADS)
    arguments = ("crowded.py", "--port", 0, "--loop", loop, "--workers", workers)
    with Process(folder, *arguments) as process, connect(process.address) as client:
        assert client.recv(30) == "no thread is left"
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match=r"1001.*server shutting down"):
            client.recv(30)
        _, errors = process.process.communicate(timeout=30)
    assert (process.process.returncode, "Traceback" in errors) == (0, False)


UNNOTICED = """
import signal, threading, time
from duck.contrib.websockets import WebSocketView

class Threaded(WebSocketView):
    PING_INTERVAL = RECEIVE_TIMEOUT = None  # no timer wakes the loop

    async def on_receive(self, message, opcode):
        threading.Thread(target=take_signal).start()

def take_signal():
    time.sleep(0.2)  # the loop waits by then
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
"""


@pytest.mark.parametrize(("loop", "workers"), [*((loop, 1) for loop in LOOPS), ("asyncio", 2)])
def test_a_signal_that_does_not_interrupt_the_wait_of_the_loop_stops_the_server(folder, loop, workers):
    """As one that comes just before the wait, or that another thread gets."""
    (folder / "threaded.py").write_text(UNNOTICED)
    arguments = ("threaded.py", "--port", 0, "--loop", loop, "--workers", workers, "--head-timeout", 1000)
    with Process(folder, *arguments) as process, connect(process.address, ping_interval=None) as client:
        client.send("take it")
        with pytest.raises(Exception, match=r"1001.*server shutting down"):
            client.recv(20)


@pytest.mark.parametrize("loop_name", ["asyncio"], indirect=True)
async def test_a_wakeup_file_of_the_application_outlasts_that_of_the_server():
    signal.set_wakeup_fd(-1)
    with waking_loop():
        pass
    assert signal.set_wakeup_fd(-1) == -1
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        with waking_loop():
            signal.set_wakeup_fd(writer.fileno())
        assert signal.set_wakeup_fd(-1) == writer.fileno()


NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


@pytest.fixture
def first_process():
    """Returns the PID of the command in a namespace, which is process 1 there, as in a container."""
    try:
        subprocess.run([*NAMESPACE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no namespaces of processes here")

    def find(process):
        return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())

    return find


def test_a_second_signal_ends_the_first_process_of_a_container(folder, first_process):
    (folder / "hanging.py").write_text(
        f"import asyncio, contextlib\n{ONE_VIEW}\n@contextlib.asynccontextmanager\nasync def lifespan(server):\n"
        "    yield\n    print('ending', flush=True)\n    await asyncio.sleep(1000)\n"
        "\nimport duck.server.process.signals\nduck.server.process.signals._SAME_SIGNAL = 0\n"
    )
    words = command("serve", "hanging.py", "--port", 0, "--shutdown-timeout", 1000)
    with Process(folder, words=[*NAMESPACE, *words]) as process:
        pid = first_process(process.process)
        os.kill(pid, signal.SIGTERM)
        assert process.process.stdout.readline() == "ending\n"
        os.kill(pid, signal.SIGTERM)
        assert process.process.wait(30) == 128 + signal.SIGTERM


@pytest.mark.parametrize("imported", ["slow.py", "httptools.py"])
def test_sigterm_ends_the_first_process_of_a_container_during_the_import(folder, first_process, imported):
    """Of the application, and of a module that the package needs."""
    (folder / imported).write_text(SLOW)
    with begun(folder, [*NAMESPACE, *command("serve", "slow.py")]) as process:
        os.kill(first_process(process), signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


FORKING = """
import itertools, multiprocessing, os, signal, time
from duck.contrib.websockets import WebSocketView

def in_c(begun):
    begun.set()
    sum(itertools.repeat(0))  # no handler in Python is called within it

def in_python(begun):
    begun.set()
    while True:
        time.sleep(0.01)

class Fork(WebSocketView):
    async def on_receive(self, message, opcode):
        if message == b"chain":
            earlier = signal.signal(signal.SIGTERM, lambda signum, frame: earlier(signum, frame))
            return
        target, number = message.decode().split()
        fork = multiprocessing.get_context("fork")
        begun = fork.Event()
        child = fork.Process(target=globals()[target], args=[begun])
        child.start()
        begun.wait()  # Python discards signals that arrive within the fork
        os.kill(child.pid, int(number))
        child.join(30)
        await self.send(f"{child.exitcode}")
        child.kill()
"""


@pytest.mark.parametrize(("loop", "workers"), [*((loop, 1) for loop in LOOPS), ("auto", 2)])
def test_a_forked_child_process_has_the_signals_of_before_the_server(folder, loop, workers):
    """As `terminate` of multiprocessing, and a process pool that loses a process, rely on."""

    def end_child(target, number):
        client.send(f"{target} {number:d}")
        return int(client.recv(60))

    (folder / "forking.py").write_text(FORKING)
    arguments = ("forking.py", "--port", 0, "--loop", loop, "--workers", workers)
    with Process(folder, *arguments) as process, connect(process.address) as client:
        for number in (signal.SIGTERM, signal.SIGHUP):
            assert end_child("in_c", number) == -number
        assert end_child("in_python", signal.SIGINT) in (1, -signal.SIGINT)  # 1: of a KeyboardInterrupt
        client.send("chain")  # the fork keeps this handler, which calls that of the server
        assert end_child("in_python", signal.SIGTERM) == -signal.SIGTERM
        client.close()
        assert process.stop(signal.SIGTERM)[0] == 0


def test_sigterm_ends_a_forked_child_process_in_a_container(folder, first_process):
    """Also within a call of C, though the parent is process 1, which the kernel does not end."""
    (folder / "forking.py").write_text(FORKING)
    words = [*NAMESPACE, *command("serve", "forking.py", "--port", 0)]
    with Process(folder, words=words) as process, connect(process.address) as client:
        client.send(f"in_c {signal.SIGTERM:d}")
        assert int(client.recv(60)) == -signal.SIGTERM
