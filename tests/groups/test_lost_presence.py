"""Entries that a Redis server loses or brings back: lists and announced changes stay consistent."""

import asyncio

from duck.contrib.websockets.groups.presence import PresenceOptions
from duck.contrib.websockets.groups.redis.presence import _READ, MARK, RedisPresence


async def test_the_end_of_an_entry_is_announced_though_only_the_list_had_it(until):
    """The change by which the entry joined was lost in a gap."""
    entries = [b"ab.1", b'"anne"']
    left = []

    async def execute(channel, command, script, *arguments):
        return [[b"ab"], list(entries)] if script == _READ else 1

    options = PresenceOptions(0.01, is_watched=True)
    presence = RedisPresence(options, "cd", "PUBLISH", execute, execute, lambda *change: left.extend(change[2]))
    presence.watch(b"lobby")
    assert await presence.present(b"lobby") == {"ab.1": '"anne"'}
    entries.clear()
    presence.interrupted(b"lobby")
    await until(lambda: left == ["ab.1"])
    presence.unwatch(b"lobby")
    await presence.close()


async def test_an_older_copy_of_the_server_brings_back_nobody_for_a_process_without_present_members(until):
    """The server has a lease of the process, so that a renewal would keep the entries that the copy has with it."""
    modes = []

    async def execute(channel, command, script, *arguments):
        if script == _READ:
            return [[b"cd"], [b"cd.1", b'"gone"']]
        modes.append(arguments[6])
        return 1

    presence = RedisPresence(PresenceOptions(0.01, True), "cd", "PUBLISH", execute, execute, lambda *change: None)
    await presence.fill(b"lobby", presence.watch(b"lobby"))
    await until(lambda: "replace" in modes)
    presence.unwatch(b"lobby")
    await presence.close()


async def test_a_list_that_comes_after_the_last_member_has_left_announces_nothing():
    """A member that joins meanwhile would be told of the entries a second time."""
    is_asked, answers = asyncio.Event(), asyncio.Event()
    reports = []

    async def execute(channel, command, script, *arguments):
        if script != _READ:
            return 1
        is_asked.set()
        await answers.wait()
        return [[b"ab"], [b"ab.1", b'"anne"']]

    options = PresenceOptions(30, is_watched=True)
    presence = RedisPresence(options, "cd", "PUBLISH", execute, execute, lambda *change: reports.append(change))
    presence.watch(b"lobby")
    listed = asyncio.create_task(presence.present(b"lobby"))
    await is_asked.wait()
    presence.unwatch(b"lobby")
    answers.set()
    assert await listed == {"ab.1": '"anne"'}
    assert reports == []
    await presence.close()


async def test_a_list_has_the_changes_that_were_announced_while_it_was_read():
    """The server has read it before, but its answer comes later than the announcements."""
    is_asked, answers = asyncio.Event(), asyncio.Event()

    async def execute(channel, command, script, *arguments):
        if script != _READ:
            return 1
        is_asked.set()
        await answers.wait()
        return [[b"ab"], [b"ab.1", b'"anne"', b"ab.2", b'"bert"']]

    async def execute_last(commands):
        assert [*commands] == [b"lobby"]

    options = PresenceOptions(30, is_watched=True)
    presence = RedisPresence(options, "cd", "PUBLISH", execute, execute_last, lambda *change: None)
    watched = presence.watch(b"lobby")
    filling = asyncio.create_task(presence.fill(b"lobby", watched))
    await is_asked.wait()
    presence.received(b"lobby", MARK + b'[["ab.3", "\\"cleo\\""], ["ab.1"]]')
    answers.set()
    await filling
    assert watched.reads == []
    assert watched.entries == {"ab.2": '"bert"', "ab.3": '"cleo"'}
    assert await presence.present(b"lobby") == {"ab.1": '"anne"', "ab.2": '"bert"'}
    presence.unwatch(b"lobby")
    await presence.close()


async def test_a_gap_at_the_end_of_the_groups_starts_nothing_again():
    """The last entries are still being removed when a server that was away has confirmed a subscription."""
    before = asyncio.all_tasks()
    is_asked, answers = asyncio.Event(), asyncio.Event()

    async def execute(channel, *command):
        return 1

    async def execute_last(commands):
        is_asked.set()
        await answers.wait()

    options = PresenceOptions(30, is_watched=True)
    presence = RedisPresence(options, "cd", "PUBLISH", execute, execute_last, lambda *change: None)
    await presence.enter(b"lobby", "cd.1", '"anne"')
    closing = asyncio.create_task(presence.close())
    await is_asked.wait()
    presence.interrupted(b"lobby")
    answers.set()
    await closing
    assert asyncio.all_tasks() == before
