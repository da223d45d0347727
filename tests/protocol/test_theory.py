"""The theory of operation names existing objects."""

import enum
import pkgutil
import re

import pytest

from duck.contrib.websockets import protocol
from duck.contrib.websockets.protocol.phases import Phase
from duck.contrib.websockets.protocol.protocol import ConnectionProtocol

PATHS = protocol.__doc__.split("Data paths\n")[1]
NAMES = re.findall(r"`([a-z_]+\.[\w.]+)`", PATHS)
STATES = re.findall(r"^\| `([\w.]+)` \|", protocol.__doc__.split("States\n")[1].split("Flags\n")[0], re.MULTILINE)


@pytest.mark.parametrize("name", dict.fromkeys(NAMES))
def test_the_names_in_the_data_paths_exist(name):
    assert pkgutil.resolve_name(f"duck.contrib.websockets.{name}")


def test_there_are_four_data_paths():
    assert len(re.findall(r"^1\. ", PATHS, re.MULTILINE)) == 4
    assert len(NAMES) > 15


def test_every_phase_has_a_row():
    table = protocol.__doc__.split("States\n")[1].split("Flags\n")[0]
    assert re.findall(r"^\| ([A-Z]+) \|", table, re.MULTILINE) == [phase.name for phase in Phase]


@pytest.mark.parametrize("name", STATES)
def test_every_state_names_its_members_where_it_is_explained(name):
    name = f"duck.contrib.websockets.{'' if name.startswith('sansio') else 'protocol.'}{name}"
    module, kind = pkgutil.resolve_name(name.rpartition(".")[0]), pkgutil.resolve_name(name)
    explained = f"{module.__doc__}\n{kind.__doc__}"
    assert issubclass(kind, enum.Enum)
    assert [member for member in kind if member.name not in explained] == [], explained


def test_the_named_flags_exist():
    flags = re.findall(r"^\| `(\w+)` \|", protocol.__doc__.split("Flags\n")[1], re.MULTILINE)
    names = {name for kind in ConnectionProtocol.__mro__ for name in vars(kind)}
    annotations = {name for kind in ConnectionProtocol.__mro__ for name in vars(kind).get("__annotations__", ())}
    assert len(flags) == 10
    assert set(flags) <= names | annotations
