"""Messages of the `duck` command about unusable applications and options."""

import itertools
import re
import sys

import pytest

from duck.server import Limits, run
from duck.server.cli import main
from duck.server.listening.tls import Certificates
from duck.server.options import Options
from duck.server.process.loops import LoopError, loop_factory

from ..support.commands import ROOT, run_command
from .command import ECHO, ONE_VIEW, each_fails, errors_of_each, fails

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")


BAD_TARGETS = {
    "missing.py": "missing.py: no such file; give the path",
    ".py": "no such file",
    "missing": "no module 'missing'; run this from the folder that holds it",
    "missing.inner:x": "no module 'missing'",
    "echo:nothing": "echo has no 'nothing'; check the name behind the colon",
    "echo:path": "[path('/', Chat)]; an ASGI application is served by uvicorn --ws duck",
    "empty.py": "has no urlpatterns and defines no views; define urlpatterns, or name",
    "asgi.py": "asgi.py has an ASGI application: serve it by uvicorn asgi:app --ws duck",
    "asgi": "asgi has an ASGI application: serve it by uvicorn asgi:app --ws duck",
    "site/asgi.py": "serve it by uvicorn asgi:app --app-dir site --ws duck",
    "notes.txt": "'notes.txt' names no module; give the path of a Python file",
    "two.py": "has no urlpatterns and defines 2 views",
    "": "'' names no module; give the path of a Python file, or a module's name\n",
    ":Echo": "':Echo' names no module",
    "./echo": "'./echo' names no module",
    "echo.Echo": "no module 'echo.Echo'; did you mean echo:Echo?",
    "echo.py:nothing": "echo.py has no 'nothing'; check the name behind the colon",
    "methods.py": "'/': the server offers GET, HEAD, POST only",
}


@pytest.fixture(scope="module")
def errors_of_bad_targets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    (folder / "echo.py").write_text(ECHO)
    (folder / "empty.py").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "site").mkdir()
    for asgi in (folder / "asgi.py", folder / "site" / "asgi.py"):
        asgi.write_text(
            "from starlette_like import Request\n" + ONE_VIEW + "\nasync def app(scope, receive, send):\n    pass\n"
        )
    like = "class Request:\n    def __init__(self, scope, receive=None, send=None):\n        pass\n"
    for place in (folder, folder / "site"):
        (place / "starlette_like.py").write_text(like)
    (folder / "two.py").write_text(ONE_VIEW + "\nclass Other(Echo):\n    pass\n")
    (folder / "methods.py").write_text(
        "from duck.urls import path\nurlpatterns = [path('/', print, methods=['PUT'])]\n"
    )
    lines = each_fails(folder, *(["serve", target] for target in BAD_TARGETS))
    return dict(zip(BAD_TARGETS, lines, strict=True))


@pytest.mark.parametrize(("target", "words"), BAD_TARGETS.items())
def test_a_bad_target_is_an_error_with_advice(errors_of_bad_targets, target, words):
    line = errors_of_bad_targets[target]
    assert line.startswith("duck: ")
    assert words in line


def test_an_error_in_an_application_is_shown_from_its_own_code_on(folder):
    (folder / "app.py").write_text("def begin():\n    import inner\n\nbegin()\n")
    (folder / "inner.py").write_text("from duck.urls import path\npath('a', print)\n")
    cases = list(itertools.product(["app.py", "app"], ["debug", "critical"]))
    found = errors_of_each(folder, *(["serve", target, "--log-level", level] for target, level in cases))
    for (target, _), errors in zip(cases, found, strict=True):
        first, *_, error, last = errors.splitlines()
        assert first == "Traceback (most recent call last):"
        places = re.findall(r'File ".*?([^/]+)", line (\d+)', errors)
        assert places[:3] == [("app.py", "4"), ("app.py", "2"), ("inner.py", "2")]
        assert {name for name, _ in places[3:]} == {"urls.py"}
        assert error == "ValueError: 'a' does not start with a slash"
        assert re.fullmatch(rf"duck: {target} cannot be imported: {re.escape(error)} \(.*/inner.py, line 2\)", last)


BROKEN = {
    "\nx = (\n": ("    x = (", r"SyntaxError: '\(' was never closed \(/.*/app.py, line 2\)"),
    "import nowhere\n": ("    import nowhere", r"ModuleNotFoundError: No module named 'nowhere' \(/.*, line 1\)"),
    "from .views import Chat\n": (
        "    from .views import Chat",
        r"ImportError: .* no known parent package; serve the file as a module of its package: \d\.app \(.*, line 1\)",
    ),
    "import sys\nsys.exit('no database')\n": (
        "    sys.exit('no database')",
        r"SystemExit: no database \(/.*/app.py, line 2\)",
    ),
    "raise Exception('one\\ntwo')\n": ("Exception: one", r"Exception: one two \(/.*/app.py, line 1\)"),
    "try:\n    1 / 0\nexcept Exception:\n    x\n": (
        "    1 / 0",
        r"NameError: name 'x' is not defined \(/.*, line 4\)",
    ),
}


def test_an_error_in_an_application_is_one_line_with_its_place(folder):
    for number, source in enumerate(BROKEN):
        (folder / f"{number}").mkdir()
        (folder / f"{number}/app.py").write_text(source)
    found = errors_of_each(folder, *(["serve", f"{number}/app.py"] for number in range(len(BROKEN))))
    for number, (errors, (shown, words)) in enumerate(zip(found, BROKEN.values(), strict=True)):
        lines = errors.splitlines()
        assert shown in lines
        assert "cli.py" not in errors
        assert "importlib" not in errors
        assert re.fullmatch(f"duck: {number}/app.py cannot be imported: {words}", lines[-1])


def test_a_module_that_would_serve_itself_is_refused(folder):
    """Its own server would have other options, and the first signal would stop only that."""
    (folder / "app.py").write_text(f"{ONE_VIEW}\nfrom duck.server import run\nrun(Echo, port=0)\n")
    for errors in errors_of_each(folder, ["serve", "app.py"], ["serve", "app", "--workers", "2", "--port", "0"]):
        words = "duck serve imports this module, which calls run: put that behind `if __name__ == '__main__':`"
        assert f"RuntimeError: {words} (" in errors.splitlines()[-1]


@pytest.mark.parametrize("target", [["echo"], ["echo.py", "--reload"], ["echo", "--workers", "2"]])
def test_a_current_folder_that_has_been_removed_is_an_error(folder, target):
    leaving = 'mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    result = run_command(
        folder, words=["sh", "-c", leaving, "sh", sys.executable, "-P", "-m", "duck", "serve", "--port", "0", *target]
    )
    assert result.returncode == 2
    # Where scripts start Python, as one for 3.14 does, lines of theirs come before.
    assert result.stderr.endswith("duck: the current folder has been removed; change to another one\n")
    assert "Traceback" not in result.stderr


def test_an_application_beside_the_package_is_not_taken_for_a_part_of_it(folder):
    (folder / "duck").symlink_to(ROOT / "duck")
    (folder / "duckling.py").write_text("raise ValueError('quack')\n")
    error = run_command(folder, "serve", "duckling.py").stderr
    assert re.search(r'File ".*/duckling.py", line 1', error)
    assert error.endswith("/duckling.py, line 1)\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_health_path_that_would_hide_a_route_is_refused(folder, workers):
    (folder / "app.py").write_text(
        "from duck.urls import path\ndef page(request): pass\nurlpatterns = [path('/health', page)]\n"
    )
    options = "--port", "0", "--health-path", "/health", "--workers", workers
    result = run_command(folder, "serve", "app.py", *options)
    words = (
        "duck: the health path '/health' is also the path of a route, which it would hide: choose another health path"
    )
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, words)


def test_options_that_need_or_exclude_others_are_refused(folder):
    expected = {
        ("--groups", "http://localhost"): "--groups: 'http' is not a scheme of a Redis server: write redis://host:6379",
        ("--uds", "here", "--fd", "3"): "--uds and --fd each say where to listen; give one of them",
        ("--uds-mode", "600"): "--uds-mode is of no use without --uds",
        ("--proxy-protocol",): "duck: --proxy-protocol needs --trusted-proxies",
        ("--ssl-keyfile", "key.pem"): "--ssl-keyfile is of no use without --ssl-certfile",
        ("--ssl-ca-certs", "ca.pem"): "--ssl-ca-certs is of no use without --ssl-certfile",
    }
    lines = each_fails(folder, *(["serve", "echo.py", *options] for options in expected))
    for line, words in zip(lines, expected.values(), strict=True):
        assert words in line


def test_a_command_is_required(folder):
    line = fails(folder)
    assert "required" in line
    assert line.endswith("--help\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve",), "required: TARGET"),
        (("dance",), "invalid choice: 'dance'"),
        (("serve", "echo.py", "--dance"), "unrecognized arguments: --dance; see duck serve --help"),
        (("serve", "echo.py", "--port", "abc"), "argument --port: 'abc' is not a port, 0 to 65535; see"),
        (("serve", "echo.py", "--port", "65536"), "'65536' is not a port, 0 to 65535"),
        (("serve", "echo.py", "--host", ""), "give an address or a name, or * for every interface"),
        (("serve", "echo.py", "--host", "localhost:9000"), "'localhost:9000' is not a host: give its address or name"),
        (("serve", "echo.py", "--host", "ws://localhost"), "'ws://localhost' is not a host"),
        (("serve", "echo.py", "--health-path", "/%41"), "'/%41' is not a path, such as /healthz"),
        (("serve", "echo.py", "--health-path", "healthz"), "'healthz' is not a path, such as /healthz"),
        (("serve", "echo.py", "--health-path", "/health/<x>"), "'/health/<x>' is not a path, such as /healthz"),
        (("serve", "echo.py", "--uds-mode", "999"), "'999' is not a mode in octal, such as 660"),
        (("serve", "echo.py", "--metrics", "9100"), "argument --metrics: '9100' is not an address with a port"),
        (("serve", "echo.py", "--fd", "-1"), "'-1' is not a file descriptor"),
        (("serve", "echo.py", "--shutdown-code", "1000"), "1000"),
        (("serve", "echo.py", "--loop", "x"), "--loop"),
        (("serve", "echo.py", "--shutdown-timeout", "-1"), "-1"),
        (
            ("serve", "echo.py", "--trusted-proxies", "127.0.0.1, me"),
            "--trusted-proxies: a trusted proxy is an IP address",
        ),
        (
            ("serve", "echo.py", "--allowed-origins", "https://example.org, example.net"),
            "--allowed-origins: allowed_origins has 'example.net', which cannot be the origin of a page: write its",
        ),
        (
            ("serve", "echo.py", "--allowed-hosts", "localhost:8000"),
            "--allowed-hosts: allowed_hosts has 'localhost:8000', which is not a host: write its name alone",
        ),
        (("serve", "echo.py", "--max-connections", "0"), "'0' is not a positive whole number"),
        (("serve", "echo.py", "--max-connections-per-address", "many"), "'many' is not a positive whole number"),
        (("serve", "echo.py", "--shutdown-timeout", "soon"), "'soon' is not a number of seconds"),
        (("serve", "echo.py", "--shutdown-timeout", "nan"), "'nan' is not a number of seconds"),
        (("serve", "echo.py", "--head-size", "32K"), "'32K' is not a positive whole number"),
    ],
)
def test_bad_usage_is_an_error_with_advice(capsys, arguments, words):
    """In this process, because no application is imported or served."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    output, line = capsys.readouterr()
    assert (caught.value.code, output) == (2, "")
    assert line.count("\n") == 1
    assert words in line
    assert line.endswith("--help\n")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def make(): raise OSError('no files')", "creates no loop: OSError: no files; give a function without"),
        ("def make(name): pass", r"creates no loop: TypeError: make\(\) missing 1 required positional argument"),
        ("async def make(): pass", "returned coroutine, which is not an event loop"),
        ("def make(): loop = new_event_loop(); loop.close(); return loop", "returned a loop that is closed"),
    ],
)
def test_a_factory_that_creates_no_loop_is_an_error(tmp_path, monkeypatch, source, words):
    (tmp_path / "broken_loop.py").write_text(f"from asyncio import new_event_loop\n{source}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_loop", raising=False)
    with pytest.raises(LoopError, match=f"broken_loop:make {words}"):
        loop_factory("broken_loop:make")()


@pytest.mark.parametrize(
    "limit",
    [{"connections": "20"}, {"head_size": None}, {"header_count": 1.5}, {"head_timeout": "1"}, {"body_size": True}],
)
def test_limits_that_are_no_numbers_are_refused(limit):
    (name,) = limit
    with pytest.raises(TypeError, match=rf"Limits\.{name} must be"):
        Limits(**limit)


@pytest.mark.parametrize("name", ["drain", "shutdown_timeout", "startup_timeout", "worker_timeout"])
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ("10", "a number of seconds"),
        (None, "a number of seconds"),
        (True, "a number of seconds"),
        (-1, "negative"),
        (float("nan"), "negative"),
        (float("inf"), "finite"),
        (10**400, "a float can express"),
    ],
)
def test_times_that_no_loop_could_wait_for_are_refused(name, seconds, words):
    with pytest.raises((TypeError, ValueError), match=f"{name} must .*{words}"):
        Options(**{name: seconds})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("port", True, "an int, not True"),
        ("port", 70000, "from 0 to 65535"),
        ("uds_mode", "666", "an int, not '666'"),
        ("uds_mode", 0o7777, "from 0 to 511"),
        ("workers", 0, "1 or more"),
        ("workers", 2.0, "an int, not 2.0"),
    ],
)
def test_whole_numbers_out_of_bounds_are_refused(option, value, words):
    with pytest.raises((TypeError, ValueError), match=f"{option} must be {words}"):
        run([], **{option: value})


def test_permissions_of_no_unix_socket_are_refused():
    with pytest.raises(ValueError, match="uds_mode is of no use without uds"):
        run([], uds_mode=0o600)


@pytest.mark.parametrize("host", [["127.0.0.1", "::1"], b"localhost"])
def test_a_host_that_is_no_str_is_refused(host):
    with pytest.raises(TypeError, match="host must be one name or address"):
        run([], host)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"connections": -1}, "be 0 or more"),
        ({"head_timeout": float("nan")}, "not be negative"),
        ({"linger_timeout": float("inf")}, "be a finite number"),
    ],
)
def test_limits_out_of_bounds_are_refused(limit, words):
    (name,) = limit
    with pytest.raises(ValueError, match=rf"Limits\.{name} must {words}"):
        Limits(**limit)


def test_limits_that_are_no_limits_are_refused():
    with pytest.raises(TypeError, match="limits must be a Limits, not "):
        run([], limits={"connections": 3})


def test_the_password_of_a_key_is_not_in_the_repr_of_its_certificates():
    assert "pa55" not in repr(Certificates("cert.pem", "key.pem", password="pa55"))
