"""The `duck` command in processes of its own: its targets, and the effects of its options."""

import asyncio
import dataclasses
import re
import signal
import sys
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duck.contrib.websockets import __version__
from duck.server import Limits, arguments, cli
from duck.server.options import Options

from ..support.commands import Process, run_command
from .command import ONE_VIEW, each_fails, echo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


@pytest.mark.parametrize("target", ["echo.py", "echo:urlpatterns"])
def test_a_target_is_served(folder, target):
    with Process(folder, target, "--port", 0) as process:
        assert re.fullmatch(r"ws://127\.0\.0\.1:[1-9]\d*", process.address)
        assert echo(process.address) == "hello"


def test_letters_that_the_encoding_of_the_output_lacks_are_escaped(folder, monkeypatch):
    """As on Windows into a file, and in a locale without UTF-8."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (folder / "caf\u00e9.py").write_text(
        "from duck.contrib.websockets import WebSocketView\nfrom duck.urls import path\nclass Greet(WebSocketView):\n"
        "    async def on_open(self):\n        await self.send('\u00e9')\n"
        "urlpatterns = [path('/caf\u00e9', lambda request: ''), path('/', Greet)]\n",
        encoding="utf-8",
    )
    with Process(folder, "caf\u00e9.py", "--port", 0) as process:
        assert process.process.stdout.readline().endswith("/caf%C3%A9 in a browser\n")
        assert "< \\xe9" in run_command(folder, "connect", process.address).stdout
    with Process(folder, "caf\u00e9.py", "--uds", "caf\u00e9", "--workers", 2) as process:
        assert process.address == "ws+unix:caf\\xe9"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of a process's threads")
def test_serving_takes_no_threads(folder):
    with Process(folder, "echo.py", "--port", 0) as process:
        assert echo(process.address) == "hello"
        assert len(list(Path(f"/proc/{process.process.pid}/task").iterdir())) == 1


def test_a_limit_is_an_option(folder):
    with (
        Process(folder, "echo.py", "--port", 0, "--max-connections", 1) as process,
        connect(process.address),
        pytest.raises(Exception, match="503"),
    ):
        connect(process.address)


@pytest.mark.parametrize(
    ("arguments", "is_on"),
    [
        (("--access-log",), True),
        (("--access-log", "--log-level", "warning"), True),
        (("--no-access-log", "--log-level", "debug"), False),
        ((), False),
    ],
)
def test_the_access_log_is_switched_by_its_option_at_any_level(folder, arguments, is_on):
    with Process(folder, "echo.py", "--port", 0, *arguments) as process:
        assert echo(process.address) == "hello"
        with process.dial() as client:
            client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 404 ")
        _, log = process.stop(signal.SIGTERM)
    answered = re.findall(r'INFO duck.access: 127\.0\.0\.1:\d+ "GET (\S+) HTTP/1\.1" (\d+) ', log)
    assert answered == ([("/", "101"), ("/nowhere", "404")] if is_on else [])


def test_options_allow_origins_and_hosts(folder):
    arguments = ("--allowed-origins", "https://app.example, https://*.example.net", "--allowed-hosts", "127.0.0.1")
    with Process(folder, "echo.py", "--port", 0, *arguments) as process:
        for origin in ("https://app.example", "https://a.example.net"):
            assert echo(process.address, origin=origin) == "hello"
        with pytest.raises(InvalidStatus) as caught:
            echo(process.address, origin="https://evil.test")
        assert caught.value.response.status_code == 403
        with process.dial() as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 421 ")


def test_errors_of_hooks_are_logged(folder):
    (folder / "broken.py").write_text(ONE_VIEW.replace("await self.send(", "await self.sned("))
    with Process(folder, "broken.py", "--port", 0, "--log-level", "error") as process:
        with pytest.raises(Exception, match="1011"):
            echo(process.address)
        assert "has no attribute 'sned'" in process.stop(signal.SIGTERM)[1]


def test_a_loop_of_ones_own_is_named_by_its_factory(folder):
    (folder / "loops.py").write_text(
        "import asyncio\nclass Own(asyncio.SelectorEventLoop):\n    pass\ndef none():\n    return None\n"
    )
    (folder / "telling.py").write_text(
        ONE_VIEW.replace("send(message, opcode)", "send(type(__import__('asyncio').get_running_loop()).__name__)")
    )
    with Process(folder, "telling.py", "--port", 0, "--loop", "loops:Own") as process:
        assert echo(process.address) == "Own"
    expected = {
        "loops:nothing": "no loop loops:nothing: AttributeError",
        "loops:none": "loops:none returned NoneType",
        "other": "'other' is not one of auto, asyncio, uvloop",
    }
    lines = each_fails(folder, *(["serve", "echo.py", "--port", 0, "--loop", loop] for loop in expected))
    for line, words in zip(lines, expected.values(), strict=True):
        assert words in line


LOG_CONFIGS = {
    "log.json": """{"version": 1, "formatters": {"own": {"format": "own %(message)s"}},
        "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
        "loggers": {"duck.access": {"level": "INFO"}}, "root": {"handlers": ["own"], "level": "INFO"}}""",
    "log.toml": '''version = 1
[formatters.own]
format = "own %(message)s"
[handlers.own]
class = "logging.StreamHandler"
formatter = "own"
[loggers."duck.access"]
level = "INFO"
[root]
handlers = ["own"]
level = "INFO"''',
    "log.ini": """[loggers]
keys=root,access
[handlers]
keys=own
[formatters]
keys=own
[formatter_own]
format=own %(message)s
[handler_own]
class=StreamHandler
formatter=own
args=()
[logger_root]
level=INFO
handlers=own
[logger_access]
level=INFO
qualname=duck.access
handlers=""",
}


@pytest.mark.parametrize("name", LOG_CONFIGS)
def test_logging_is_configured_by_a_file(folder, name):
    """The loggers of the package, which exist before, are not disabled."""
    (folder / name).write_text(LOG_CONFIGS[name])
    with Process(folder, "echo.py", "--port", 0, "--log-config", name) as process:
        assert echo(process.address) == "hello"
        _, errors = process.stop(signal.SIGTERM)
    assert all(line.startswith("own ") for line in errors.splitlines())
    assert '"GET / HTTP/1.1" 101' in errors
    assert "/ [WebSocket] [OPEN]" in errors


def test_an_invalid_configuration_of_logging_is_an_error(folder):
    (folder / "log.json").write_text("{}")
    (folder / "handler.toml").write_text("version = 1\n[handlers.own]\nclass = 'nowhere.Handler'\n")
    files = ("log.json", "missing.toml", "handler.toml")
    invalid, missing, handler = each_fails(folder, *(["serve", "echo.py", "--log-config", file] for file in files))
    assert invalid.startswith("duck: cannot configure logging by log.json: dictionary doesn't specify a version; give")
    assert "No such file" in missing
    assert "handler 'own': Cannot resolve 'nowhere.Handler': No module named 'nowhere'; give" in handler


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_named_like_a_loop_beside_the_application_does_not_hide_the_loop(folder, workers):
    pytest.importorskip("uvloop")
    (folder / "uvloop.py").touch()
    words = [sys.executable, "-P", "-m", "duck", "serve", "echo.py", "--port", "0", "--workers", str(workers)]
    with Process(folder, words=words) as process:
        assert echo(process.address) == "hello"


def test_a_missing_uvloop_is_an_error_unless_the_loop_is_auto(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert cli.main(["serve", "echo.py", "--loop", "uvloop"]) == 2
    assert "uvloop is not installed; install it, or choose the loop auto" in capsys.readouterr().err
    factory = cli.loop_factory("auto")
    assert factory is asyncio.new_event_loop


def test_every_limit_has_an_option():
    changed = {
        "connections": 7,
        "connections_per_address": 6,
        "head_timeout": 1.5,
        "keep_alive_timeout": 2.5,
        "linger_timeout": 3.5,
        "head_size": 1000,
        "header_count": 10,
        "body_size": 100,
    }
    assert set(changed) == {field.name for field in dataclasses.fields(Limits)}
    parser = arguments.Parser()
    arguments.add_serve_options(parser)
    assert arguments.options(parser.parse_args(["app.py"])) == Options()
    prefix = {"connections": "max-", "connections_per_address": "max-"}
    words = [f"--{prefix.get(name, '')}{name.replace('_', '-')}={value}" for name, value in changed.items()]
    assert arguments.options(parser.parse_args(["app.py", *words])).limits == Limits(**changed)


def test_version_is_printed(folder):
    result = run_command(folder, "--version")
    assert (result.returncode, result.stdout) == (0, f"duck-websockets {__version__}\n")


def test_info_is_printed(folder):
    result = run_command(folder, "info")
    assert result.returncode == 0, result.stderr
    assert result.stdout


def help_of(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_has_the_options_in_groups(capsys):
    titles = [line for line in help_of("serve", capsys).splitlines() if re.fullmatch(r"\S.*:", line)]
    assert {"addresses:", "TLS:", "proxies:", "limits:", "logging:", "process:"} <= set(titles)


@pytest.mark.parametrize(
    ("command", "purpose"),
    [
        ("info", "Show the version"),
        ("connect", "Talk to a WebSocket server"),
        ("bench", "Measure the speed"),
        ("serve", "Serve views"),
    ],
)
def test_the_help_of_a_command_begins_with_its_purpose(capsys, command, purpose):
    _, told, *_ = help_of(command, capsys).split("\n\n")
    assert told.startswith(purpose)
