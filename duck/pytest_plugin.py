"""The plugin for pytest, found by its entry point: the fixture `websocket`."""

from typing import Any

import pytest

__all__ = ["websocket"]


@pytest.fixture
def websocket() -> Any:
    """Connects to a view, to routes or to an ASGI application in memory; `duck.contrib.websockets.testing.connect`.

        async def test_echo(websocket):
            async with websocket(Echo) as ws:
                ...

    A synchronous test has `with websocket(Echo) as ws: ...`.
    """
    from duck.contrib.websockets.testing import connect

    return connect
