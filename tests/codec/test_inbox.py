"""The queue of messages and of tasks for a client's `recv`, on both codecs."""

import asyncio

import pytest

from duck.contrib.websockets import ConnectionClosed


def inbox_of(codec, most=16, most_bytes=65536):
    """Within a loop: an inbox without a connection. It notes its calls."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    done.set_result(None)

    class Inbox(codec.Inbox):
        def __init__(self):
            super().__init__(loop, most, most_bytes, done, ConnectionClosed)
            self.calls = []
            self.thread = asyncio.Event()
            self.thread.set()

        def hold_reading(self):
            self.calls.append("hold")

        def release_reading(self):
            self.calls.append("release")

        def take_encoded(self, message):
            if message[1] == b"late":
                return None
            self.pop()
            return message[0] & 0b1111, message[1].upper()

        async def get_slowly(self, timeout, deadline):
            if self.has_ended:
                raise ConnectionClosed(4000)
            await self.thread.wait()
            self.pop()
            return 1, b"decoded"

        def expire_in(self, seconds):
            self.calls.append(seconds)
            return 1000.0

    return Inbox()


async def delivered(inbox, *payloads, opcode=1):
    """Delivers as a connection does: from a callback."""
    asyncio.get_running_loop().call_soon(inbox.deliver, [(opcode, payload) for payload in payloads])
    await asyncio.sleep(0)


async def test_a_message_may_be_awaited_in_each_way_of_a_coroutine(codec):
    inbox = inbox_of(codec)

    async def within():
        return await codec.NextMessage(inbox)

    def new():
        return codec.NextMessage(inbox)

    assert asyncio.iscoroutine(new())
    assert not asyncio.isfuture(new())
    waiting = [asyncio.ensure_future(each) for each in (within(), new(), asyncio.wait_for(new(), 10), new())]
    both = asyncio.gather(new(), new())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(inbox.waiters) == 6
    await delivered(inbox, *(b"%d" % number for number in range(6)))
    assert sorted([*await asyncio.gather(*waiting), *await both]) == ["0", "1", "2", "3", "4", "5"]
    await delivered(inbox, b"\0", opcode=2)
    message = new()
    assert await message == b"\0"
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await message
    assert not inbox.waiters
    assert not inbox.messages


async def test_an_awaitable_is_not_used_again_while_the_program_keeps_it(codec):
    inbox = inbox_of(codec)
    seen, kept = [], []

    async def receive(keeps):
        for _ in range(5):
            if keeps:
                kept.append(inbox.next(5))
                seen.append(await kept[-1])
            else:
                seen.append(await inbox.next(5))

    for keeps in (False, True, False):
        task = asyncio.ensure_future(receive(keeps))
        await asyncio.sleep(0)
        for number in range(5):
            await delivered(inbox, b"%d" % number)
        await task
    assert seen == ["0", "1", "2", "3", "4"] * 3
    assert len({id(message) for message in kept}) == 5
    for message in kept:
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await message
    message = inbox.next()
    assert (message.timeout, message.deadline, message.is_over) == (None, 0, True)


async def test_a_task_is_stepped_within_the_delivery_and_in_its_own_context(codec):
    inbox, seen = inbox_of(codec), []

    async def receive():
        while (message := await codec.NextMessage(inbox)) != "end":
            seen.append((message, asyncio.current_task() is task))

    task = asyncio.ensure_future(receive())
    await asyncio.sleep(0)

    def deliver():
        inbox.deliver([(1, b"a"), (1, b"b")])
        assert seen == [("a", True), ("b", True)]
        assert asyncio.current_task() is None
        inbox.deliver([(1, b"end")])

    asyncio.get_running_loop().call_soon(deliver)
    await task


async def test_a_cancelled_waiter_leaves_the_queue(codec):
    inbox = inbox_of(codec)
    first, second, third = (codec.NextMessage(inbox, 5) for _ in range(3))
    tasks = [asyncio.ensure_future(each) for each in (first, second)]
    await asyncio.sleep(0)
    assert inbox.calls == [5, 5]
    assert first.deadline == 1000
    assert asyncio.isfuture(third.send(None))
    third.close()
    tasks[0].cancel("a reason")
    second.fail(TimeoutError("late"))
    assert [waiter.is_over for waiter in inbox.waiters] == [True]
    await delivered(inbox, b"kept")
    with pytest.raises(asyncio.CancelledError, match="a reason"):
        await tasks[0]
    with pytest.raises(TimeoutError, match="late"):
        await tasks[1]
    assert await codec.NextMessage(inbox) == "kept"
    waiter = codec.Waiter(inbox.loop, inbox.waiters)
    assert asyncio.isfuture(waiter.send(None))
    with pytest.raises(ZeroDivisionError):
        waiter.throw(ZeroDivisionError())
    assert not inbox.waiters


@pytest.mark.parametrize("how", ["deliver", "fail"])
async def test_a_waiter_may_be_woken_before_its_task_waits(codec, how):
    """The first step of a handler may precede that of its task, which then awaits the handler's future."""

    class Handler:
        def __init__(self, awaited, future):
            self.awaited = awaited
            self.future = future

        def __await__(self):
            yield self.future
            return (yield from self.awaited)

    inbox = inbox_of(codec)
    message = codec.NextMessage(inbox)
    waiting = message.send(None)
    if how == "deliver":
        await delivered(inbox, b"early")
    else:
        message.fail(TimeoutError("late"))

    async def handler():
        return await Handler(message, waiting)

    task = asyncio.ensure_future(handler())
    if how == "deliver":
        assert await task == "early"
    else:
        with pytest.raises(TimeoutError, match="late"):
            await task


async def test_a_message_decoded_by_a_thread_is_awaited_and_the_end_raises(codec):
    inbox = inbox_of(codec)
    inbox.encoded = 0b01000000
    await delivered(inbox, b"small", b"late", opcode=0b01000001)
    assert [await codec.NextMessage(inbox) for _ in range(2)] == ["SMALL", "decoded"]
    await delivered(inbox, b"late", opcode=0b01000001)
    inbox.thread.clear()
    task = asyncio.ensure_future(codec.NextMessage(inbox))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    inbox.thread.set()
    assert await codec.NextMessage(inbox) == "decoded"
    inbox.has_ended = True
    for ends, error in (
        (None, ConnectionClosed),
        (lambda closed: closed.code == 4001, ConnectionClosed),
        (lambda closed: closed.code == 4000, StopAsyncIteration),
    ):
        with pytest.raises(error):
            await codec.NextMessage(inbox, None, ends)


@pytest.mark.parametrize(("most", "most_bytes"), [(4, 1000), (1000, 4)])
async def test_reading_pauses_beyond_the_limits(codec, most, most_bytes):
    inbox = inbox_of(codec, most, most_bytes)
    await delivered(inbox, b"a", b"b")
    await delivered(inbox, b"c", b"d")
    assert inbox.calls == []
    await delivered(inbox, b"e")
    assert inbox.calls == ["hold"]
    taken = [inbox.take() for _ in range(3)]
    assert taken == [(1, b"a"), (1, b"b"), (1, b"c")]
    assert inbox.calls == ["hold", "release"]
    assert (inbox.counted, inbox.waiting_bytes) == (2, 2)


async def test_the_value_at_the_end_of_a_coroutine_is_its_own(codec):
    """The compiled codec reuses the exception of an earlier end, unless other code refers to it."""

    def ending(message):
        with pytest.raises(StopIteration) as raised:
            message.send(None)
        return raised.value

    inbox = inbox_of(codec)
    await delivered(inbox, b"a", b"b", b"c")
    ends = [ending(codec.NextMessage(inbox)) for _ in range(2)]
    assert await inbox.next() == "c"
    await delivered(inbox)
    assert [end.value for end in ends] == ["a", "b"]
