"""Presence on each of the brokers: the members of a group in all processes, and announcements of changes."""

import asyncio
import json
import threading

import pytest

from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.history import History, MemoryHistory
from duck.contrib.websockets.groups.memory import MemoryBroker
from duck.contrib.websockets.groups.presence import changes
from duck.contrib.websockets.groups.redis.presence import RedisPresence

from .sink import Sink


def announce(change):
    """Makes a text of the data of those that joined and left."""
    return json.dumps({"+": [one.data for one in change.joined], "-": [one.data for one in change.left]})


def told(sink):
    """The data of all who have joined, and of all who have left, as a member was told."""
    messages = [json.loads(message) for message in sink.messages]
    return [one for each in messages for one in each["+"]], [one for each in messages for one in each["-"]]


async def data_of(rooms, group="lobby"):
    return sorted(one.data for one in await rooms.presence(group))


@pytest.fixture(params=["memory", "redis"])
def new_rooms(request):
    """Makes groups whose changes are announced; those of one test share their presence."""
    if request.param == "memory":
        groups = Groups(announce=announce)
        return lambda: groups
    server = request.getfixturevalue("shared_redis")
    prefix = f"{request.node.name}:"
    return lambda: Groups(server.url, prefix=prefix, announce=announce)


async def test_presence_lists_members_of_all_processes(new_rooms, until):
    here, there = new_rooms(), new_rooms()
    anne, bert, carl, mute = Sink(), Sink(), Sink(), Sink()
    assert await here.presence("lobby") == []
    await here.join(anne, "lobby", data="anne")
    await there.join(bert, "lobby", data="bert")
    await there.join(mute, "lobby")
    await here.join(carl, "lobby", data="carl")
    await here.join(carl, "other", data=["carl", {"of": "other"}])
    for rooms in (here, there):
        assert await data_of(rooms) == ["anne", "bert", "carl"]
        assert await data_of(rooms, "other") == [["carl", {"of": "other"}]]
    before = {one.id for one in await here.presence("lobby")}
    await there.join(bert, "lobby", data="bert, away")
    assert {one.id for one in await here.presence("lobby")} == before
    await here.leave(carl, "lobby")
    bert.end()
    await until(lambda: len(told(mute)[1]) == 2)
    await until(lambda: len(told(anne)[1]) == 2)
    assert told(anne) == (["anne", "bert", "carl", "bert, away"], ["carl", "bert, away"])
    assert sorted(told(bert)[0]) == ["bert", "bert, away", "carl"]
    assert await data_of(there) == ["anne"]
    assert ["carl", {"of": "other"}] in told(carl)[0]
    await here.close()
    await there.close()


async def test_the_end_of_all_members_at_once_is_announced(new_rooms, until):
    here, there = new_rooms(), new_rooms()
    watcher, sinks = Sink(), [Sink() for _ in range(50)]
    await here.join(watcher, "lobby")
    await asyncio.gather(*(there.join(sink, "lobby", data=at) for at, sink in enumerate(sinks)))
    await until(lambda: len(told(watcher)[0]) == 50)
    for sink in sinks:
        sink.end()
    await until(lambda: len(told(watcher)[1]) == 50)
    assert [sorted(each) for each in told(watcher)] == [list(range(50))] * 2
    assert await here.presence("lobby") == []
    await there.close()
    await here.close()


def test_members_of_a_loop_that_has_ended_are_gone():
    rooms = Groups(announce=announce)

    async def join():
        await rooms.join(Sink(), "lobby", data="of another loop")
        assert await data_of(rooms) == ["of another loop"]

    async def look():
        sink = Sink()
        await rooms.join(sink, "lobby", data="here")
        assert await data_of(rooms) == ["here"]

    thread = threading.Thread(target=lambda: asyncio.run(join()))
    thread.start()
    thread.join()
    asyncio.run(look())


async def test_invalid_data_and_brokers_are_refused(log):
    class Broker:
        def connect(self, handler, loop):
            return object()

    def broken(change):
        raise ArithmeticError("on purpose")

    rooms = Groups(announce=broken)
    sink = Sink()
    for data, error in (("x" * 1100, ValueError), ({1, 2}, TypeError), (float("nan"), ValueError)):
        with pytest.raises(error):
            await rooms.join(sink, "lobby", data=data)
    assert rooms.count("lobby") == 0
    with pytest.raises(ValueError, match="keeps no presence"):
        await Groups(Broker()).join(sink, "lobby", data=1)
    with pytest.raises(ValueError, match="keeps no presence"):
        await Groups(Broker()).presence("lobby")
    with pytest.raises(ValueError, match="presence_ttl"):
        Groups(presence_ttl=0)
    await rooms.join(sink, "lobby", data=1)
    (entry,) = log()
    assert "cannot be announced" in entry.message
    assert await data_of(rooms) == [1]


def test_many_changes_are_announced_in_parts():
    joined, left = (
        {f"{kind}.{number}": f'"{number}"' for number in range(count)} for kind, count in (("a", 600), ("b", 1))
    )
    parts = list(changes("lobby", joined, left))
    assert [(len(part.joined), len(part.left)) for part in parts] == [(250, 1), (250, 0), (100, 0)]
    assert [one.data for part in parts for one in part.joined] == [str(number) for number in range(600)]


# On Redis alone


def test_the_end_of_a_loop_ends_the_presence_of_its_members(shared_redis, log):
    """The loop of a stopped server ends so; presence ends without the lease."""

    def new_rooms():
        return Groups(shared_redis.url, prefix="end:", history=1)

    async def visit():
        rooms = new_rooms()
        sinks = [Sink() for _ in range(3)]
        for at, sink in enumerate(sinks):
            await rooms.join(sink, "lobby", data=at)
        sinks[0].end()
        tasks.append(asyncio.create_task(stay(rooms, sinks[1])))
        await asyncio.sleep(0)

    async def stay(rooms, sink):
        try:
            await asyncio.get_running_loop().create_future()
        finally:  # the loop has ended the tasks of the groups, and ends no later ones
            sink.end()
            published.append(await rooms.publish("lobby", "bye"))

    async def look():
        rooms = new_rooms()
        present = await rooms.presence("lobby")
        await rooms.close()
        return present

    tasks, published = [], []
    asyncio.run(visit())
    assert published[0]
    assert not log()
    assert asyncio.run(look()) == []


async def commands(server):
    calls = await server.ask("INFO", "commandstats")
    return sum(calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


@pytest.fixture
def quick_renewals(monkeypatch):
    """Leases are renewed many times before they end, even on a machine that stops for seconds."""
    monkeypatch.setattr(RedisPresence, "_interval", lambda self: 0.05)


def presence_of(rooms):
    return rooms._hubs[asyncio.get_running_loop()].connection._presence


async def leases(server):
    """The ends of the leases of a group, by their owners."""
    owners = await server.ask("ZRANGE", "{duck:lobby}:leases", 0, -1)
    return {owner: float(await server.ask("ZSCORE", "{duck:lobby}:leases", owner)) for owner in owners}


async def end_lease(server, owner):
    """Ends a lease that is not renewed, as the server's clock would."""
    await server.ask("ZADD", "{duck:lobby}:leases", "XX", 0, owner)


async def hang_up(rooms):
    """Ends connections as the end of their process would, without a command to the server; returns their owner."""
    presence = presence_of(rooms)
    channels = rooms._hubs.pop(asyncio.get_running_loop()).connection._channels
    presence._is_away = True  # it does not take leave
    tasks = [part._task for part in (presence, channels.publisher, channels.subscriber)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return presence._owner


def end_gap(rooms):
    """Ends the time for which missing entries are kept after a gap, as the loop's clock would."""
    watched = presence_of(rooms)._watched[b"duck:lobby"]
    assert watched.settles <= asyncio.get_running_loop().time() + 30  # the default of `presence_ttl`
    watched.settles = 0.0


@pytest.mark.usefixtures("quick_renewals")
async def test_the_members_of_a_dead_process_leave_once(own_redis, until):
    """The remaining members get one announcement, although each of three processes renews its lease."""
    own_redis.start()
    made = [Groups(own_redis.url, announce=announce) for _ in range(3)]
    sinks = [Sink() for _ in made]
    for at, (rooms, sink) in enumerate(zip(made, sinks, strict=True)):
        await rooms.join(sink, "lobby", data=at or None)
    for at in range(10, 30):
        await made[2].join(Sink(), "lobby", data=at)
    for sink in sinks[:2]:
        await until(lambda sink=sink: len(told(sink)[0]) >= 20)
    await end_lease(own_redis, await hang_up(made[2]))
    for sink in sinks[:2]:
        await until(lambda sink=sink: told(sink)[1])
    assert await data_of(made[0]) == [1]
    await end_lease(own_redis, await hang_up(made[1]))
    await until(lambda: 1 in told(sinks[0])[1])  # no present member remains, only one that is told
    renewed = await commands(own_redis)
    while await commands(own_redis) < renewed + 3:
        pass
    assert sorted(told(sinks[0])[1]) == [1, 2, *range(10, 30)]
    assert sorted(told(sinks[1])[1]) == [2, *range(10, 30)]
    await made[0].close()


@pytest.mark.usefixtures("quick_renewals")
async def test_a_lease_that_is_not_renewed_ends(shared_redis, until):
    here = Groups(shared_redis.url, prefix="lease:", announce=announce, presence_ttl=3)
    there = Groups(shared_redis.url, prefix="lease:", presence_ttl=0.2)
    watcher = Sink()
    await here.join(watcher, "lobby")
    await there.join(Sink(), "lobby", data="there")
    await until(lambda: told(watcher)[0])
    await hang_up(there)
    while await data_of(here):
        pass
    await until(lambda: len(told(watcher)[0]) == len(told(watcher)[1]))  # more than one if the machine has stopped
    await here.close()


@pytest.mark.usefixtures("quick_renewals")
async def test_members_whose_entries_have_ended_at_the_server_leave(own_redis, until):
    """Entries end by themselves if the server or all processes have stopped for longer than the lease."""
    own_redis.start()
    here, there = (Groups(own_redis.url, announce=announce) for _ in range(2))
    watcher = Sink()
    await here.join(watcher, "lobby", data="here")
    await there.join(Sink(), "lobby", data="there")
    await until(lambda: "there" in told(watcher)[0])
    await hang_up(there)
    await own_redis.ask("DEL", "{duck:lobby}:presence", "{duck:lobby}:leases")
    await until(lambda: presence_of(here)._watched[b"duck:lobby"].settles)
    end_gap(here)
    await until(lambda: told(watcher)[1])
    assert told(watcher) == (["here", "there"], ["there"])
    assert await data_of(here) == ["here"]
    await here.close()


@pytest.mark.usefixtures("quick_renewals")
async def test_leases_are_renewed_while_the_memory_is_full(own_redis):
    own_redis.start()
    made = [Groups(own_redis.url, announce=announce) for _ in range(2)]
    sinks = [Sink() for _ in made]
    for at, (rooms, sink) in enumerate(zip(made, sinks, strict=True)):
        await rooms.join(sink, "lobby", data=at)
    await own_redis.ask("CONFIG", "SET", "maxmemory", 1)
    before = await leases(own_redis)
    assert len(before) == 2
    while any(end <= before[owner] for owner, end in (await leases(own_redis)).items()):
        pass
    assert await data_of(made[0]) == await data_of(made[1]) == [0, 1]
    assert not told(sinks[0])[1]
    for rooms in made:
        await rooms.close()


async def test_staying_present_costs_a_command_for_a_group(own_redis):
    """A renewal costs one command for a group, for any number of members."""
    own_redis.start()
    rooms = Groups(own_redis.url, presence_ttl=0.6)
    for at in range(100):
        await rooms.join(Sink(), f"room {at % 2}", data=at)
    before = await commands(own_redis)
    while (cost := await commands(own_redis) - before) < 2:
        pass
    assert cost < 50
    while len(await rooms.presence("room 1")) != 50:  # a machine that stops for longer lets the lease end
        pass
    await rooms.close()


@pytest.mark.usefixtures("quick_renewals")
async def test_entries_return_to_a_server_that_has_lost_its_data(own_redis, until):
    """The entries return, without an announcement of members who left or joined."""
    own_redis.start()
    made = [Groups(own_redis.url, announce=announce) for _ in range(2)]
    sinks = [Sink() for _ in made]
    for at, (rooms, sink) in enumerate(zip(made, sinks, strict=True)):
        await rooms.join(sink, "lobby", data=at)
    await until(lambda: len(told(sinks[0])[0]) == 2)
    own_redis.kill()
    own_redis.start()
    for sink in sinks:
        await until(lambda sink=sink: sink.gaps)
    late = Sink()
    await made[0].join(late, "lobby", data=2)
    assert await data_of(made[0]) == [0, 1, 2]
    await until(lambda: len(told(sinks[1])[0]) == 2)
    while len(await leases(own_redis)) < len(made):
        pass
    for rooms in made:
        end_gap(rooms)
        watched = presence_of(rooms)._watched[b"duck:lobby"]
        await until(lambda watched=watched: watched.settles is None)
    assert [told(sink) for sink in sinks] == [([0, 1, 2], []), ([1, 2], [])]
    assert [await data_of(rooms) for rooms in made] == [[0, 1, 2]] * 2
    for rooms in made:
        await rooms.close()


@pytest.mark.usefixtures("quick_renewals")
async def test_missed_changes_are_announced_later(own_redis, until):
    """A process without its connections for a while: some have joined, some have left, and its own were removed."""
    own_redis.start()
    here = Groups(own_redis.url, announce=announce)
    there = Groups(own_redis.url, announce=announce)
    watcher, other, leaver = Sink(), Sink(), Sink()
    await here.join(watcher, "lobby", data="watcher")
    await there.join(other, "lobby", data="other")
    await there.join(leaver, "lobby", data="leaver")
    await until(lambda: len(told(watcher)[0]) == 3)
    server = here._broker.server
    port, server._options["port"] = server._options["port"], 1
    await kill_all(own_redis)
    await until(lambda: presence_of(there)._watched[b"duck:lobby"].settles)  # it is subscribed again
    await end_lease(own_redis, presence_of(here)._owner)
    await until(lambda: told(other)[1] == ["watcher"])
    leaver.end()
    await there.join(Sink(), "lobby", data="late")
    timeout, server.timeout = server.timeout, 0.05
    with pytest.raises(BrokerError):
        await here.presence("lobby")
    server._options["port"], server.timeout = port, timeout
    await until(lambda: "late" in told(watcher)[0] and watcher.gaps)  # commands and subscriptions return separately
    end_gap(here)
    await until(lambda: told(watcher)[1])
    await until(lambda: told(other)[0].count("watcher") == 1)
    assert told(watcher) == (["watcher", "other", "leaver", "late"], ["leaver"])
    assert await data_of(here) == await data_of(there) == ["late", "other", "watcher"]
    await here.close()
    await there.close()


async def kill_all(server):
    await server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


class SlowToSubscribe(MemoryBroker):
    """A broker in this process whose subscriptions take their time."""

    def __init__(self):
        super().__init__(None)
        self.answers = asyncio.Event()

    def connect(self, handler, loop):
        connection = super().connect(handler, loop)
        subscribe = connection.subscribe

        async def subscribe_later(group):
            await self.answers.wait()
            await subscribe(group)

        connection.subscribe = subscribe_later
        return connection


@pytest.mark.parametrize("options", [{}, {"since": ""}])
async def test_a_member_that_leaves_during_its_join_and_joins_again_is_present_once(options, until):
    broker = SlowToSubscribe()
    broker.history = MemoryHistory(History(10, 60))
    rooms = Groups(broker, announce=announce, history=10)
    member, other = Sink(), Sink()
    joins = [asyncio.create_task(rooms.join(other, "lobby"))]
    joins.append(asyncio.create_task(rooms.join(member, "lobby", data="gone", **options)))
    await until(lambda: rooms.count("lobby") == 2)
    await rooms.leave(member, "lobby")
    joins.append(asyncio.create_task(rooms.join(member, "lobby", data="here", **options)))
    await until(lambda: rooms.count("lobby") == 2)
    broker.answers.set()
    await asyncio.gather(*joins)
    assert told(other) == (["here"], [])
    await rooms.close()


async def test_the_server_keeps_nothing_of_a_group_whose_present_members_have_left(shared_redis):
    rooms = Groups(shared_redis.url, prefix="ended:", presence_ttl=0.1)
    member = Sink()
    await rooms.join(member, "lobby", data="here")
    await rooms.leave(member, "lobby")
    while await shared_redis.ask("KEYS", "*ended:*"):
        pass
    await rooms.close()


async def test_a_member_whose_join_is_cancelled_before_the_subscription_learns_of_changes(shared_redis, until):
    here, there = (Groups(shared_redis.url, prefix="cancelled:", announce=announce) for _ in range(2))
    member, other = Sink(), Sink()
    join = asyncio.create_task(here.join(member, "lobby"))
    await until(lambda: here.count("lobby"))
    join.cancel()
    await asyncio.wait([join])
    await there.join(other, "lobby", data="there")
    await until(lambda: told(member) == (["there"], []))
    await here.close()
    await there.close()
