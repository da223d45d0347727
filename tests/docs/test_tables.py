"""The documents against the code: names, defaults and options in their tables, links, and the length of the README."""

import dataclasses
import os
import pkgutil
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from duck.contrib.websockets import Compression, WebSocketView
from duck.contrib.websockets.settings import BY_NAME, markdown_table
from duck.server import Limits

from .snippets import SNIPPETS, pages


def defaults(path):
    """The defaults that the tables of a page give, by name."""
    return dict(re.findall(r"^\| `([\w-]+)` \| ?(?:`([^`]+)`|[^|`]*) ?\|", path.read_text(), re.MULTILINE))


def test_the_settings_of_a_view_are_those_of_their_table(root):
    """A new setting needs a row in `settings.py`, and the table that this test prints in the page."""
    table = markdown_table(WebSocketView)
    assert {name for name in dir(WebSocketView) if name.isupper()} == set(BY_NAME)
    assert table in (root / "docs/reference/settings.md").read_text(), table


def test_every_setting_of_compression_has_its_default(root):
    settings = {name: repr(value) for name, value in dataclasses.asdict(Compression()).items()}
    assert defaults(root / "docs/guides/compression.md") == settings


def test_every_limit_of_the_server_has_its_default(root):
    limits = {name: repr(value) for name, value in dataclasses.asdict(Limits()).items()}
    assert defaults(root / "docs/reference/server.md") == limits


def test_every_option_has_its_default(root):
    command = [sys.executable, "-P", "-m", "duck.server", "serve", "--help"]
    environment = os.environ | {"DUCK_NO_EXTENSIONS": "1", "DUCK_REQUIRE_SPEEDUPS": ""}
    usage = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    paragraphs = re.findall(r"^  (--[\w-]+)(.*?)(?=^  -|^\S|\Z)", usage, re.MULTILINE | re.DOTALL)
    page = defaults(root / "docs/reference/command.md")
    assert {name for name, _ in paragraphs} == {name for name in page if name.startswith("--")}
    # The help has the default in brackets at the end.
    found = {name: re.search(r"\(([a-z\d.]+)\)\s*$", words) for name, words in paragraphs}
    said = {name: match[1].removesuffix(".0") for name, match in found.items() if match}
    assert said
    assert {name: page[name] for name in said} == said


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_local_links_and_pictures_lead_somewhere(page):
    prose = re.sub(r"^```(?!\{image\}).*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", prose) + re.findall(r"^```\{image\} (\S+)", prose, re.MULTILINE)
    assert [target for target in targets if not (page.parent / target).exists()] == []


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


def test_the_functions_on_the_way_of_a_byte_are_there(root):
    walks = (root / "docs/internals/bytes.md").read_text().split("## One connection")[0]
    names = re.findall(r"`((?:[A-Za-z]\w*\.)+[A-Za-z]\w*)`", walks)
    assert len(names) > 10
    assert [name for name in names if not is_there(name)] == []
