"""`duck connect` and `duck bench`, run in the process."""

import argparse
import asyncio
import io
import os
import re
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest

from duck.commands import bench, connect
from duck.commands.arguments import add_bench_options, add_connection_options
from duck.contrib.websockets import WebSocketView
from duck.server import serve
from duck.server.cli import main
from duck.server.listening.tls import Certificates

from ..support.commands import command, environment
from ..support.handshake import agreed
from ..support.servers import answering

SECONDS = ("--seconds", "1")
"""An option of `duck bench`: the server answers within this time, even if the machine stops for a while."""


@pytest.fixture(autouse=True)
def no_late_answers(monkeypatch):
    """The views answer each message before they read the next, so that no answer comes after the pong."""
    monkeypatch.setattr(connect, "_QUIET", 0.01)


class Echo(WebSocketView):
    SUBPROTOCOLS = ("chat",)

    async def on_receive(self, message, opcode):
        if message == b"close":
            await self.send_close(4000, "by\x1be")
        else:
            await self.send(message, opcode)


class Mute(WebSocketView):
    async def on_receive(self, message, opcode):
        await self.send("too long for an echo")


class Typed(io.StringIO):
    """The input of a terminal."""

    def isatty(self):
        return True


def parse(command, server, *options):
    parser = argparse.ArgumentParser()
    (add_bench_options if command is bench else add_connection_options)(parser)
    return parser.parse_args([f"ws://127.0.0.1:{server.port}/", *options])


async def test_connect_sends_lines_runs_commands_and_prints_frames(serving, capsys):
    lines = "hello\n//x\n\x1b[2J\n/binary 00 ff\n/binary zz\n/nope\n/ping a\n/ping\n/help\n/close x\n/close 1005\n"
    async with serving(Echo) as server:
        arguments = parse(connect, server, "--header", "X-A: b", "--subprotocol", "chat", "--no-compression")
        assert await connect.run(arguments, Typed(lines)) == 0
        assert await connect.run(parse(connect, server), io.StringIO("close\n")) == 1
        assert await connect.run(parse(connect, server, "--origin", "https://a.b"), io.StringIO()) == 2
        assert await connect.run(parse(connect, server, "--insecure"), io.StringIO()) == 2
    out, err = capsys.readouterr()
    assert ", subprotocol chat\n" in out
    for line in (
        "< hello",
        "< /x",
        r"< \x1b[2J",
        "< binary, 2 bytes: 00 ff",
        "! non-hexadecimal number",
        "! /nope is not a command",
        "< pong a",
        "/binary HEX",
        "! 'x' is not a close code",
        "! close code 1005 cannot be sent",
        r"< close 4000 by\x1be",
        r"closed: 4000 by\x1be",
        "closed: 1000",
    ):
        assert line in out, line
    assert re.search(r"< pong after \d+\.\d ms", out)
    assert "403 Forbidden: connections from this origin are not allowed" in err
    assert "--insecure is for wss://" in err


@pytest.mark.parametrize("line", ["/nope", "/binary zz", "/close x"])
async def test_an_invalid_command_of_a_script_makes_the_status_that_of_a_failure(serving, capsys, line):
    async with serving(Echo) as server:
        assert await connect.run(parse(connect, server), io.StringIO(f"{line}\nhello\n")) == 1
    out = capsys.readouterr().out
    assert out.index("! ") < out.index("< hello") < out.index("closed: 1000")


@pytest.mark.parametrize("command", [connect, bench])
async def test_a_server_that_does_not_answer_ends_a_client_after_its_open_timeout(capsys, command):
    async def read_to_its_end(reader, writer):
        await reader.read()

    async with answering(read_to_its_end) as url:
        arguments = parse(command, urlsplit(url), "--open-timeout", "0.1")
        assert await command.run(arguments) == 2
    assert "was not open within 0.1 seconds: see open_timeout" in capsys.readouterr().err


async def test_bench_reports_rates_latencies_and_errors(serving, capsys):
    async with serving(Echo) as server:
        options = ("-c", "3", "-d", "2", "-s", "10", *SECONDS)
        assert await bench.run(parse(bench, server, *options)) == 0
        assert await bench.run(parse(bench, server, "-c", "2", "--origin", "https://a.b")) == 2
    async with serving(Mute) as server:
        assert await bench.run(parse(bench, server, "-c", "1", *SECONDS)) == 1
    out, err = capsys.readouterr()
    assert re.search(
        r"opened     3 connections in [\d.]+ s\nmessages   [1-9]\d*/s, \d+ in [\d.]+ s\nlatency    p50", out
    )
    assert "errors     0\n" in out
    assert "received a message that is not an echo" in out
    assert "(2 times)" in err


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
async def test_input_that_is_no_text_ends_connect_with_an_error(serving, capsys, errors):
    """The input has the latter in the locale C.UTF-8."""
    async with serving(Echo) as server:
        lines = io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8", errors=errors)
        assert await connect.run(parse(connect, server), lines) == 1
    out, err = capsys.readouterr()
    assert "closed: 1000" in out
    assert "the input cannot be read any further: 'utf-8' codec" in err


async def test_any_number_of_lines_is_sent_and_the_end_follows_the_answers(serving, capsys, log):
    numbers = [str(number) for number in range(300)]
    lines = "".join(f"{number}\n/help\n" for number in [*numbers, "end of input"])
    async with serving(Echo) as server:
        assert await connect.run(parse(connect, server), io.StringIO(lines)) == 0
        assert await connect.run(parse(connect, server), io.StringIO("/close\nlate\n/ping\n")) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^< (.*)$", out, re.M) == [*numbers, "end of input", "close 1000", "close 1000"]
    assert not log()


async def test_a_closed_output_ends_the_command(serving, monkeypatch):
    async with serving(Echo) as server:
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as output:
            monkeypatch.setattr(sys, "stdout", output)
            os.close(reading)
            waiting = threading.Event()
            try:
                await asyncio.wait_for(connect.run(parse(connect, server), Lines(waiting)), 20)
            finally:
                waiting.set()


class Lines(io.StringIO):
    """An input with nothing to read until an event is set."""

    def __init__(self, event):
        super().__init__()
        self._event = event

    def readline(self, size=-1):
        self._event.wait()
        return ""


class Endless(io.StringIO):
    """Lines of 64 KiB without an end. After 1,000 of them, `many` is set and the next one is awaited for ever."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.many = threading.Event()

    def readline(self, size=-1):
        self.count += 1
        if self.count > 1000:
            self.many.set()
            threading.Event().wait()
        return "x" * 65535 + "\n"

    __next__ = readline


async def test_input_is_read_as_fast_as_the_server_receives(serving):
    class Slow(WebSocketView):
        MAX_CONCURRENT_MESSAGES = 1
        MAX_WAITING_MESSAGES = 1
        CLOSE_TIMEOUT = 0

        async def on_receive(self, message, opcode):
            await asyncio.Event().wait()

    async with serving(Slow) as server:
        lines = Endless()
        running = asyncio.create_task(connect.run(parse(connect, server, "--no-compression"), lines))
        assert not await asyncio.to_thread(lines.many.wait, 0.3)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


async def test_a_line_without_an_end_ends_connect_with_an_error(serving, monkeypatch, capsys):
    monkeypatch.setattr(connect, "_LONGEST", 10)
    async with serving(Echo) as server:
        assert await connect.run(parse(connect, server), io.StringIO("hello\n" + "x" * 10)) == 1
    out, err = capsys.readouterr()
    assert "< hello" in out
    assert "x" * 10 not in out
    assert "a line has more than 10 characters" in err


async def test_a_close_that_the_server_does_not_answer_is_no_success(monkeypatch, capsys):
    monkeypatch.setattr(connect, "_PATIENCE", 0.01)

    async def deaf(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")))
        await reader.read()

    monkeypatch.setattr(connect.Terminal, "CLOSE_TIMEOUT", 0.05)
    async with answering(deaf) as url:
        assert await connect.run(parse(connect, urlsplit(url)), io.StringIO("hello\n")) == 1
    assert "closed: 1000, not answered by the server" in capsys.readouterr().out


async def test_bench_counts_missing_echoes_and_may_be_interrupted(serving, until, capsys):
    class Silent(WebSocketView):
        async def on_receive(self, message, opcode):
            pass

    class Wrong(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message[::-1], opcode)

    class Leaving(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send_close(4000, "enough")

    codes = []

    class Counting(WebSocketView):
        count = 0
        loaded = asyncio.Event()

        async def on_receive(self, message, opcode):
            Counting.count += 1
            if self.count == 20:
                self.loaded.set()
            await self.send(message, opcode)

        async def on_close(self, frame=None):
            codes.append(self.close_code)

    async with serving(Silent) as server:
        assert await bench.run(parse(bench, server, "-c", "2", "--seconds", "0.05")) == 1
    async with serving(Wrong) as server:
        assert await bench.run(parse(bench, server, "-c", "1", *SECONDS)) == 1
    async with serving(Leaving) as server:  # nothing is left to measure after its end
        assert await bench.run(parse(bench, server, "-c", "1", "--seconds", "1000")) == 1
    async with serving(Counting) as server:
        running = asyncio.create_task(bench.run(parse(bench, server, "-c", "2", "-d", "1")))
        await Counting.loaded.wait()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        await until(lambda: codes == [1001, 1001])
    out = capsys.readouterr().out
    assert "1 times: closed with 4000 enough" in out
    assert "2 times: no echo received" in out
    assert "errors     1\n           1 times: received a message that is not an echo" in out


async def test_bench_counts_connections_that_end_before_the_first_message(capsys):
    async def serve_one(reader, writer):
        writer.write(agreed(await reader.readuntil(b"\r\n\r\n")) + b"\x88\x06\x0f\xa0by\x1be")

    async with answering(serve_one) as url:
        assert await bench.run(parse(bench, urlsplit(url), "-c", "2", *SECONDS)) == 1
    assert "errors     2\n           2 times: closed with 4000 by\\x1be\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        "bench ws://x -c 0",
        "bench ws://x -c many",
        "bench ws://x --seconds long",
        "bench ws://x --seconds nan",
        "bench ws://x -s 99999999999",
        "connect ws://x --header a",
        "connect ws://x --header :a",
        "connect ws://x --subprotocol é",
    ],
)
def test_invalid_options_are_refused(options, capsys):
    with pytest.raises(SystemExit):
        main(options.split())
    assert "is not a " in capsys.readouterr().err


NO_SPACE = "cannot write the output: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_an_output_that_takes_nothing_ends_the_command_with_one_line(tmp_path):
    """A reader that has gone, and a full disk."""
    reader, writer = os.pipe()
    os.close(reader)
    for output, words in ((writer, ""), (os.open("/dev/full", os.O_WRONLY), f"duck: {NO_SPACE}")):
        with open(output, "wb") as stdout:
            result = subprocess.run(
                command("info"),
                cwd=tmp_path,
                env=environment(),
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (result.returncode, result.stderr) == (1, words)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_output_closes_the_connection_with_an_error(run, serving, monkeypatch, capsys):
    async def scenario():
        async with serving(Echo) as server:
            assert await connect.run(parse(connect, server), Lines(threading.Event())) == 1

    with open("/dev/full", "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        run(scenario())
    assert capsys.readouterr().err.endswith(NO_SPACE)


async def test_faults_of_tls_have_advice(tls, capsys):
    async with serve(Echo, port=0) as plain, serve(Echo, port=0, ssl=tls.server) as secure:
        for server in (plain, secure):
            arguments = parse(connect, server)
            arguments.url = arguments.url.replace("ws:", "wss:")
            assert await connect.run(arguments, io.StringIO()) == 2
        arguments.insecure = True
        assert await connect.run(arguments, io.StringIO("hello\n")) == 0
    out, err = capsys.readouterr()
    assert "< hello" in out
    assert "the server speaks no TLS there: write ws://" in err
    assert "--ssl-ca-certs FILE trusts your own authority, --insecure any certificate" in err


async def test_a_certificate_for_another_address_is_a_fault_of_any_authority(tls, capsys):
    async with serve(Echo, host="127.0.0.2", port=0, ssl=tls.server) as server:
        arguments = parse(connect, server)
        arguments.url, arguments.ssl_ca_certs = server.addresses[0], tls.cafile
        assert await connect.run(arguments, io.StringIO()) == 2
    assert re.search(r"127\.0\.0\.2.*; --insecure accepts any certificate\n", capsys.readouterr().err)


@pytest.mark.parametrize("command", [connect, bench])
async def test_a_client_trusts_an_authority_and_shows_its_own_certificate(tls, capsys, command):
    context = Certificates(tls.certfile, tls.keyfile, ca_certs=tls.cafile)()
    async with serve(Echo, port=0, ssl=context) as server:
        arguments = parse(command, server, "--ssl-ca-certs", tls.cafile, *tls.options)
        arguments.url = arguments.url.replace("ws:", "wss:")
        if command is connect:
            assert await connect.run(arguments, io.StringIO("hello\n")) == 0
        else:
            arguments.connections, arguments.seconds = 2, 1.0
            assert await bench.run(arguments) == 0
    assert ("< hello" if command is connect else "errors     0") in capsys.readouterr().out


@pytest.mark.parametrize("command", ["connect", "bench"])
@pytest.mark.parametrize(
    ("options", "words"),
    {
        "no URL": (["example.org"], "'example.org' is not a WebSocket URL"),
        "a Unix socket as it is printed": (["ws+unix:/a.sock"], "write ws://localhost/ --unix /a.sock"),
        "no URL, with that of a Unix socket in it": (["a/?to=ws+unix:/b"], "not a WebSocket URL"),
        "an unknown option with a value": (["--cacert", "ca.pem", "wss://a"], "unrecognized arguments: --cacert"),
        "TLS without TLS": (["--insecure", "ws://a"], "--insecure is for wss://"),
        "an authority without TLS": (["--ssl-ca-certs", "ca.pem", "ws://a"], "--ssl-ca-certs is for wss://"),
        "no such file": (["--ssl-ca-certs", "absent.pem", "wss://a"], "absent.pem: [Errno 2]"),
        "a certificate that is none": (["--ssl-certfile", os.devnull, "wss://a"], f"{os.devnull}: "),
        "a key alone": (["--ssl-keyfile", "key.pem", "wss://a"], "of no use without --ssl-certfile"),
    }.values(),
)
def test_wrong_options_of_a_client_are_named(capsys, command, options, words):
    try:
        status = main([command, *options])
    except SystemExit as exit:
        status = exit.code
    err = capsys.readouterr().err
    assert status == 2
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["connect", "bench"])
def test_a_socks_proxy_without_its_library_is_an_error_with_advice(monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.setenv("ws_proxy", "socks5://proxy.example:1080")
    assert main([command, "ws://server.example"]) == 2
    assert "a SOCKS proxy needs python-socks: pip install 'duck-websockets[proxy]'; no_proxy" in capsys.readouterr().err


def test_an_absent_server_is_an_error(capsys):
    assert main(["connect", "ws://127.0.0.1:1/"]) == 2
    assert "Connect" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["connect", "bench"])
@pytest.mark.parametrize("path", ["", "\x1b"])
def test_a_password_is_not_shown(capsys, command, path):
    assert main([command, f"ws://me:secret@127.0.0.1:1/{path}"]) == 2
    err = capsys.readouterr().err
    assert "me:***@127.0.0.1:1/" in err
    assert "secret" not in err
    assert "\x1b" not in err
