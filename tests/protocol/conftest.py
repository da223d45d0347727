"""Fixtures for large messages: each library that compresses, and threads that a test holds up."""

import asyncio

import pytest

from duck.contrib.websockets.codec import deflate
from duck.contrib.websockets.sansio.connection import Connection

from .large import Gate


@pytest.fixture(params=deflate.BACKENDS)
def each_backend(request, monkeypatch):
    try:
        chosen = deflate.load(request.param)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(deflate, "BACKEND", chosen)


@pytest.fixture
def gate(monkeypatch):
    """A gate before the work of threads, created within a loop by `gate("decode")` or `gate("compress")`."""
    gates = []

    def make(method):
        made = Gate(asyncio.get_running_loop())
        gates.append(made)
        original = getattr(Connection, method)

        def gated(self, *args):
            made.pass_through()
            return original(self, *args)

        monkeypatch.setattr(Connection, method, gated)
        return made

    yield make
    for made in gates:
        made.open()
