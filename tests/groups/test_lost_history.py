"""Histories that a broker loses, replaces or does not give: gaps are reported, and no message comes twice."""

import asyncio

import pytest

from duck.contrib.websockets import OpCode
from duck.contrib.websockets.groups import BrokerError, Groups
from duck.contrib.websockets.groups.broker import Message, MessageId, Past

from .sink import Sink


class Restarted:
    """A broker that restarts unnoticed by its connection: its history was empty, and then has three messages."""

    def __init__(self):
        self.positions = [None, MessageId("new", 0, 3)]

    def connect(self, handler, loop):
        self.handler = handler
        return self

    async def position(self, group):
        return self.positions.pop(0)

    async def after(self, group, since):
        return Past([], since == MessageId("new", 0, 3))

    async def subscribe(self, group):
        pass

    def unsubscribe(self, group):
        pass

    async def close(self):
        pass

    def close_sync(self):
        pass


async def test_a_later_member_does_not_hide_a_gap_of_the_first(until):
    """The position in the history is that before the first member."""
    broker = Restarted()
    rooms = Groups(broker, history=1000)
    one, two = Sink(), Sink()
    await rooms.join(one, "lobby")
    await rooms.join(two, "lobby")
    broker.handler.interrupted("lobby")
    await until(lambda: one.gaps and two.gaps)
    await rooms.close()


class Silent(Restarted):
    """A broker that does not answer requests for its history."""

    async def after(self, group, since):
        await asyncio.Event().wait()


@pytest.mark.in_memory
async def test_a_broker_without_an_answer_is_the_logged_reason_for_a_missing_history(caplog):
    caplog.set_level("INFO", "duck")
    rooms = Groups(Silent(), history=1000)
    assert not await rooms.join(Sink(), "lobby", since="new.0-1")
    await rooms.close()
    assert "group 'lobby': a joining member gets no history: no answer" in caplog.messages


class Ended(Restarted):
    """A broker whose connection ends while the history is read."""

    def __init__(self):
        self.positions = [MessageId("one", 0, 2)]
        self.asked, self.ended = asyncio.Event(), asyncio.Event()

    async def after(self, group, since):
        self.asked.set()
        await self.ended.wait()
        raise BrokerError("closed")

    async def close(self):
        self.ended.set()


@pytest.mark.in_memory
async def test_members_of_closed_groups_are_told_of_no_gap_and_get_no_message():
    broker = Ended()
    rooms = Groups(broker, history=1000)
    one = Sink()
    await rooms.join(one, "lobby")
    broker.handler.interrupted("lobby")
    await broker.asked.wait()
    broker.handler.received("lobby", message_at(3))
    await rooms.close()
    assert (one.gaps, one.messages) == ([], [])


class OlderCopy(Restarted):
    """A broker that takes over with an older copy of the history and a slow clock, after its fourth message."""

    def __init__(self):
        self.positions = [MessageId("one", 0, 2)]
        self.pasts = [Past([message_at(3), message_at(4)], True)] * 2 + [Past([], False)]

    async def after(self, group, since):
        return self.pasts.pop(0)


def message_at(number):
    message = Message(OpCode.TEXT, str(number).encode())
    message.id = MessageId("one", 0, number)
    return message


async def test_messages_after_a_lost_history_are_delivered_though_their_ids_go_back(until):
    broker = OlderCopy()
    rooms = Groups(broker, history=1000)
    one, late = Sink(), Sink()
    await rooms.join(one, "lobby")
    broker.handler.interrupted("lobby")
    await until(lambda: one.messages == ["3", "4"])
    await rooms.join(late, "lobby", since="one.0-2")
    broker.handler.interrupted("lobby")
    await until(lambda: one.gaps and late.gaps)
    broker.handler.received("lobby", message_at(3))
    assert one.messages == late.messages == ["3", "4", "3"]
    await rooms.close()


class WithoutTheLast(Restarted):
    """A broker that takes over without the last of four messages, which a joining member has got from the history."""

    def __init__(self):
        self.positions = [MessageId("one", 0, 2)]
        self.pasts = [Past([message_at(3), message_at(4)], True), Past([message_at(3)], True)]

    async def after(self, group, since):
        return self.pasts.pop(0)


async def test_a_gap_is_reported_to_a_member_that_has_got_a_lost_message_from_the_history_alone(until):
    """The other member has not got the message: it catches up, and has no gap. The server assigns the lost id again."""
    broker = WithoutTheLast()
    rooms = Groups(broker, history=1000)
    one, late = Sink(), Sink()
    await rooms.join(one, "lobby")
    await rooms.join(late, "lobby", since="one.0-2")
    broker.handler.interrupted("lobby")
    await until(lambda: late.gaps)
    broker.handler.received("lobby", message_at(4))
    assert one.messages == ["3", "4"]
    assert late.messages == ["3", "4", "4"]
    assert one.gaps == []
    await rooms.close()


class WithTheFirst(WithoutTheLast):
    """A broker that takes over with the first of four messages alone."""

    def __init__(self):
        super().__init__()
        self.pasts[1:] = [Past([], False), Past([message_at(1)], True)]


async def test_lost_ids_that_are_assigned_again_reach_a_member_that_has_got_them_from_the_history_alone(until):
    broker = WithTheFirst()
    rooms = Groups(broker, history=1000)
    one, late = Sink(), Sink()
    await rooms.join(one, "lobby")
    await rooms.join(late, "lobby", since="one.0-2")
    broker.handler.interrupted("lobby")
    await until(lambda: one.gaps and late.gaps)
    broker.handler.received("lobby", message_at(2))
    assert one.messages == ["2"]
    assert late.messages == ["3", "4", "2"]
    await rooms.close()


class SlowToAnswer(Restarted):
    """A broker whose answer to a catch-up comes late. It answers joining members at once."""

    def __init__(self, *pasts):
        self.positions = [MessageId("old", 0, 2)]
        self.pasts = pasts
        self.is_asked = asyncio.Event()
        self.answers = asyncio.Event()

    async def after(self, group, since):
        if since is None:
            return Past([message_of("new", 4), message_of("new", 5)], True)
        self.is_asked.set()
        await self.answers.wait()
        past, *self.pasts = self.pasts
        return past


async def test_a_member_that_joins_while_others_catch_up_on_a_lost_history_gets_no_message_twice(until):
    broker = SlowToAnswer(Past([], False))
    rooms = Groups(broker, history=1000)
    one, late = Sink(), Sink()
    await rooms.join(one, "lobby")
    broker.handler.interrupted("lobby")
    for time in (4, 5):
        broker.handler.received("lobby", message_of("new", time))
    await rooms.join(late, "lobby", since="")
    broker.answers.set()
    await until(lambda: one.gaps and late.gaps)
    broker.handler.received("lobby", message_of("new", 6))
    assert one.messages == late.messages == ["new 4", "new 5", "new 6"]
    await rooms.close()


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_gap_during_the_catch_up_on_another_one(is_lost, until):
    """A message from between the gaps comes from the history, also for a member that has it; or the gap is reported."""
    messages = [message_of("new", time) for time in range(3, 8)]
    broker = SlowToAnswer(Past(messages[:2], True), Past([], False) if is_lost else Past(messages, True))
    rooms = Groups(broker, history=1000)
    one, late = Sink(), Sink()
    await rooms.join(one, "lobby")
    broker.handler.interrupted("lobby")
    await broker.is_asked.wait()
    broker.handler.received("lobby", messages[1])
    await rooms.join(late, "lobby", since="")
    broker.handler.interrupted("lobby")
    broker.handler.received("lobby", messages[4])
    broker.answers.set()
    await until(lambda: one.messages)
    assert one.messages == [f"new {time}" for time in ([7] if is_lost else range(3, 8))]
    assert late.messages == ["new 4", "new 5", *(f"new {time}" for time in ([7] if is_lost else [6, 7]))]
    assert one.gaps == late.gaps == (["lobby"] if is_lost else [])
    await rooms.close()


class Flushed(Restarted):
    """A server whose histories are deleted (FLUSHALL) between the subscription of a member and its history."""

    def __init__(self):
        self.positions = [None]

    async def after(self, group, since):
        self.handler.received(group, message_of("old", 1))
        return Past([message_of("new", 3)], True)


def message_of(epoch, time):
    message = Message(OpCode.TEXT, f"{epoch} {time}".encode())
    message.id = MessageId(epoch, time, 0)
    return message


async def test_messages_of_a_deleted_history_precede_those_of_the_next_and_none_is_repeated():
    broker, member = Flushed(), Sink()
    rooms = Groups(broker, history=1000)
    await rooms.join(member, "lobby", since="")
    assert member.messages == ["old 1", "new 3"]
    for message in (message_of("old", 2), message_of("new", 3), message_of("new", 4)):
        broker.handler.received("lobby", message)
    assert member.messages[2:] == ["old 2", "new 4"]
    await rooms.close()


async def test_a_history_that_came_before_the_notice_of_a_gap_is_not_delivered_twice(until):
    """Commands and subscriptions have separate connections, so that the history may be from after the gap."""
    broker = SlowToAnswer(Past([], False))
    rooms = Groups(broker, history=1000)
    one, late = Sink(), Sink()
    await rooms.join(one, "lobby")
    await rooms.join(late, "lobby", since="")
    broker.handler.interrupted("lobby")
    for time in (4, 5, 6):
        broker.handler.received("lobby", message_of("new", time))
    broker.answers.set()
    await until(lambda: one.gaps and late.gaps)
    assert one.messages == late.messages == ["new 4", "new 5", "new 6"]
    await rooms.close()


class LostAgain(SlowToAnswer):
    """A broker that answers the first catch-up, and is away at the second."""

    async def after(self, group, since):
        if not self.pasts:
            raise BrokerError("it is away")
        return await super().after(group, since)


async def test_a_second_gap_is_reported_if_the_history_cannot_be_read_again(until):
    broker = LostAgain(Past([], True))
    rooms = Groups(broker, history=1000)
    member = Sink()
    await rooms.join(member, "lobby")
    broker.handler.interrupted("lobby")
    await broker.is_asked.wait()
    broker.handler.received("lobby", message_of("old", 3))
    broker.handler.interrupted("lobby")
    broker.answers.set()
    await until(lambda: member.gaps)
    await rooms.close()


class SlowPosition(Restarted):
    """A broker whose position comes late. It notes its subscriptions."""

    def __init__(self, past):
        self.past = past
        self.answers = asyncio.Event()
        self.subscribed = set()

    async def position(self, group):
        await self.answers.wait()
        return MessageId("old", 0, 2)

    async def after(self, group, since):
        return self.past

    async def subscribe(self, group):
        self.subscribed.add(group)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.handler.interrupted(group)
            raise

    def unsubscribe(self, group):
        self.subscribed.discard(group)


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_member_whose_join_ends_before_the_subscription_catches_up_or_is_told(is_kept, until):
    broker = SlowPosition(Past([message_of("old", 3)] if is_kept else [], is_kept))
    rooms = Groups(broker, history=1000, timeout=0.01)
    member = Sink()
    await rooms.join(member, "lobby")
    assert not broker.subscribed
    broker.answers.set()
    await until(lambda: member.messages or member.gaps)
    assert (member.messages, member.gaps) == ((["old 3"], []) if is_kept else ([], ["lobby"]))
    await rooms.close()


async def test_a_member_that_leaves_before_its_late_subscription_leaves_none_behind(until):
    broker = SlowPosition(Past([], True))
    rooms = Groups(broker, history=1000, timeout=0.01)
    member = Sink()
    await rooms.join(member, "lobby")
    await rooms.leave(member, "lobby")
    broker.answers.set()
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert not broker.subscribed
    await rooms.close()


class SlowHistory(Restarted):
    """A broker whose histories come when they are asked for; all joins wait for them."""

    def __init__(self):
        self.positions = [None]
        self.asked = 0
        self.answers = asyncio.Event()

    async def after(self, group, since):
        self.asked += 1
        await self.answers.wait()
        return Past([message_of("new", 1)] if since is None else [], True)


async def test_a_member_that_leaves_during_its_join_and_joins_again_gets_the_history_of_the_second_join(until):
    broker = SlowHistory()
    rooms = Groups(broker, history=1000)
    other, member = Sink(), Sink()
    await rooms.join(other, "lobby")
    joins = [asyncio.create_task(rooms.join(member, "lobby", since=""))]
    await until(lambda: broker.asked == 1)
    await rooms.leave(member, "lobby")
    joins.append(asyncio.create_task(rooms.join(member, "lobby", since="new.1-0")))
    await until(lambda: broker.asked == 2)
    broker.answers.set()
    await asyncio.gather(*joins)
    assert member.messages == []
    await rooms.close()
