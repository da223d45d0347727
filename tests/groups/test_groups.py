"""Groups on each of the brokers: the receivers of messages, and the end of memberships."""

import asyncio
import os
import threading
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duck.contrib.websockets import ConnectionClosed, OpCode, WebSocketView
from duck.contrib.websockets.client import connect
from duck.contrib.websockets.groups import BrokerError, Groups, Message
from duck.contrib.websockets.groups.memory import MemoryBroker
from duck.contrib.websockets.hosts.asgi import Application
from duck.contrib.websockets.testing import connect as connect_in_memory

from .sink import Sink


async def test_members_get_published_messages(rooms, meet):
    async with meet(rooms, "lobby", 3) as (views, peers), meet(rooms, "other", 1) as (_, (other,)):
        assert rooms.count("lobby") == 3
        assert set(rooms.members("lobby")) == set(views)
        assert list(rooms) == ["lobby", "other"]
        await rooms.publish("lobby", "hello")
        await rooms.publish("lobby", b"\x00\r\n\xff", OpCode.BINARY)
        await rooms.publish("nobody", "hello")
        await rooms.publish("other", "elsewhere")
        for peer in peers:
            assert await peer.message() == "hello"
            assert await peer.message() == b"\x00\r\n\xff"
        assert await other.message() == "elsewhere"


async def test_publish_may_exclude_a_member(rooms, meet):
    async with meet(rooms, "lobby", 2) as (views, peers):
        await rooms.publish("lobby", "one", exclude=views[0])
        await rooms.publish("lobby", "two")
        assert await peers[0].message() == "two"
        assert [await peers[1].message() for _ in range(2)] == ["one", "two"]
        await rooms.publish("other", "to nobody", exclude=views[0])
        await rooms.leave(views[0], "lobby")
        await rooms.publish("lobby", "three", exclude=views[0])
        assert await peers[1].message() == "three"


async def test_a_group_keeps_no_member_that_has_left():
    rooms = Groups()
    stays, leaves, ends = Sink(), Sink(), Sink()
    for member in (stays, leaves, ends):
        await rooms.join(member, "lobby", data={})
        await rooms.publish("lobby", "to the others", exclude=member)
    await rooms.leave(leaves, "lobby")
    ends.end()
    gone = weakref.ref(leaves), weakref.ref(ends)
    del leaves, ends, member
    assert [reference() for reference in gone] == [None, None]
    await rooms.publish("lobby", "to the rest")
    assert stays.messages == ["to the others"] * 2 + ["to the rest"]


async def test_a_client_is_a_member(rooms, serving, until):
    class Upper(WebSocketView):
        async def on_receive(self, message, opcode):
            await self.send(message.upper(), opcode)

    async with serving(Upper) as server:
        async with connect(f"ws://127.0.0.1:{server.port}") as one, connect(one.url) as two:
            for client in (one, one, two):
                await rooms.join(client, "up")
            assert rooms.members("up") == [one, two]
            await rooms.publish("up", "not one", exclude=one)
            await rooms.publish("up", b"all", OpCode.BINARY)
            assert await one.recv(5) == b"ALL"
            assert [await two.recv(5), await two.recv(5)] == ["NOT ONE", b"ALL"]
            await rooms.leave(two, "up")
            await rooms.publish("up", "one")
            assert await one.recv(5) == "ONE"
        await until(lambda: not rooms.names())
        with pytest.raises(ConnectionClosed):
            await rooms.join(one, "up")


async def test_a_view_cannot_join_before_it_is_open(rooms):
    class Announced(WebSocketView):
        async def on_handshake(self, handshake):
            await rooms.publish("lobby", "somebody comes", exclude=self)
            await rooms.leave(self, "lobby")
            with pytest.raises(RuntimeError, match="not open yet: join from on_open on"):
                await rooms.join(self, "lobby")

    async with connect_in_memory(Announced):
        assert rooms.names() == []
    await rooms.close()


async def test_a_member_of_many_groups_joins_and_leaves_at_the_cost_of_one():
    compared = 0

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    rooms, member = Groups(), Sink()
    names = [Name(number) for number in range(100)]
    for name in names:
        await rooms.join(member, name)
    for name in names[:50]:
        await rooms.leave(member, name)
    assert len(rooms.names()) == 50
    assert compared < 1000
    member.end()
    assert rooms.names() == []


async def test_joining_and_leaving_twice_is_as_once(rooms, meet):
    async with meet(rooms, "lobby", 2) as (views, peers):
        await rooms.join(views[0], "lobby")
        await rooms.join(views[0], "second")
        await rooms.leave(views[0], "lobby")
        await rooms.leave(views[0], "lobby")
        await rooms.leave(views[0], "never joined")
        assert rooms.count("lobby") == 1
        await rooms.publish("lobby", "not for all")
        await rooms.publish("second", "for one")
        assert await peers[0].message() == "for one"
        assert await peers[1].message() == "not for all"
        await rooms.leave(views[0], "second")
        await rooms.join(views[0], "second")
        await rooms.publish("second", "again")
        assert await peers[0].message() == "again"


@pytest.mark.parametrize("way", ["close", "leave", "reset", "send_close", "error"])
async def test_a_membership_ends_with_the_connection(rooms, serving, dial, until, way):
    class Member(WebSocketView):
        CLOSE_TIMEOUT = 0.1

        async def on_open(self):
            await rooms.join(self, "lobby")
            await rooms.join(self, "second")
            await self.send("joined")

        async def on_receive(self, message, opcode):
            raise ArithmeticError("on purpose")

        async def on_close(self, frame):
            seen.append((rooms.count("lobby"), rooms.count("second"), rooms.names()))
            with pytest.raises(ConnectionClosed):
                await rooms.join(self, "lobby")

    seen = []
    async with serving(Member) as server, dial(server) as peer:
        await peer.head()
        assert await peer.message() == "joined"
        view, _ = await server.views.get()
        if way == "send_close":
            await view.send_close()
            peer.close()
        elif way == "error":
            peer.send("now")
            await peer.closing()
            peer.close()
        else:
            getattr(peer, way)()
        await until(lambda: seen)
        assert seen == [(0, 0, [])]


async def test_a_view_that_is_not_open_cannot_join(rooms, connect):
    class Early(WebSocketView):
        async def initiate_upgrade_to_ws(self):
            with pytest.raises(RuntimeError, match="not open"):
                await rooms.join(self, "lobby")
            return await super().initiate_upgrade_to_ws()

    async with connect(Early):
        assert rooms.count("lobby") == 0


async def test_messages_of_synchronous_code_arrive_in_order(new_groups, meet):
    """A task queue publishes so; it has no server, and creates groups of its own."""
    async with meet(new_groups(), "lobby", 2) as (_, peers):
        writer = new_groups()

        def job():
            for number in range(20):
                writer.publish_sync("lobby", f"{number}")

        await asyncio.to_thread(job)
        for peer in peers:
            assert [await peer.message() for _ in range(20)] == [str(number) for number in range(20)]
        await writer.close()


async def test_members_and_publishers_may_be_in_several_loops(rooms, meet):
    """Members in two loops, each with publishers; and a member that is made to join from the other loop."""
    home = asyncio.get_running_loop()
    async with meet(rooms, "lobby", 1) as (views, peers):

        async def afar():
            async with meet(rooms, "lobby", 1) as ((view,), (peer,)):
                assert rooms.count("lobby") == 2
                await rooms.publish("lobby", "from afar")
                assert await peer.message() == "from afar"
                await rooms.join(views[0], "second")
                await rooms.publish("second", "to the other loop")
                await rooms.publish("lobby", "not to me", exclude=view)
                await rooms.publish("lobby", "not to it", exclude=views[0])
                assert await peer.message() == "not to it"
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(rooms.publish("lobby", "from home"), home))
                assert await peer.message() == "from home"
            return view

        gone = await asyncio.to_thread(lambda: asyncio.run(afar()))
        received = {await peers[0].message() for _ in range(4)}
        assert received == {"from afar", "to the other loop", "not to me", "from home"}
        await rooms.publish("lobby", "last", exclude=gone)
        assert await peers[0].message() == "last"


async def test_the_order_of_each_publisher_is_kept(rooms, meet):
    async with meet(rooms, "lobby", 2) as (_, peers):

        async def publish(name):
            for number in range(100):
                await rooms.publish("lobby", f"{name} {number}")

        await asyncio.gather(*map(publish, "abc"))
        for peer in peers:
            messages = [(await peer.message()).split() for _ in range(300)]
            for name in "abc":
                assert [int(number) for who, number in messages if who == name] == list(range(100))


async def test_members_on_uvicorn_get_the_messages_of_a_page_and_of_the_program(rooms, serving_asgi, dial, ws):
    """A view beside an ASGI application, on our protocol and on another; an HTTP route publishes."""

    class Member(WebSocketView):
        async def on_open(self):
            await rooms.join(self, "lobby")
            await self.send("joined")

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await Application(Member, {})(scope, receive, send)
            return
        await rooms.publish("lobby", "from a page")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serving_asgi(app, ws=ws) as server, dial(server) as peer:
        await peer.head()
        assert await peer.message() == "joined"
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 204")
        assert await peer.message() == "from a page"
        writer.close()
        await rooms.publish("lobby", "from the program")
        assert await peer.message() == "from the program"


names, numbers = st.sampled_from(["a", "b"]), st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("join"), numbers, names),
    st.tuples(st.just("leave"), numbers, names),
    st.tuples(st.just("publish"), st.none() | numbers, names),
    st.tuples(st.just("end"), numbers, names),
)


@given(schedule=st.lists(steps, max_size=30))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_steps_gives_the_messages_of_a_model(shared_or_memory, schedule):
    """A model of sets and lists gives each member the same messages."""
    asyncio.run(_follow(shared_or_memory(), schedule))


@pytest.fixture(params=["memory", "redis"])
def shared_or_memory(request):
    if request.param == "memory":
        return Groups
    server = request.getfixturevalue("shared_redis")
    return lambda: Groups(server.url, prefix="steps:")


async def _follow(rooms, schedule):
    sinks = [Sink() for _ in range(4)]
    expected = {sink: [] for sink in sinks}
    joined = {"a": set(), "b": set()}
    for count, (step, number, name) in enumerate(schedule):
        sink = None if number is None else sinks[number]
        if step == "join":
            await rooms.join(sink, name)
            joined[name].add(sink)
        elif step == "leave":
            await rooms.leave(sink, name)
            joined[name].discard(sink)
        elif step == "end":
            sink.end()
            for members in joined.values():
                members.discard(sink)
        else:
            # Without a receiver there would be nothing to wait for, and a member that joins next might get the message.
            receivers = joined[name] - {sink} or joined[name]
            await rooms.publish(name, f"{count}", exclude=None if sink in receivers else sink)
            for member in receivers:
                expected[member].append(str(count))
            async with asyncio.timeout(10):
                while any(len(sink.messages) < len(expected[sink]) for sink in sinks):  # noqa: ASYNC110
                    await asyncio.sleep(0)
        assert {name: rooms.count(name) for name in "ab"} == {name: len(joined[name]) for name in "ab"}
    assert [sink.messages for sink in sinks] == [expected[sink] for sink in sinks]
    assert not any(sink.gaps for sink in sinks)
    await rooms.close()


async def test_a_broker_of_ones_own_needs_three_methods(log):
    """A broker consists of three methods and a handler."""

    class Echo:
        def connect(self, handler, loop):
            self.handler = handler
            return self

        async def publish(self, group, message):
            calls.append(("publish", group))
            if group == "full":
                self.handler.received(group, Message.from_bytes(message.to_bytes()))
                raise BrokerError("no answer")
            self.handler.received(group, Message.from_bytes(message.to_bytes()))

        async def subscribe(self, group):
            calls.append(("subscribe", group))

        def unsubscribe(self, group):
            calls.append(("unsubscribe", group))
            raise OSError("no broker")

    calls = []
    rooms = Groups(Echo())
    one, two = Sink(), Sink()
    await rooms.join(one, "lobby")
    await rooms.join(two, "full")
    await rooms.publish("lobby", "hello")
    await rooms.publish("lobby", "hello", exclude=one)
    await rooms.join(one, "other")
    with pytest.raises(BrokerError):
        await rooms.publish("full", "hello", exclude=two)
    one.end()
    assert one.messages == ["hello"]
    assert not two.messages, "it is excluded from a message of unknown outcome, too"
    assert calls[-2:] == [("unsubscribe", "lobby"), ("unsubscribe", "other")]
    assert list(rooms) == ["full"]
    assert [entry.message for entry in log()] == [
        f"group {name!r}: the broker has failed at the end of a membership" for name in ("lobby", "other")
    ]


def test_a_message_is_read_back_from_its_bytes():
    message = Message(2, b"\x00payload", b"8 bytes!", 7)
    copy = Message.from_bytes(message.to_bytes())
    assert (copy.opcode, copy.payload, copy.origin, copy.excluded) == (2, b"\x00payload", b"8 bytes!", 7)
    for data in (b"", b"\x01short", b"\x09" + bytes(16)):
        with pytest.raises(ValueError, match="not a message"):
            Message.from_bytes(data)


@pytest.mark.parametrize("name", ["WEB_CONCURRENCY", "DUCK_WORKERS"])
async def test_groups_in_process_warn_of_several_workers(monkeypatch, log, name):
    monkeypatch.setenv(name, "4")
    monkeypatch.setenv("DUCK_WORKER_PID", "1")  # of a worker whose child this is
    await Groups().publish("lobby", "hello")
    assert not log()
    monkeypatch.setenv("DUCK_WORKER_PID", str(os.getpid()))
    await Groups().publish("lobby", "hello")
    (entry,) = log()
    assert f"{name}=4 processes serve" in entry.message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/venv/bin/uvicorn app:app --workers 2", "--workers=2 processes serve"),
        ("/venv/site-packages/uvicorn/__main__.py --workers=3 app:app", "--workers=3 processes serve"),
        ("gunicorn -w 4 app:app", "-w=4 processes serve"),
        ("gunicorn -w4 app:app", "-w=4 processes serve"),
        ("uvicorn app:app --workers 1", None),
        ("uvicorn app:app --workers", None),
        ("train.py --workers 4", None),
        ("/home/gunicorn/train.py --workers 4", None),
    ],
)
def test_groups_in_process_warn_of_several_workers_of_other_servers(run, monkeypatch, log, line, words):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.setattr("sys.argv", line.split())
    run(Groups().publish("lobby", "hello"))
    assert [words in entry.message for entry in log()] == ([] if words is None else [True])


@pytest.mark.parametrize(
    "program",
    ["/venv/bin/duck", "/venv/site-packages/duck/__main__.py", "/venv/site-packages/duck/server/__main__.py"],
)
def test_groups_of_the_embedded_server_take_no_number_of_the_environment(run, monkeypatch, log, program):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setattr("sys.argv", [program, "serve", "app.py"])
    run(Groups().publish("lobby", "hello"))
    assert not log()


def test_a_program_in_a_folder_named_duck_is_not_the_embedded_server(run, monkeypatch, log):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setattr("sys.argv", ["/home/duck/chat.py"])
    run(Groups().publish("lobby", "hello"))
    assert ["WEB_CONCURRENCY=4 processes serve" in entry.message for entry in log()] == [True]


async def test_a_member_of_a_loop_that_has_ended_cannot_join(rooms):
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(ConnectionClosed):
        await rooms.join(Sink(loop), "lobby")


async def test_a_member_whose_loop_ends_while_it_joins_is_refused():
    """The caller is not cancelled: it gets ConnectionClosed."""
    begun = threading.Event()

    class Silent:
        def connect(self, handler, loop):
            return self

        async def subscribe(self, group):
            begun.set()
            await asyncio.get_running_loop().create_future()

    rooms, sinks = Groups(Silent()), []

    async def until_begun():
        sinks.append(Sink())
        await asyncio.to_thread(begun.wait, 10)

    other = asyncio.create_task(asyncio.to_thread(asyncio.run, until_begun()))
    while not sinks:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    with pytest.raises(ConnectionClosed):
        await rooms.join(sinks[0], "lobby")
    await other


async def test_groups_that_are_closed_while_another_loop_joins_begin_anew():
    """The first call of a loop replaces the table of all loops."""
    is_connecting, is_closed = threading.Event(), threading.Event()

    class SlowToConnect(MemoryBroker):
        def connect(self, handler, loop):
            if loop is not home:
                is_connecting.set()
                is_closed.wait(0.2)  # if the end waits for this, it comes later
            return super().connect(handler, loop)

    async def join_afar():
        await rooms.join(Sink(), "lobby")

    home = asyncio.get_running_loop()
    rooms = Groups(SlowToConnect(None))
    await rooms.join(Sink(), "lobby")
    joining = asyncio.create_task(asyncio.to_thread(asyncio.run, join_afar()))
    await asyncio.to_thread(is_connecting.wait, 10)
    await rooms.close()
    is_closed.set()
    await joining
    sink = Sink()
    await rooms.join(sink, "lobby")
    await rooms.publish("lobby", "hello")
    assert sink.messages == ["hello"]
    await rooms.close()
