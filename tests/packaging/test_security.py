"""SECURITY.md against the code: the named tests and settings exist."""

import ast
import dataclasses
import re

import pytest

from duck.contrib.websockets import WebSocketView
from duck.server import Limits


@pytest.fixture
def security(root):
    return (root / "SECURITY.md").read_text()


def test_the_named_tests_exist(security, root):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", security)
    assert named
    for path, name in named:
        module = ast.parse((root / path).read_text())
        assert name in [getattr(node, "name", None) for node in module.body], f"{path} has no {name}"


def test_the_named_settings_exist(security):
    assert re.findall(r"`([A-Z_]{5,})`", security)
    for name in re.findall(r"`([A-Z_]{5,})`", security):
        assert hasattr(WebSocketView, name)
    limits = [field.name for field in dataclasses.fields(Limits)]
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|connections)`", security))
    assert named - {"trusted_proxies", "allowed_hosts", "on_close"} <= set(limits)
