"""The publisher of a Redis server that is away, step by step."""

import asyncio

import pytest

from duck.contrib.websockets.groups import BrokerError
from duck.contrib.websockets.groups.redis_publisher import Publisher
from duck.contrib.websockets.groups.redis_server import Server


def test_a_timeout_in_the_step_of_a_failing_connect_has_not_published(run, monkeypatch):
    """The queue no longer has the command when its caller resumes. The command itself knows whether it has left."""

    async def fail_behind_the_timeout(self):
        while not self._queue[0].answer.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        self._error = ConnectionError("refused")
        self._drop_given_up()

    monkeypatch.setattr(Publisher, "_run", fail_behind_the_timeout)

    async def scenario():
        publisher = Publisher(Server(None, {}, "redis://test", 1))
        with pytest.raises(BrokerError, match=r"was not sent to .*redis://test: refused") as caught:
            await publisher.execute("PUBLISH", "lobby", "x", deadline=asyncio.get_running_loop().time())
        assert caught.value.not_published

    run(scenario())
