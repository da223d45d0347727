"""The README against the code: what it says of names, defaults and options is so."""

import dataclasses
import re

import pytest

from duck.contrib.websockets import Compression, WebSocketView
from duck.contrib.websockets.settings import BY_NAME, markdown_table
from duck.server import Limits


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text()


@pytest.fixture
def defaults(readme):
    """The defaults that the tables give, by name."""
    return dict(re.findall(r"^\| `([\w-]+)` \| ?(?:`([^`]+)`|[^|`]*) ?\|", readme, re.MULTILINE))


def test_the_settings_of_a_view_are_those_of_its_table(readme):
    """Whoever adds a setting adds a row in `settings.py`, and puts what this prints into the README."""
    settings = [name for name in vars(WebSocketView) if name.isupper()]
    assert sorted(settings) == sorted(BY_NAME)
    assert markdown_table(WebSocketView) in readme, markdown_table(WebSocketView)


def test_every_setting_of_compression_has_its_default(defaults):
    settings = {name: repr(value) for name, value in dataclasses.asdict(Compression()).items()}
    assert {name: defaults.get(name) for name in settings} == settings


def test_every_limit_of_the_server_has_its_default(defaults):
    limits = {name: repr(value) for name, value in dataclasses.asdict(Limits()).items()}
    assert {name: defaults.get(name) for name in limits} == limits


def test_every_option_has_its_default(defaults, python):
    usage = python("-m", "duck.server", "serve", "--help", DUCK_NO_EXTENSIONS="1").stdout
    paragraphs = re.findall(r"^  (--[\w-]+)(.*?)(?=^  -|^\S|\Z)", usage, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in paragraphs} == {name for name in defaults if name.startswith("--")}
    # The help has the default in brackets at the end.
    found = {name: re.search(r"\(([a-z\d.]+)\)\s*$", words) for name, words in paragraphs}
    said = {name: match[1].removesuffix(".0") for name, match in found.items() if match}
    assert said
    assert {name: defaults[name] for name in said} == said


def test_code_is_python(readme):
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


def test_local_links_lead_somewhere(readme, root):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    assert [target for target in targets if not (root / target).exists()] == []
