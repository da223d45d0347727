"""Connections that have come and gone, in every way: nothing of them is left. `churn.py` does it ten thousand times."""

import asyncio
import gc
import os
from collections import Counter
from pathlib import Path

from duck.server import serve

from . import churn

FILES = Path("/proc/self/fd")
ROUNDS = 10


def left():
    """How many open files there are, where the system tells, and how many objects of each class of ours."""
    files = len(os.listdir(FILES)) if FILES.exists() else 0
    kinds = map(type, gc.get_objects())
    return files, Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("duck."))


def test_connections_come_and_go(run, log, monkeypatch):
    async def scenario():
        monkeypatch.setattr(churn.Echo, "opened", 0)
        monkeypatch.setattr(churn.Echo, "closed", 0)
        async with serve(churn.Echo, port=0) as server:
            await churn.come_and_go(server.port, len(churn.WAYS))
            await churn.settled(server)
            before = left()
            await churn.come_and_go(server.port, len(churn.WAYS) * ROUNDS)
            await churn.settled(server)
            assert left() == before
            assert churn.Echo.opened == churn.Echo.closed == 5 * (1 + ROUNDS)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())
    assert log() == []
