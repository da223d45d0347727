"""`python -m benchmarks.echo` from end to end, and the checks of its load client."""

import base64
import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.echo import (
    cli,
    cores,
    launch,
    load_client,
    measure_client,
    programs,
    published,
    receiving,
    report,
    results,
    run,
    summary,
)
from benchmarks.echo.measure_server import measure_server
from benchmarks.echo.registry import CLIENTS, FLOOR, Server, named
from benchmarks.echo.workloads import Workload
from duck.contrib.websockets.codec import describe
from duck.contrib.websockets.opcodes import OpCode
from duck.contrib.websockets.sansio.handshake import accept_key

from .compiler import needs_compiler

ROOT = Path(__file__).parents[2]
SHORT = {"seconds": 0.05, "warmup": 0.01}


pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the load client needs Linux"),
    needs_compiler,
]


@pytest.fixture(scope="module")
def pair():
    return cores.choose()


# The whole


def benchmark(*arguments):
    words = [sys.executable, "-m", "benchmarks.echo", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.skipif(
    importlib.util.find_spec("duck.contrib.websockets._speedups") is None, reason="the codec is not compiled"
)
def test_measures_duck_and_the_floor(tmp_path):
    names = ["ping", "pipeline", "tls", "connect", "broadcast", "burst", "chat", "idle-used"]
    done = benchmark(
        *("--quick", "--seconds", "0.1", "--servers", "duck-asyncio,floor", "--baseline", "floor"),
        *("--workloads", ",".join(names), "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert "| 1 connection, 32 B (messages/s) |" in done.stdout
    assert "As multiples of C floor in the same round" in done.stdout
    assert (tmp_path / "echo.svg").read_text().startswith("<svg ")
    found = results.read(tmp_path / "echo.toml")
    assert found["machine"]["duck"]["codec"] == describe()["codec"]
    assert [server["name"] for server in found["servers"]] == ["duck-asyncio", "floor"]
    assert [workload["name"] for workload in found["workloads"]] == names
    samples = {(sample["workload"], sample["server"]): sample for sample in found["samples"]}
    assert set(samples) == {(name, "duck-asyncio") for name in names} | {(name, "floor") for name in names} - {
        ("tls", "floor")
    }
    for (workload, _), sample in samples.items():
        if workload == "idle-used":
            assert sample["value"] >= 0  # the floor's connections cost less than a page
        else:
            assert sample["value"] > 0, sample
            assert 0 < sample["p50_us"] <= sample["p99_us"]
            assert sample["server_cpu"] >= 0
            assert sample["others_cpu"] >= 0


@pytest.mark.skipif(
    importlib.util.find_spec("duck.contrib.websockets._speedups") is None, reason="the codec is not compiled"
)
def test_measures_clients(tmp_path):
    names = ["depth64", "receive", "connect-one-core"]
    done = benchmark(
        *("--quick", "--seconds", "0.1", "--clients", "duck,duck-hooks,floor", "--baseline", "floor"),
        *("--workloads", ",".join(names), "--out", str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr
    assert "| client CPU each | client busy | x C floor by CPU |" in done.stdout
    found = results.read(tmp_path / "echo.toml")
    assert found["clients"]
    assert {(sample["workload"], sample["server"]) for sample in found["samples"] if sample["value"] > 0} == {
        (name, client) for name in names for client in ("duck", "duck-hooks", "floor")
    }


def test_a_report_of_given_results(tmp_path, capsys):
    file = tmp_path / "results.toml"
    results.write(made_up_results(), file)
    assert (
        cli.main(["--results", str(file), "--baseline", "slow,other", "--out", str(tmp_path)]) == 1
    )  # it has a failure
    said = capsys.readouterr()
    assert "As multiples of Slow" in said.out
    assert "nothing is compared with other" in said.err
    assert (tmp_path / "echo.md").read_text() in said.out


def test_results_are_read_back_as_written(tmp_path):
    file = tmp_path / "results.toml"
    results.write(made_up_results(), file)
    found = results.read(file)
    assert report.markdown(found, ["slow"]) == report.markdown(made_up_results(), ["slow"])
    assert found["samples"] == made_up_results()["samples"]
    results.write(found, file.with_name("again.toml"))
    assert file.with_name("again.toml").read_text() == file.read_text()


def test_results_in_another_format_are_refused(tmp_path, capsys):
    file = tmp_path / "results.toml"
    file.write_text("format = 1\n")
    assert cli.main(["--results", str(file)]) == 2
    assert "has format 1, and this program reads format 2" in capsys.readouterr().err


def test_the_published_charts_and_tables_are_up_to_date(tmp_path):
    for run_ in published.RUNS:
        if (file := published.RESULTS / f"{run_.name}.toml").exists():
            shutil.copy(file, tmp_path)
    blocks = published.draw(tmp_path)
    assert blocks.keys() >= {"echo", "rivals", "broadcast"}
    drawn = list(tmp_path.glob("*.svg"))
    assert len(drawn) >= 3
    for path in drawn:
        assert path.read_text() == (published.RESULTS / path.name).read_text(), "python -m benchmarks.echo --redraw"
    page = published.PAGE.read_text()
    assert published.insert(blocks, page) == page, "python -m benchmarks.echo --redraw"


def test_the_names_beside_the_ratios_have_room_in_any_font():
    chart = (published.RESULTS / "ratios.svg").read_text()
    names = re.findall(r'<text class="name" x="(\d+)"[^>]*>([^<]+)<', chart)
    assert len(names) > 10
    assert [name for x, name in names if int(x) < 5.5 * len(name)] == []  # pixels for each letter


def test_published_runs_name_servers_clients_and_workloads():
    for run_ in published.RUNS:
        words = ["--clients" if run_.clients else "--servers", run_.servers]
        words += ["--workloads", run_.workloads] if run_.workloads else []
        assert cli.main([*words, "--list"]) == 0


def test_unknown_names_are_refused(capsys):
    assert cli.main(["--servers", "duck,goose"]) == 2
    assert "no server is named goose" in capsys.readouterr().err
    assert cli.main(["--workloads", "pong"]) == 2
    assert "no workload is named pong" in capsys.readouterr().err


def test_lists_servers_and_workloads(capsys):
    assert cli.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(server.name in listed for server in named("all"))
    assert "1,000 connections" in listed


def test_a_missing_compiler_is_an_error_with_its_name(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert cli.main(["--servers", "floor"]) == 2
    assert "the C compiler no-such-compiler does not run" in capsys.readouterr().err


# Rounds


def test_a_missing_or_broken_server_does_not_stop_the_run(pair):
    absent = Server("absent", "Absent", "duck", ("no-such-package-as-this",))
    broken = Server("broken", "Broken", "no_such_module")
    said = []
    settings = run.Settings(rounds=2, rest=0, **SHORT)
    found = run.run([absent, broken, FLOOR], [Workload("ping")], pair, settings, said.append)
    missing = [server["missing"] for server in found["servers"]]
    assert missing[0] == "not installed: pip install no-such-package-as-this"
    assert missing[1].startswith("it ended with status 1 before it answered")
    assert "No module named" in missing[1]
    assert missing[2] is None
    assert [(sample["server"], sample["round"]) for sample in found["samples"]] == [("floor", 1), ("floor", 2)]
    assert len(said) == 4
    assert "Not measured: Absent" in report.markdown(found, ["absent", "floor"])


def test_a_broken_client_does_not_stop_those_measured_with_it(pair):
    broken = Server("broken", "Broken", "no_such_module")
    workload = Workload("receive", "receive", size=200)
    found = receiving.measure([broken, *named("floor", CLIENTS)], workload, pair, **SHORT)
    assert "No module named" in str(found[0])
    assert found[1]["value"] > 0


def test_a_server_leaves_no_process_behind(pair):
    with launch.running(FLOOR, pair.server) as running:
        os.kill(running.session, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(running.session, 0)


def made_up_results():
    rates = {"slow": [100, 200, 100], "fast": [300, 400, 500]}
    return {
        "begun": "2026-01-02T03:04:05+0000",
        "command": ["--servers", "slow,fast"],
        "settings": vars(run.Settings()),
        "machine": {
            **dict.fromkeys(["cpu", "system", "python", "openssl", "compiler"], "some"),
            "virtual": False,
            "server_core": 1,
            "client_core": 0,
            "duck": {"commit": None},
        },
        "servers": [
            {"name": name, "title": name.title(), "versions": {"some": "1"}, "missing": None}
            for name in ("slow", "fast", "failing")
        ],
        "workloads": [run._described_workload(Workload("ping"))],
        "samples": [
            *(
                {
                    "workload": "ping",
                    "server": name,
                    "round": number,
                    "value": value,
                    "client_cpu": 0.5,
                    "others_cpu": 0.01,
                }
                for name, values in rates.items()
                for number, value in enumerate(values, 1)
            ),
            {"workload": "ping", "server": "failing", "round": 1, "error": "wrong echo\n    its last words"},
        ],
        "interrupted": False,
    }


def test_ratios_are_of_the_same_round():
    found = made_up_results()
    assert summary.ratios(found, "slow")["ping", "fast"] == summary.Spread(3.0, 2.0, 5.0)
    found["samples"][0]["server_us"], found["samples"][3]["server_us"] = 10.0, 4.0
    assert summary.ratios(found, "slow", summary.per_cpu_second)["ping", "fast"] == summary.Spread(2.5, 2.5, 2.5)
    assert summary.figures(found)["ping", "slow"].value == summary.Spread(100, 100, 200)


def test_the_report_shows_failures():
    text = report.markdown(made_up_results(), ["slow"])
    assert "| Fast | 400 | 300 - 500 | 3.00 (2.00 - 5.00) |" in text
    assert "| Failing | failed |" in text
    assert "Failed: failing under ping: wrong echo\n" in text


# The floor and the load client, against each other and against others


@pytest.mark.parametrize("size", [0, 1, 7, 125, 126, 65535, 65536, 300_000])
@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_every_length_is_echoed(pair, size, text):
    workload = Workload("echo", connections=3, depth=5, size=size, text=text)
    assert measure_server(FLOOR, workload, pair, **SHORT)["value"] > 0


def test_a_measurement_lasts_until_a_message_has_come(pair):
    """A busy machine may take longer than the given time."""
    workload = Workload("echo", connections=1, depth=1, size=32)
    assert measure_server(FLOOR, workload, pair, seconds=0, warmup=0)["value"] > 0


def test_the_floor_proves_itself_to_any_key(pair):
    with launch.running(FLOOR, pair.server) as running:
        for _ in range(5):
            key = base64.b64encode(os.urandom(16)).decode()
            with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nsec-websocket-key:  {key}\r\n\r\n".encode())
                answer = connection.recv(4096).decode()
            assert f"Sec-WebSocket-Accept: {accept_key(key)}\r\n" in answer


def frame(payload, opcode=OpCode.BINARY, first=0x80, second=0):
    return bytes([first | opcode, second | len(payload)]) + payload


class Liar:
    """A server for one connection and messages of 32 bytes, with given answers.

    Args:
        answer: Makes the answer to a payload.
        accept: Makes Sec-WebSocket-Accept of Sec-WebSocket-Key.
        pong_size: Bytes of the pong that is awaited after each answer.
    """

    def __init__(self, answer, accept=accept_key, pong_size=0):
        self._answer = answer
        self._accept = accept
        self._pong_size = pong_size
        self.pongs = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._listener.close()

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as received, contextlib.suppress(OSError):
            key = None
            while (line := received.readline().decode().strip()) != "":
                name, _, value = line.partition(": ")
                key = value if name == "Sec-WebSocket-Key" else key
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Sec-WebSocket-Accept: {self._accept(key)}\r\n\r\n".encode()
            )
            while len(request := received.read(6 + 32)) == 6 + 32:
                mask = int.from_bytes(request[2:6] * 8)
                payload = (int.from_bytes(request[6:]) ^ mask).to_bytes(32)
                connection.sendall(self._answer(payload))
                if pong := received.read(self._pong_size):
                    self.pongs.append(pong)


def deceive(liar, pair):
    with liar, load_client.running(Workload("lie"), liar.port, pair.client, **SHORT) as load:
        load.report()
        return load.report()


def test_an_honest_answer_is_taken(pair):
    assert deceive(Liar(frame), pair)["messages"] > 0


def test_fragments_and_pings_are_taken(pair):
    def answer(payload):
        first, last = frame(payload[:10], first=0), frame(payload[10:], OpCode.CONTINUATION)
        return first + frame(b"?", OpCode.PING) + last

    liar = Liar(answer, pong_size=6 + 1)
    assert deceive(liar, pair)["messages"] > 0
    assert {pong[0] for pong in liar.pongs} == {0x80 | OpCode.PONG}


LIES = {
    "a wrong byte": (lambda payload: frame(payload[:-1] + bytes([payload[-1] ^ 1])), "has a wrong byte"),
    "always the same": (lambda payload: frame(bytes(32)), "has a wrong byte"),
    "too short": (lambda payload: frame(payload[:-1]), "31 bytes instead of 32"),
    "too long": (lambda payload: frame(payload + b"!"), "more than 32 bytes"),
    "twice": (lambda payload: frame(payload) * 2, "has a wrong byte"),
    "as text": (lambda payload: frame(payload, OpCode.TEXT), "opcode 1 instead of 2"),
    "masked": (lambda payload: frame(bytes(4) + payload, second=0x80), "is masked"),
    "compressed": (lambda payload: frame(payload, first=0xC0), "reserved bits"),
    "a close frame": (lambda payload: frame(b"\x03\xf3oops", OpCode.CLOSE), "closed the connection: 1011 oops"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_out(lie, pair):
    answer, complaint = LIES[lie]
    with pytest.raises(load_client.LoadError, match=complaint):
        deceive(Liar(answer), pair)


def test_a_wrong_proof_is_found_out(pair):
    with pytest.raises(load_client.LoadError, match="wrong Sec-WebSocket-Accept"):
        deceive(Liar(frame, accept=lambda key: accept_key("another")), pair)


@pytest.mark.parametrize("size", [0, 7, 125, 126, 65536, 300_000])
def test_the_floor_of_clients_takes_every_length(pair, size):
    client_ = named("floor", CLIENTS)[0]
    assert measure_client.measure_client(client_, Workload("echo", depth=5, size=size), pair, **SHORT)["value"] > 0


DECEPTIONS = {
    "wrong Sec-WebSocket-Accept": Liar(frame, accept=lambda key: accept_key("another")),
    "no echo": Liar(LIES["a wrong byte"][0]),
    "masked": Liar(LIES["masked"][0]),
    "closed the connection": Liar(LIES["a close frame"][0]),
}


@pytest.mark.parametrize("complaint", DECEPTIONS)
def test_the_floor_of_clients_is_not_deceived(complaint):
    with DECEPTIONS[complaint] as liar:
        url = f"ws://127.0.0.1:{liar.port}/"
        words = [programs.build("floor_client"), "echo", "--url", url, "--warmup", "0.01", "--seconds", "5"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_a_server_that_hangs_up_is_reported(pair):
    def hang_up(payload):
        raise OSError

    with pytest.raises(load_client.LoadError, match="hung up on an open connection"):
        deceive(Liar(hang_up), pair)
