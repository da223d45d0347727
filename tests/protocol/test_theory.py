"""The theory of operation names what is there."""

import pkgutil
import re

import pytest

from duck.contrib.websockets import protocol
from duck.contrib.websockets.protocol.phases import Phase

WALKS = protocol.__doc__.split("Walks\n")[1]
NAMES = re.findall(r"`([a-z_]+\.[\w.]+)`", WALKS)


@pytest.mark.parametrize("name", dict.fromkeys(NAMES))
def test_what_the_walks_pass_is_there(name):
    assert pkgutil.resolve_name(f"duck.contrib.websockets.{name}")


def test_there_are_three_walks():
    assert len(re.findall(r"^1\. ", WALKS, re.MULTILINE)) == 3
    assert len(NAMES) > 15


def test_every_phase_has_a_row():
    table = protocol.__doc__.split("Phases\n")[1].split("Flags\n")[0]
    assert re.findall(r"^\| ([A-Z]+) \|", table, re.MULTILINE) == [phase.name for phase in Phase]


def test_the_flags_are_there():
    flags = re.findall(r"^\| `(\w+)` \|", protocol.__doc__, re.MULTILINE)
    names = {name for kind in protocol_class().__mro__ for name in vars(kind)}
    annotations = {name for kind in protocol_class().__mro__ for name in vars(kind).get("__annotations__", ())}
    assert len(flags) == 10
    assert set(flags) <= names | annotations


def protocol_class():
    from duck.contrib.websockets.protocol.protocol import ConnectionProtocol

    return ConnectionProtocol
