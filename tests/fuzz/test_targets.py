"""Replays what every target begins with and what fuzzing has found, and tries a few inputs of hypothesis."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import TARGETS, found, load

CASES = [pytest.param(name, path, id=f"{name}-{path.name[:20]}") for name in TARGETS for path in found(name)]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    target = load(name)
    for seed in target.seeds():
        target.check(seed)


@pytest.mark.parametrize(("name", "path"), CASES)
def test_found(name, path):
    load(name).check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=300))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything(name, data):
    load(name).check(data)
