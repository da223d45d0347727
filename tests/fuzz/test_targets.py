"""Replays the seeds and the findings of every target, and tries a few inputs of hypothesis."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import TARGETS, found, load


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    """The starting points of a run, and the findings of earlier runs."""
    target = load(name)
    for data in (*target.seeds(), *(path.read_bytes() for path in found(name))):
        target.check(data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=300))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything(name, data):
    load(name).check(data)
