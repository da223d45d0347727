"""Views are tested in memory: what they do is the same on every transport."""

import pytest

from ..support import servers


@pytest.fixture
def connect():
    """Serves a view and connects to it, without a socket: `async with connect(View) as session`."""
    return servers.connected_in_memory
