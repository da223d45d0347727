"""Settings: each is checked where it is set, by the table that documents it."""

import math
import sys

import pytest

from duck.contrib.websockets import Compression, WebSocketView
from duck.contrib.websockets.client import WebSocketClient
from duck.contrib.websockets.definition import WATCHED
from duck.contrib.websockets.metrics import Metrics
from duck.contrib.websockets.settings import BY_NAME, SETTINGS
from duck.http.request import HttpRequest

from ..support.views import Recorder

pytestmark = pytest.mark.in_memory

KIND = (TypeError, ValueError)
NO_NUMBERS = ["20", b"20", "1MB", True, [], {}, object(), 1j]
OUT_OF_BOUNDS = [-1, math.nan, math.inf, 10**400]

WRONG = {
    "PING_INTERVAL": [*NO_NUMBERS, *OUT_OF_BOUNDS],
    "PONG_TIMEOUT": [*NO_NUMBERS, *OUT_OF_BOUNDS, 0],
    "MAX_BACKOFF": [*NO_NUMBERS, *OUT_OF_BOUNDS, 0, None],
    "RECEIVE_TIMEOUT": [*NO_NUMBERS, *OUT_OF_BOUNDS],
    "CLOSE_TIMEOUT": [*NO_NUMBERS, *OUT_OF_BOUNDS, None],
    "MAX_FRAME_SIZE": [*NO_NUMBERS, *OUT_OF_BOUNDS, 0, 1e6, 2**63],
    "MAX_CONCURRENT_MESSAGES": [*NO_NUMBERS, *OUT_OF_BOUNDS, 0, 1.0, 2**63, None],
    "MAX_WAITING_MESSAGES": [*NO_NUMBERS, *OUT_OF_BOUNDS, 1.0, 2**63, None],
    "MAX_WAITING_BYTES": [*NO_NUMBERS, *OUT_OF_BOUNDS, 1.0, 2**63, None],
    "RATE_LIMIT": [*NO_NUMBERS, *OUT_OF_BOUNDS, 0],
    "WRITE_LIMIT": [*NO_NUMBERS, *OUT_OF_BOUNDS, 65536.0, 2**31, None],
    "SLOW_CONSUMER": ["block", "", None, True, [], ["wait"]],
    "SUBPROTOCOLS": ["chat", b"chat", None, 5, [""], ["a, b"], ["a b"], [b"chat"], [None], iter(["chat"])],
    "HANDSHAKE_TIMEOUT": [0, -1, "5", True],
    "ALLOWED_ORIGINS": ["*", "https://example.org", b"*", 5, ["example.org"], ["https://example.org/x"], [None]],
    "COMPRESSION": [None, 1, "yes", {}],
    "EXTENSIONS": [[], None, "x", {"x": None}, {"x y": print}, {"": print}, {5: print}, {b"x": print}],
    "METRICS": [True, {}, Metrics],
    "MAGIC_STRING": ["another", None],
}

RIGHT = {
    "PING_INTERVAL": [None, 0, 0.5, 3600],
    "PONG_TIMEOUT": [None, 0.5, 10],
    "MAX_BACKOFF": [0.5, 60],
    "RECEIVE_TIMEOUT": [None, 0, 0.5],
    "CLOSE_TIMEOUT": [0, 0.5],
    "MAX_FRAME_SIZE": [None, 1, 2**63 - 1],
    "MAX_CONCURRENT_MESSAGES": [1, 10**6, sys.maxsize],
    "MAX_WAITING_MESSAGES": [0, 1, sys.maxsize],
    "MAX_WAITING_BYTES": [0, 1, sys.maxsize],
    "RATE_LIMIT": [None, 0.5, 5],
    "WRITE_LIMIT": [0, 2**31 - 1],
    "SLOW_CONSUMER": ["wait", "drop", "close"],
    "SUBPROTOCOLS": [(), [], ["chat", "chat.v2"], {"chat"}],
    "HANDSHAKE_TIMEOUT": [None, 0.5, 30],
    "ALLOWED_ORIGINS": [None, (), ["*"], ("https://example.org",), {"https://*.example.org", "null"}],
    "COMPRESSION": [True, False, Compression(level=1)],
    "EXTENSIONS": [{}, {"x-name": lambda parameters: None}],
    "METRICS": [None, Metrics()],
    "MAGIC_STRING": [WebSocketView.MAGIC_STRING],
}


def cases(table):
    return [pytest.param(name, value, id=f"{name}={str(value)[:20]}") for name in table for value in table[name]]


def test_every_setting_is_tried_here():
    assert list(WRONG) and {*WRONG} & {*RIGHT} == {*WRONG} | {*RIGHT}
    assert {*RIGHT} <= {*BY_NAME}
    assert [setting.name for setting in SETTINGS] == list(BY_NAME)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_setting_takes_everything(setting):
    with pytest.raises(KIND, match=setting.name):
        setting.check("View", object())


@pytest.mark.parametrize(("name", "value"), cases(WRONG))
def test_a_wrong_value_is_refused_where_the_class_is_made(name, value):
    with pytest.raises(KIND, match=rf"^Chat\.{name} (is|has) "):
        type("Chat", (WebSocketView,), {name: value})


@pytest.mark.parametrize(("name", "value"), cases(WRONG))
def test_a_wrong_value_is_refused_where_it_is_set_on_a_view(name, value):
    class Chat(WebSocketView):
        pass

    view = Chat(HttpRequest())
    with pytest.raises(KIND, match=rf"^Chat\.{name} (is|has) "):
        setattr(view, name, value)
    assert getattr(view, name) is getattr(WebSocketView, name)


async def test_a_hook_that_cannot_be_called_is_refused(serving, dial, log):
    """A hook is left out rather than set to None, which would fail later, with an error that does not name the hook."""
    for name in ("on_receive", "on_gap"):
        words = rf"^Chat\.{name} is None, which cannot be called: define it as a method, or leave it out"
        with pytest.raises(TypeError, match=words):
            type("Chat", (WebSocketView,), {name: None})

    class Chat(Recorder):
        pass

    with pytest.raises(TypeError, match=r"^Chat\.on_close is 5, which"):
        Chat(HttpRequest()).on_close = 5
    await refused(serving, dial, Chat, lambda: setattr(Chat, "on_receive", None))
    (entry,) = log()
    assert "Chat.on_receive is None" in entry.message


def test_a_wrong_value_of_a_mixin_is_refused_where_the_class_is_made():
    class Mixin:
        PING_INTERVAL = "20"

    with pytest.raises(TypeError, match=r"^Chat\.PING_INTERVAL is seconds"):
        type("Chat", (Mixin, WebSocketView), {})


@pytest.mark.parametrize(("name", "value"), cases(RIGHT))
async def test_a_right_value_serves(connect, name, value):
    class View(Recorder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, value)

    setattr(View, name, value)
    async with connect(View) as session:
        session.peer.close()
        await session.ended()
    assert session.view.events == ["open", ("close", b"\x03\xe8")]


async def refused(serving, dial, view_class, change=lambda: None, **options):
    """After `change` a connection is refused with 500, without the reason."""
    async with serving(view_class) as server:
        change()
        async with dial(server, **options) as peer:
            assert (await peer.head())[0] == 500
            body = await peer.reader.read()
            assert b"MAX" not in body and b"ORIGINS" not in body


async def test_a_wrong_value_that_is_put_on_the_class_later_is_found_when_a_connection_opens(serving, dial, log):
    class View(Recorder):
        pass

    await refused(serving, dial, View, lambda: setattr(View, "MAX_CONCURRENT_MESSAGES", 0))
    (entry,) = log()
    assert entry.message.endswith(" /': View.MAX_CONCURRENT_MESSAGES is handlers at a time, 1 or more, not 0")


async def test_a_wrong_value_that_equals_the_right_one_before_it_is_found_too(serving, dial, log):
    class View(Recorder):
        MAX_FRAME_SIZE = 1000

    await refused(serving, dial, View, lambda: setattr(View, "MAX_FRAME_SIZE", 1000.0))
    (entry,) = log()
    assert "View.MAX_FRAME_SIZE is bytes" in entry.message


async def test_a_wrong_value_in_a_list_is_found_when_a_connection_opens(serving, dial, log):
    class View(Recorder):
        ALLOWED_ORIGINS = ["https://example.org"]  # noqa: RUF012

    origin = {"Origin": "https://example.org"}
    await refused(serving, dial, View, lambda: View.ALLOWED_ORIGINS.append("example.net"), headers=origin)
    (entry,) = log()
    assert "'example.net'" in str(entry.error)


async def test_a_wrong_value_that_is_set_when_the_view_is_made_is_named_in_the_log(serving, dial, log):
    class View(Recorder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.MAX_FRAME_SIZE = "1MB"

    await refused(serving, dial, View)
    (entry,) = log()
    assert "MAX_FRAME_SIZE" in str(entry.error)


async def test_a_setting_may_be_computed(serving, dial, connect, log):
    """A property is checked for each connection."""
    limits = [1000]

    class View(Recorder):
        @property
        def MAX_FRAME_SIZE(self):
            return limits[0]

    async with connect(View) as session:
        session.peer.send("x" * 1001)
        assert (await session.peer.closing())[0] == 1009
    await refused(serving, dial, View, lambda: limits.insert(0, -1))
    (entry,) = log()
    assert "View.MAX_FRAME_SIZE is bytes" in entry.message


async def test_a_class_that_counts_its_connections_is_still_checked(connect):
    class View(Recorder):
        count = 0

        async def on_open(self):
            View.count += 1
            await super().on_open()

    for expected in (1, 2, 3):
        async with connect(View) as session:
            session.peer.close()
            await session.ended()
        assert session.view.count == expected
        assert session.view.events == ["open", ("close", b"\x03\xe8")]


async def test_only_the_times_of_an_open_connection_may_change(connect):
    """Settings of the heartbeat and of the end may change; a change of any other would have no effect."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            name = message.decode()
            try:
                setattr(self, name, getattr(self, name))
            except AttributeError as error:
                assert str(error).startswith(f"View.{name} is fixed")
                await self.send("fixed")
            else:
                await self.send("changed")

    changed = set()
    async with connect(View) as session:
        for name in [name for name in BY_NAME if hasattr(View, name)]:
            session.peer.send(name)
            if await session.peer.message() == "changed":
                changed.add(name)
    assert changed == {"PING_INTERVAL", "PONG_TIMEOUT", "MAX_BACKOFF", "RECEIVE_TIMEOUT", "CLOSE_TIMEOUT"}


async def test_on_handshake_may_change_what_is_used_after_it(connect):
    """The subprotocol, for example, has been chosen: `handshake.subprotocol` is the way to change it."""
    names = [name for name in WATCHED if hasattr(WebSocketView, name)]

    class View(WebSocketView):
        async def on_handshake(self, handshake):
            for name in names:
                try:
                    setattr(self, name, getattr(self, name))
                except AttributeError as error:
                    assert str(error).startswith(f"View.{name} is fixed once on_handshake is called")
                    fixed.append(name)

    fixed = []
    async with connect(View):
        pass
    settings = {"ALLOWED_ORIGINS", "COMPRESSION", "EXTENSIONS", "HANDSHAKE_TIMEOUT", "SUBPROTOCOLS"}
    assert {*fixed} == settings | {"initiate_upgrade_to_ws", "on_handshake", "run", "run_forever"}


def test_attributes_are_set_and_deleted_as_ever():
    class View(WebSocketView):
        @property
        def fixed(self):
            return 5

        def __setattr__(self, name, value):
            super().__setattr__(name, value)

        def __delattr__(self, name):
            super().__delattr__(name)

    view = View(HttpRequest())
    view.name = "a"
    view.PING_INTERVAL = 5
    assert (view.name, view.PING_INTERVAL) == ("a", 5)
    with pytest.raises(TypeError, match="PING_INTERVAL"):
        view.PING_INTERVAL = "5"
    del view.name, view.PING_INTERVAL
    assert (hasattr(view, "name"), view.PING_INTERVAL) == (False, 20)
    with pytest.raises(AttributeError):
        view.fixed = 6
    with pytest.raises(AttributeError):
        del view.nothing


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PING_INTERVALL", "PING_INTERVAL is the name of the setting"),
        ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS is the name of the setting"),
        ("on_recieve", "on_receive is the name of the hook"),
        ("on_closed", "on_close is the name of the hook"),
        ("on_gaps", "on_gap is the name of the hook"),
        ("on_message", "on_receive is the name of the hook"),
        ("on_connect", "on_open is the name of the hook"),
        ("on_disconnect", "on_close is the name of the hook"),
    ],
)
@pytest.mark.parametrize("base", [WebSocketView, WebSocketClient])
def test_a_misspelt_setting_or_hook_causes_a_warning(base, name, meant):
    with pytest.warns(RuntimeWarning, match=rf"Chat\.{name} has no effect: {meant}") as warned:
        type("Chat", (base,), {name: None})
    assert warned[0].filename == __file__


def test_a_method_with_the_name_of_a_foreign_hook_that_a_hook_may_call_causes_no_warning():
    async def method(self, *_):
        pass

    class Mixin:
        on_receive = method

    type("Chat", (Mixin, WebSocketView), {"on_message": method})
    base = type("Base", (WebSocketView,), {"on_open": method, "on_close": method})
    type("Chat", (base,), {"on_connect": method, "on_disconnect": method})


@pytest.mark.parametrize("name", ["start", "drain", "_start", "_new_connection", "_own_steps"])
def test_an_attribute_that_replaces_an_internal_one_causes_a_warning(name):
    async def method(self):
        pass

    with pytest.warns(RuntimeWarning, match=rf"Game\.{name} replaces an internal attribute of WebSocket") as warned:
        type("Game", (WebSocketView,), {name: method})
    assert warned[0].filename == __file__


@pytest.mark.parametrize("name", ["start", "_start"])
def test_a_mixin_that_replaces_an_internal_attribute_causes_one_warning_with_advice(name):
    async def method(self):
        pass

    mixin = type("ChargePoint", (), {name: method, "_log": (), "stop": method})
    words = rf"^Station\.{name} replaces .* connection: put ChargePoint behind WebSocketView among the bases$"
    with pytest.warns(RuntimeWarning, match=words) as warned:
        station = type("Station", (mixin, WebSocketView), {})
    assert warned[0].filename == __file__
    type("Behind", (WebSocketView, mixin), {})
    type("Child", (station,), {})


def test_other_attributes_of_a_class_cause_no_warning():
    class Chat(WebSocketView):
        MAX_USERS = 5
        JOIN_TIMEOUT = 10
        _users = ()

        async def _receive_loop(self):
            pass

        async def close(self, code=1000, reason=""):
            pass

        def on_message(self, text):
            pass

    class Room(Chat):
        MAX_USERS = 6
        PING_INTERVAL = 5
