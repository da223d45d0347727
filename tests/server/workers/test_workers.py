"""`duck serve --workers`: processes that serve the same address, and are watched, replaced and stopped together."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as sync_connect

from duck.server.process.until_stopped import Stop
from duck.server.workers import worker_process
from duck.server.workers.worker import Boot, _listen_to_supervisor
from duck.server.workers.worker_process import WorkerProcess

from ...support.commands import Process, adjusted, command, environment, run_command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

APPLICATION = """
import contextlib, os
from duck.contrib.websockets import WebSocketView

class Telling(WebSocketView):
    async def on_open(self):
        await self.send(f"{os.getpid()} {os.environ['DUCK_WORKERS']} {self.server.state}")

    async def on_receive(self, message, opcode):
        await self.send(message, opcode)

@contextlib.asynccontextmanager
async def lifespan(server):
    yield "alive"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture
def client():
    """Connects; returns the PID of the worker that serves the connection."""
    with contextlib.ExitStack() as stack:

        def enter(address, **options):
            connection = stack.enter_context(sync_connect(address, proxy=None, **options))
            pid, workers, state = connection.recv(30).split()
            assert (workers, state) == ("2", "alive")
            return connection, int(pid)

        yield enter


def both(address, client):
    """The workers that serve an address, once they are two."""
    pids = Counter()
    for _ in range(200):
        pids[client(address)[1]] += 1
        if len(pids) == 2:
            return set(pids)
    raise AssertionError(pids)


def is_there(pid):
    try:
        os.kill(pid, 0)
        return not Path("/proc/self").exists() or "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_two_workers_serve_and_end_together(folder, client):
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        workers = both(process.address, client)
        assert process.process.pid not in workers
        last, _ = client(process.address)
        process.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed, match="1001"):
            last.recv(30)
        output, errors = process.process.communicate(timeout=30)
        assert (process.process.returncode, output) == (0, "")
        assert not any(map(is_there, workers))
        assert {int(pid) for pid in re.findall(r" \[(\d+)\] INFO ", errors)} >= workers  # lines name the process
        assert "Traceback" not in errors and "Warning" not in errors


def test_a_worker_that_is_killed_is_started_again(folder, client):
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        workers = both(process.address, client)
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        process.until_told(f"worker {victim} was ended by SIGKILL; another is started")
        process.until_told("INFO duck.server: worker")
        after = both(process.address, client)
        assert len(after & workers) == 1


def test_a_worker_that_ends_is_replaced_once_its_application_can_be_imported_again(folder, client):
    """Its end is no failure of the others, which serve on, nor of the command."""
    (folder / "app.py").write_text(APPLICATION.replace("await self.send(message, opcode)", "os._exit(7)"))
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        both(process.address, client)
        connection, victim = client(process.address)
        (folder / "app.py").write_text("import nothing_of_the_kind\n")
        connection.send("exit")
        process.until_told(f"worker {victim} has ended with status 7; another is started")
        process.until_told("No module named 'nothing_of_the_kind'")
        (folder / "app.py").write_text(APPLICATION)
        process.until_told(" serves ")
        assert process.stop(signal.SIGTERM)[0] == 0


def test_a_worker_that_does_not_stop_is_killed(folder, client):
    hasty = "from duck.server import options; from duck.server.workers import supervisor"
    hasty += "; options._GRACE = supervisor._GRACE = 0.1"
    words = adjusted(hasty, "serve", "app.py", "--port", 0, "--workers", 2, "--shutdown-timeout", 0.1)
    with Process(folder, words=words) as process:
        suspended = min(both(process.address, client))
        os.kill(suspended, signal.SIGSTOP)
        status, errors = process.stop(signal.SIGTERM)
        assert not is_there(suspended)
    assert re.search(rf"worker {suspended} has not ended within [\d.]+ s, and is killed", errors)
    assert re.search(r"\nduck: worker \d+ .* as it stopped; see its log\n$", errors)
    assert status == 1


def test_a_signal_at_the_exit_of_a_worker_is_no_failure(folder):
    """As one of `systemctl stop`, which each process of a service gets."""
    last = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGTERM)"
    (folder / "app.py").write_text(f"{last}\n{APPLICATION}")
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        status, errors = process.stop(signal.SIGTERM)
    assert (status, "Traceback" in errors) == (0, False)


@pytest.mark.parametrize("where", ["port", "uds"])
def test_a_hangup_replaces_the_workers_without_a_refusal(folder, where):
    """New clients are served all the time; connected ones get 1012."""
    patient = "import duck.server.shutdown\nduck.server.shutdown._FIRST_REQUEST = 30\n"  # busy machines
    (folder / "app.py").write_text(patient + APPLICATION)
    address = ("--port", 0) if where == "port" else ("--uds", "duck.sock")

    def enter(url):
        return connect(url, proxy=None) if where == "port" else unix_connect(folder / "duck.sock", "ws://localhost/")

    async def pid(connection):
        async with asyncio.timeout(30):
            return int((await connection.recv()).split()[0])

    async def come(url, stop, seen):
        while not stop.is_set():
            async with enter(url) as connection:
                try:
                    seen.add(await pid(connection))
                except ConnectionClosed:
                    assert connection.close_code == 1012

    async def scenario(process, stack):
        held = [await stack.enter_async_context(enter(process.address)) for _ in range(8)]
        old = {await pid(connection) for connection in held}
        stop, seen = asyncio.Event(), set()
        comers = [asyncio.create_task(come(process.address, stop, seen)) for _ in range(4)]
        process.process.send_signal(signal.SIGHUP)
        for connection in held:
            with pytest.raises(ConnectionClosed):
                await pid(connection)
            assert connection.close_code == 1012
        await until(lambda: not any(map(is_there, old)))
        await until(lambda: len(seen - old) >= (1 if where == "uds" else 2))
        stop.set()
        await asyncio.gather(*comers)

    async def main(process):
        async with contextlib.AsyncExitStack() as stack:
            await scenario(process, stack)

    quiet = ("--log-level", "warning")  # the pipe is not read meanwhile
    with Process(folder, "app.py", *address, "--workers", 2, *quiet) as process:
        asyncio.run(main(process))
        status, errors = process.stop(signal.SIGTERM)
        assert status == 0
        assert "Traceback" not in errors
    assert not (folder / "duck.sock").exists()


def test_a_hangup_imports_the_application_anew_and_keeps_the_workers_if_that_fails(folder, client):
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        workers = both(process.address, client)
        (folder / "app.py").write_text("import nothing_of_the_kind\n")
        process.process.send_signal(signal.SIGHUP)
        assert "No module named 'nothing_of_the_kind'" in process.until_told("the workers are not replaced")
        assert both(process.address, client) == workers
        status, errors = process.stop(signal.SIGTERM)
        assert (status, "the workers are not replaced" in errors) == (0, False)  # one attempt tells enough


def test_a_second_hangup_or_the_end_gives_up_a_successor_that_hangs(folder):
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:

        def hang_up():
            (folder / "app.py").write_text("print('hangs', flush=True)\nimport time\ntime.sleep(1000)\n")
            process.process.send_signal(signal.SIGHUP)
            assert process.process.stdout.readline() == "hangs\n"

        hang_up()
        (folder / "app.py").write_text(APPLICATION)
        process.process.send_signal(signal.SIGHUP)
        for _ in range(4):  # the first two and their successors
            process.until_told(" serves ")
        hang_up()
        status, errors = process.stop(signal.SIGTERM)
        assert (status, " serves " in errors) == (0, False)


def test_files_of_the_folder_do_not_take_the_place_of_modules(folder):
    """Neither where one process serves, as with the script `duck`, nor in workers."""
    for name in ("duck", "logging", "signal"):
        (folder / f"{name}.py").write_text("raise AssertionError")
    script = "import sys; del sys.path[0]; from duck.server.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", script, "serve", "app.py", "--port", "0", "--workers", "2"]
    with Process(folder, words=words) as process:
        with sync_connect(process.address, proxy=None) as client:
            assert client.recv(30).split()[2] == "alive"
        assert process.stop(signal.SIGTERM)[0] == 0


def test_an_application_that_cannot_be_imported_ends_the_command_with_2(folder):
    (folder / "broken.py").write_text("import nothing_of_the_kind\n")
    result = run_command(folder, "serve", "broken.py", "--port", 0, "--workers", 2)
    assert (result.returncode, result.stdout) == (2, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        "duck: broken.py cannot be imported: ModuleNotFoundError: No module named 'nothing_of_the_kind'"
    )


def test_a_lifespan_that_fails_in_a_worker_ends_the_command_with_1(folder):
    (folder / "failing.py").write_text(APPLICATION.replace("yield", "1 / 0\n    yield"))
    result = run_command(folder, "serve", "failing.py", "--port", 0, "--workers", 2)
    assert result.returncode == 1
    assert result.stderr.endswith("duck: the lifespan failed at startup: ZeroDivisionError: division by zero\n")


def test_each_worker_logs_the_error_of_its_lifespan_at_the_end(folder):
    """Each worker logs its own error, which no other process knows."""
    (folder / "failing.py").write_text(APPLICATION.replace('yield "alive"', 'yield "alive"\n    1 / 0'))
    with Process(folder, "failing.py", "--port", 0, "--workers", 2) as process:
        assert process.address
        process.process.send_signal(signal.SIGTERM)
        _, errors = process.process.communicate(timeout=30)
    failure = r"\[(\d+)\] ERROR duck.server: the lifespan failed: ZeroDivisionError: .*\nTraceback"
    failed = re.findall(failure, errors)
    assert len(set(failed)) == 2
    words = re.search(r"\nduck: worker (\d+) has ended with status 1 as it stopped; see its log\n$", errors)
    assert words is not None and words[1] in failed
    assert process.process.returncode == 1


def test_workers_that_die_again_and_again_are_given_up(folder):
    """At once, and soon after they serve."""
    (folder / "dying.py").write_text("import os\nos._exit(7)\n")
    fade = "import asyncio; asyncio.get_running_loop().call_later(0.05, os._exit, 7); yield"
    (folder / "fading.py").write_text(APPLICATION.replace('yield "alive"', fade))

    hasty = "from duck.server.workers import supervisor; supervisor._FIRST_PAUSE = 0.01"

    def serve(target):
        return run_command(folder, words=adjusted(hasty, "serve", target, "--port", 0, "--workers", 2))

    with ThreadPoolExecutor() as pool:
        dying, fading = pool.map(serve, ["dying.py", "fading.py"])
    assert (dying.returncode, fading.returncode) == (1, 1)
    assert re.fullmatch(
        r"duck: 5 workers in a row have failed; the last: worker \d+ has ended with status 7 before it served",
        dying.stderr.splitlines()[-1],
    )
    assert re.fullmatch(
        r"duck: 5 workers in a row have (ended within 5 s of service|failed); .* ended with status 7.*",
        fading.stderr.splitlines()[-1],
    )


def test_a_worker_is_stopped_at_any_moment_of_its_end():
    async def scenario():
        worker = await WorkerProcess.start(Boot([], None, b"", 1), [])
        while not worker.ended.done():
            worker.stop()
            worker.kill()
            await asyncio.sleep(0)
        worker.close()
        assert worker.ended.result() < 0

    asyncio.run(scenario())


async def test_orders_of_the_supervisor_that_arrive_together_are_all_obeyed():
    """A scrape of the metrics while the worker is replaced."""
    supervisor, control = socket.socketpair()
    stop = Stop(SimpleNamespace(start=lambda: None))
    reports = []
    with supervisor, control:
        _listen_to_supervisor(control, stop, lambda: reports.append("stats"))
        supervisor.sendall(b"m")
        while not reports:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not stop.is_set()
        supervisor.sendall(b"rm")
        await stop.wait()
        asyncio.get_running_loop().remove_reader(control)
    assert reports == ["stats", "stats"]
    assert stop.replaced


def test_the_end_of_a_worker_is_awaited_by_several(monkeypatch):
    """A keeper that is cancelled while it waits for the end does not cancel that of the supervisor."""
    monkeypatch.setattr(worker_process, "_BOOT", "import time; time.sleep(60)  # {}")

    async def scenario():
        worker = await WorkerProcess.start(Boot([], None, b"", 1), [])
        worker._reader.feed_eof()
        ready = asyncio.ensure_future(worker.ready(30))
        await asyncio.sleep(0)
        ready.cancel()
        await asyncio.wait([ready])
        assert ready.cancelled()
        assert not worker.ended.done()
        worker.kill()
        assert await worker.ended == -signal.SIGKILL
        worker.close()

    asyncio.run(scenario())


def test_a_worker_that_does_not_serve_in_time_is_stopped(folder):
    (folder / "hanging.py").write_text("import time\ntime.sleep(1000)\n")
    result = run_command(folder, "serve", "hanging.py", "--port", 0, "--workers", 2, "--startup-timeout", 0.2)
    assert result.returncode == 1
    assert re.search(r"^duck: worker \d+ did not serve within 0.2 s and is stopped: the import ", result.stderr, re.M)


def test_signals_add_and_stop_workers(folder):
    """A removed worker closes its connections with 1012. The last worker is not removed."""
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process, contextlib.ExitStack() as stack:
        process.process.send_signal(signal.SIGTTIN)
        process.until_told("the number of workers is 3 from now on")
        newest = process.until_told(" serves ").partition("worker ")[2].split()[0]
        clients = {}
        while len(clients) < 3:
            client = stack.enter_context(sync_connect(process.address, proxy=None))
            clients[client.recv(30).split()[0]] = client
        process.process.send_signal(signal.SIGTTOU)
        process.until_told("the number of workers is 2 from now on")
        with pytest.raises(ConnectionClosed, match="1012"):
            clients.pop(newest).recv(30)
        for client in clients.values():
            client.send("there?")
            assert client.recv(30) == "there?"
        process.process.send_signal(signal.SIGTTOU)
        process.until_told("the number of workers is 1 from now on")
        process.process.send_signal(signal.SIGTTOU)
        process.until_told("SIGTTOU does not stop the only worker")
        assert process.stop(signal.SIGTERM)[0] == 0


def test_workers_end_when_their_supervisor_is_killed(folder, client):
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:
        workers = both(process.address, client)
        process.process.kill()
        asyncio.run(until(lambda: not any(map(is_there, workers))))


def test_an_address_that_is_taken_is_an_error(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_command(folder, "serve", "app.py", "--port", port, "--workers", 2)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr
    with Process(folder, "app.py", "--port", 0, "--workers", 2) as process:  # which others could join
        assert run_command(folder, "serve", "app.py", "--port", process.port, "--workers", 2).returncode == 2


SCRIPT = """
import sys
from duck.server import run
from app import Telling, lifespan

class Own(Telling):
    pass

def start(view):
    run(view, port=0, lifespan=lifespan, workers=2)
"""


def test_run_has_workers_that_import_the_main_module(folder, client):
    (folder / "script.py").write_text(SCRIPT + "\nif __name__ == '__main__':\n    start(Own)\n")
    words = [sys.executable, "-W", "error", "script.py"]
    with Process(folder, words=words) as process:
        assert len(both(process.address, client)) == 2
        assert process.stop(signal.SIGTERM) == (0, "")


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("start(Own)", "put that behind `if __name__ == '__main__':`"),
        ("if __name__ == '__main__':\n    start(type('Local', (Own,), {}))", "define routes, views"),
    ],
)
def test_run_names_a_script_that_workers_cannot_import(folder, end, words):
    (folder / "script.py").write_text(f"{SCRIPT}\n{end}\n")
    result = run_command(folder, words=[sys.executable, "script.py"])
    assert result.returncode != 0
    assert words in result.stderr
    assert result.stdout == ""


def test_files_that_change_replace_the_workers(folder):
    pytest.importorskip("watchfiles")
    with Process(folder, "app.py", "--port", 0, "--reload") as process:
        with sync_connect(process.address, proxy=None) as before:
            before.recv(30)
            (folder / "app.py").write_text(APPLICATION.replace("{self.server.state}", "changed"))
            with pytest.raises(ConnectionClosed, match="1012"):
                before.recv(30)
        with sync_connect(process.address, proxy=None) as after:
            assert after.recv(30).split()[1:] == ["1", "changed"]
        status, errors = process.stop(signal.SIGTERM)
        assert status == 0
        assert "app.py changed; the workers are replaced" in errors
        assert "watchfiles" not in errors


def test_a_folder_that_may_not_be_read_does_not_disturb_the_reload(folder):
    pytest.importorskip("watchfiles")
    (folder / "private").mkdir(0)
    words = command("serve", "app.py", "--port", 0, "--reload")
    if os.geteuid() == 0:  # in a namespace of its own root, too, has only the permissions of an owner
        words = ["unshare", "--user", *words]
        if shutil.which("unshare") is None or subprocess.run([*words[:2], "true"], check=False).returncode != 0:
            pytest.skip("no namespaces of users here")
    with Process(folder, words=words) as process:
        (folder / "app.py").touch()
        process.until_told("app.py changed; the workers are replaced")
        assert process.stop(signal.SIGTERM)[0] == 0


def test_files_that_cannot_be_watched_are_an_error_in_the_log(folder):
    """Such as those beyond the limit of inotify."""
    (folder / "watchfiles.py").write_text(
        "def PythonFilter():\n    pass\n\nasync def awatch(*folders, **options):\n"
        "    raise OSError(28, 'OS file watch limit reached')\n    yield\n"
    )
    words = ["env", f"PYTHONPATH={folder}{os.pathsep}{environment()['PYTHONPATH']}"]
    with Process(folder, words=[*words, *command("serve", "app.py", "--port", 0, "--reload")]) as process:
        process.until_told("changes of files replace no workers from now on: [Errno 28] OS file watch limit reached")
        with sync_connect(process.address, proxy=None) as client:
            assert client.recv(30).endswith(" 1 alive")
        assert process.stop(signal.SIGTERM)[0] == 0


def test_reloading_without_watchfiles_is_an_error_with_advice(folder):
    (folder / "watchfiles.py").write_text("raise ModuleNotFoundError(name='watchfiles')")
    words = command("serve", "app.py", "--reload")
    env = environment() | {"PYTHONPATH": f"{folder}{os.pathsep}{environment()['PYTHONPATH']}"}
    result = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert result.stderr == "duck: reloading needs watchfiles: pip install 'duck-websockets[reload]'\n"
