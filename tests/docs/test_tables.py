"""The documents against the code: names, defaults and options in tables, links, lists, and the length of the README."""

import inspect
import pkgutil
import re
import shlex
import tomllib
from contextlib import suppress

import pytest

from duck.contrib.websockets import Compression, WebSocketView
from duck.contrib.websockets.client import Options, WebSocketClient
from duck.contrib.websockets.client.options import ATTRIBUTES
from duck.contrib.websockets.client.route import Route
from duck.contrib.websockets.settings import BY_NAME, markdown_table
from duck.server.cli import _parser

from .snippets import SNIPPETS, pages


def table(text):
    """The defaults in the tables of a text, by name."""
    return dict(re.findall(r"^\| `([\w-]+)` \| ?(?:`([^`]+)`|[^|`]*) ?\|", text, re.MULTILINE))


def test_the_settings_of_a_view_are_those_of_their_table(root):
    """A new setting needs a row in `settings.py`, and the table that this test prints in the page."""
    table = markdown_table(WebSocketView)
    assert {name for name in dir(WebSocketView) + dir(WebSocketClient) if name.isupper()} == set(BY_NAME)
    assert table in (root / "docs/reference/settings.md").read_text(), table


def test_every_setting_of_compression_has_its_default(root):
    settings = {name: repr(one.default) for name, one in inspect.signature(Compression).parameters.items()}
    assert table((root / "docs/guides/compression.md").read_text()) == settings


def test_the_options_of_a_client_are_those_of_their_table(root):
    page = (root / "docs/reference/client.md").read_text()
    rows, others = page.split("## Options")[1].split("The other options are ")
    defaults = {name: repr(getattr(Route, name)) for name in Options.__annotations__ if hasattr(Route, name)}
    defaults |= {name: repr(getattr(WebSocketClient, one, False)) for name, one in ATTRIBUTES.items()}
    meanings = inspect.getdoc(Options).split("Attributes:")[1].split(" The other options")[0].split()
    described = re.findall(r"^\| `(\w+)` \| `(.+)` \| (.+) \|$", rows, re.MULTILINE)
    assert [word for name, _, meaning in described for word in [f"{name}:", *meaning.split()]] == meanings
    assert {name: default for name, default, _ in described}.items() <= defaults.items()
    assert {name for name, *_ in described} | set(re.findall(r"`(\w+)`", others)) == set(Options.__annotations__)


def test_the_extras_install_what_their_table_has(root):
    """A package with a condition has words that tell it."""
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \| (.+?) \|", (root / "docs/start.md").read_text(), re.MULTILINE)
    told = {name: cell for names, cell in rows for name in re.findall(r"[\w-]+", names)}
    assert set(told) == set(extras) - {"bench", "dev", "docs", "hosts", "test"}
    assert [name for name, required in extras.items() if name in told and "x86_64" in str(required)] == ["fast"]
    assert "isal on Linux with x86-64" in told["fast"]


@pytest.fixture
def usage(monkeypatch, capsys):
    """The options of a command by its help: the default of each, or None."""
    monkeypatch.setenv("COLUMNS", "100")

    def usage(command):
        with pytest.raises(SystemExit):
            _parser().parse_args([command, "--help"])
        # A short name has the value as well before Python 3.13: "-c N, --connections N".
        option = r"^  (?:-(?!h)\w(?: [A-Z]+)?, )?(--[\w-]+)(.*?)(?=^  -|^\S|\Z)"
        found = re.findall(option, capsys.readouterr().out, re.MULTILINE | re.DOTALL)
        # The help has the default in brackets at the end.
        return {name: re.search(r"\(([a-z\d.]+)\)\s*$", words) for name, words in found}

    return usage


@pytest.mark.parametrize("command", ["serve", "connect", "bench"])
def test_every_option_has_its_default(root, usage, command):
    page = (root / "docs/reference/command.md").read_text()
    section = page.split(f"\n## `duck {command}`\n")[1].split("\n## ")[0]
    told, options = table(section), usage(command)
    if command == "bench":
        shared = usage("connect")
        options = {name: default for name, default in options.items() if name not in shared}
    assert set(told) == set(options)
    said = {name: default[1] for name, default in options.items() if default}
    assert {name: told[name].removesuffix(".0") for name in said} == {
        name: default.removesuffix(".0") for name, default in said.items()
    }


def test_the_commands_of_the_documents_have_valid_options():
    """Commands in blocks, in units of systemd, and within a line."""
    found = [
        shlex.split(words, comments=True)
        for page in pages()
        for words in re.findall(
            r"(?:^|[/`= ])duck ((?:serve|connect|bench) [^`\n&]+)", page.read_text("utf-8"), re.MULTILINE
        )
    ]
    assert len(found) > 10
    for words in (words for words in found if "URL" not in words):
        _parser().parse_args(words)


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors of the headings of a page: lower case, spaces as hyphens, without other punctuation."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_local_links_and_pictures_lead_somewhere(page):
    text = prose(page)
    broken = []
    for target in re.findall(r"\]\((?!\w+:)([^)]+)\)", text) + re.findall(r'<img src="([^"]+)"', text):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_each_item_of_a_list_begins_a_line(page):
    """Within a line, Markdown takes its number or dash for a part of the sentence."""
    assert re.findall(r"[.:] (?:\d\.|-)\s.*", prose(page)) == []


def test_the_messages_in_troubleshooting_are_those_of_the_code(root):
    page = (root / "docs/guides/troubleshooting.md").read_text()
    reasons = re.findall(r'^\| \d{4} "([^"]+)" \|', page, re.MULTILINE)
    messages = re.findall(r"^\| (?:`([^`]+)`|`` ?(.+?) ?``)", page.split("## Warnings and errors")[1], re.MULTILINE)
    words = [*reasons, *(one or other for one, other in messages)]
    assert len(words) > 10
    sources = "".join(path.read_text() for path in (root / "duck").rglob("*.py"))
    assert [one for one in words if one not in sources] == []


def test_the_readme_is_a_landing_page(root):
    assert len((root / "README.md").read_text().splitlines()) <= 150
    assert any(name.startswith("readme") for name, _ in SNIPPETS)


ROOMS = (
    "duck",
    "duck.contrib.websockets",
    "duck.contrib.websockets.codec",
    "duck.contrib.websockets.protocol.protocol",
)


def is_there(name):
    """Whether a dotted name leads to something in one of the rooms."""
    for room in ROOMS:
        with suppress(ImportError, AttributeError):
            pkgutil.resolve_name(f"{room}.{name}")
            return True
    return False


def test_the_functions_on_the_path_of_a_byte_are_there(root):
    walks = (root / "docs/internals/bytes.md").read_text().split("## One connection")[0]
    names = re.findall(r"`((?:[A-Za-z]\w*\.)+[A-Za-z]\w*)`", walks)
    assert len(names) > 10
    assert [name for name in names if not is_there(name)] == []
