"""Any program of tasks, cancellations, timeouts and contexts runs under a handler as under a task of `create_task`."""

import asyncio
from contextvars import ContextVar
from types import coroutine

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duck.contrib.websockets import WebSocketView

try:
    import anyio
except ImportError:
    anyio = None

variable = ContextVar("variable", default="unset")

LEAVES = st.one_of(
    st.just(("sleep",)),
    st.just(("cancel",)),
    st.just(("cancel later",)),
    st.just(("uncancel",)),
    st.just(("raise",)),
    st.just(("wait for what was cancelled",)),
    st.just(("gather what is done",)),
    st.just(("yield a future",)),
    st.just(("yield nothing",)),
    st.just(("add a callback",)),
    st.just(("call soon",)),
    st.just(("show the task",)),
    st.tuples(st.just("set"), st.sampled_from(["one", "other"])),
)


def deeper(programs):
    parts = st.lists(programs, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("all"), parts),
        st.tuples(st.just("set meanwhile"), programs),
        st.tuples(st.just("scope" if anyio else "try"), programs),
        st.tuples(st.just("try"), programs),
        st.tuples(st.just("try, and uncancel"), programs),
        st.tuples(st.just("timeout"), st.sampled_from([0, None]), programs),
        st.tuples(st.just("wait_for"), st.sampled_from([0, None]), programs),
        st.tuples(st.just("shield"), programs),
        st.tuples(st.just("task"), programs),
        st.tuples(st.just("group"), parts),
    )


PROGRAMS = st.recursive(LEAVES, deeper, max_leaves=8)


@coroutine
def yields(value):
    yield value


def reason(error):
    """The reason of a cancellation, except that of anyio, which names an address and the task."""
    if not isinstance(error, asyncio.CancelledError) or "cancel scope" in str(error):
        return ()
    return error.args


async def execute(program, say):
    """Runs a program, and notes its observations."""
    kind, *parts = program
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    say(kind, task.cancelling(), variable.get())
    if kind == "sleep":
        await asyncio.sleep(0)
    elif kind == "cancel":
        say("cancel", task.cancel("by itself"))
    elif kind == "cancel later":
        loop.call_soon(task.cancel, "later")
    elif kind == "uncancel":
        say("uncancel", task.uncancel())
    elif kind == "raise":
        raise ValueError
    elif kind == "wait for what was cancelled":
        other = loop.create_future()
        other.cancel("by another")
        await other
    elif kind == "gather what is done":
        done = loop.create_future()
        done.set_result(None)
        await asyncio.gather(done, return_exceptions=True)
    elif kind == "yield a future":
        await yields(loop.create_future())  # which a task refuses, because it is not awaited
    elif kind == "yield nothing":
        await yields(None)
    elif kind == "add a callback":
        task.add_done_callback(lambda task: say("called back", variable.get(), task.cancelled()))
    elif kind == "call soon":
        loop.call_soon(lambda: say("called", variable.get(), asyncio.current_task() is None))
    elif kind == "show the task":
        say("wait_for" in repr(task), task in asyncio.all_tasks(), task.done())
    elif kind == "set":
        variable.set(parts[0])
    elif kind == "set meanwhile":
        token = variable.set("meanwhile")
        try:
            await execute(parts[0], say)
        finally:
            variable.reset(token)
    elif kind == "scope":
        with anyio.CancelScope() as scope:
            scope.cancel()
            await execute(parts[0], say)
        say("cancelled", scope.cancelled_caught)
    elif kind == "all":
        for part in parts[0]:
            await execute(part, say)
    elif kind in ("try", "try, and uncancel"):
        try:
            await execute(parts[0], say)
        except BaseException as error:
            say("caught", type(error).__name__, reason(error))
            if kind == "try, and uncancel" and task.cancelling():
                say("uncancel", task.uncancel())
    elif kind == "timeout":
        async with asyncio.timeout(parts[0]):
            await execute(parts[1], say)
    elif kind == "wait_for":
        await asyncio.wait_for(execute(parts[1], say), parts[0])
    elif kind == "shield":
        await asyncio.shield(execute(parts[0], say))
    elif kind == "task":
        await loop.create_task(execute(parts[0], say))
    elif kind == "group":
        async with asyncio.TaskGroup() as group:
            for part in parts[0]:
                child = execute(part, say)
                try:
                    group.create_task(child)
                except RuntimeError:  # the group ends already, because an eager task has failed at once
                    child.close()
                    raise
    say("end of", kind, task.cancelling())


async def outcome(program, events):
    """Runs a program as the coroutine of a handler: it may do anything but leave an exception, which closes."""
    say = lambda *words: events.append(words)  # noqa: E731
    try:
        await execute(program, say)
    except BaseException as error:
        say("raised", type(error).__name__)
    say("at the end", asyncio.current_task().cancelling(), variable.get())
    return len(events)


async def result(task):
    """The result of a task, or the arguments of its cancellation, after its callbacks."""
    (found,) = await asyncio.gather(task, return_exceptions=True)
    return reason(found) if isinstance(found, asyncio.CancelledError) else found


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs=st.lists(st.tuples(PROGRAMS, st.booleans()), min_size=1, max_size=4))
def test_programs_run_under_a_handler_as_they_do_under_a_task(runner, connect, programs):
    """Runs programs one after the other on one connection, where leftovers of one would affect the next."""

    class View(WebSocketView):
        async def on_receive(self, message, opcode):
            program, keep = programs[int(message)]
            if keep:
                kept[int(message)] = asyncio.current_task()
            try:
                return await outcome(program, seen[int(message)])
            finally:
                finished[int(message)].set()

    async def scenario():
        nonlocal finished
        finished = [asyncio.Event() for _ in programs]
        expected, results = [], []
        for program, _ in programs:
            expected.append([])
            task = asyncio.create_task(outcome(program, expected[-1]))
            results.append(await result(task))
        async with connect(View) as session:
            for number, (_, keep) in enumerate(programs):
                session.peer.send(str(number))
                await finished[number].wait()
                if keep:
                    assert await result(kept[number]) == results[number]
                session.peer.ping()
                await session.peer.frame()  # so that the handler has ended
        assert seen == expected

    finished = None
    seen = [[] for _ in programs]
    kept = {}
    # Not by `run`, which fails if a task of a program lets its error be lost, at any later time.
    runner.get_loop().set_exception_handler(lambda *_: None)
    runner.run(scenario())
