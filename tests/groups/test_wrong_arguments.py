"""Groups refuse wrong arguments with an error that gives a right one."""

import asyncio
import copy
import pickle
from functools import partial

import pytest

from duck.contrib.websockets import WebSocketView
from duck.contrib.websockets.client import WebSocketClient
from duck.contrib.websockets.groups import Groups
from duck.contrib.websockets.groups.broker import MessageId
from duck.contrib.websockets.testing import connect as connect_in_memory

from .sink import Sink


async def test_invalid_messages_are_refused(rooms):
    for data, opcode, error in ((b"\xff", 1, ValueError), ("a", 9, ValueError), (["a"], 1, TypeError)):
        with pytest.raises(error):
            await rooms.publish("lobby", data, opcode)
    with pytest.raises(RuntimeError, match="await publish"):
        rooms.publish_sync("lobby", "from a loop")


async def test_equal_members_are_refused():
    """They would be one member."""

    class Named(Sink):
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    with pytest.raises(TypeError, match="Named defines __eq__, but groups tell members apart by identity"):
        await Groups().join(Named(), "room")


async def test_invalid_members_and_names_are_refused():
    """A wrong argument raises an error, and leaves the groups unchanged."""
    rooms = Groups(history=1)

    class Silent(WebSocketView):
        pass

    async with connect_in_memory(Silent) as ws:
        for member in (Silent, None, "x"):
            with pytest.raises(TypeError, match="a member is a view"):
                await rooms.join(member, "lobby")
            with pytest.raises(TypeError, match="a member is a view"):
                await rooms.publish("lobby", "x", exclude=member or Silent)
        for call in (rooms.join, rooms.leave):
            with pytest.raises(TypeError, match="is a str, not 5"):
                await call(ws.view, 5)
        for call in (rooms.publish, partial(asyncio.to_thread, rooms.publish_sync)):
            with pytest.raises(TypeError, match="is a str, not None"):
                await call(None, "x")
        with pytest.raises(ValueError, match="UTF-8 can express"):
            await rooms.join(ws.view, "\ud800")
        assert list(rooms) == []
        with pytest.raises(ValueError, match="5 is not an id"):
            await rooms.join(ws.view, "lobby", since=5)
        await rooms.join(ws.view, "lobby")
        await rooms.publish("lobby", "hello")
        assert await ws.recv() == "hello"
    with pytest.raises(ValueError, match="stamp adds the ids of a history"):
        Groups(stamp=lambda payload, id: payload)


def test_an_error_quotes_the_beginning_of_a_wrong_id():
    with pytest.raises(ValueError, match=r"^'x+\.\.\. is not an id of a message$") as caught:
        MessageId.parse("x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (TypeError, "broker is None, a URL", {"broker": 5}),
        (TypeError, "broker is None, a URL", {"broker": b"redis://127.0.0.1"}),
        (ValueError, "write redis://host", {"broker": ""}),
        (TypeError, "prefix is a str", {"prefix": b"x"}),
        (ValueError, "timeout is a number of seconds, more than 0", {"timeout": -1}),
        (TypeError, "timeout is a number of seconds", {"timeout": None}),
        (TypeError, "history is a number of messages", {"history": 1.5}),
        (ValueError, "history is 1 to [0-9]+ messages", {"history": -1}),
        (ValueError, "history is 1 to [0-9]+ messages", {"history": 2**63 - 1}),
        (ValueError, "history_ttl is a number", {"history_ttl": float("nan")}),
        (TypeError, "presence_ttl is a number", {"presence_ttl": "30"}),
        (ValueError, "presence_ttl is a number", {"presence_ttl": float("inf")}),
        (TypeError, "announce is a function that takes a PresenceChange", {"announce": 5}),
        (TypeError, "stamp is a function that takes the payload", {"stamp": "id", "history": 5}),
    ],
)
def test_wrong_arguments_of_groups_are_refused(error, words, options):
    if "broker" in options:
        pytest.importorskip("redis")
    with pytest.raises(error, match=words):
        Groups(**options)


async def test_groups_and_connections_cannot_be_copied():
    class Silent(WebSocketView):
        pass

    async with connect_in_memory(Silent) as ws:
        for thing in (Groups(), ws.view, WebSocketClient("ws://localhost")):
            for take in (copy.copy, pickle.dumps):
                with pytest.raises(TypeError, match="process, and cannot be copied or pickled"):
                    take(thing)
