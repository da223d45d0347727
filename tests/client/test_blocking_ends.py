"""The client in synchronous code: the ends of its block, loop, process and program, also by signals."""

import asyncio
import os
import signal
import sys
import threading
import warnings

import pytest

from duck.contrib.websockets import CloseCode, ConnectionClosed
from duck.contrib.websockets.client import connect
from duck.contrib.websockets.client.loop_thread import LoopThread

from ..support.views import Echo

SECONDS = 20  # of waits that a failure would prolong


def test_a_call_that_waits_at_the_end_of_the_loop_goes_on_after_it():
    calls = []

    async def method():
        calls.append(threading.current_thread())
        if len(calls) == 1:
            begun.set()
            await asyncio.sleep(SECONDS)

    begun, thread = threading.Event(), LoopThread()
    caller = threading.Thread(target=lambda: thread.call(method))
    caller.start()
    assert begun.wait(SECONDS)
    thread.end()
    caller.join(SECONDS)
    assert calls[1:] == [caller]


def test_an_interrupted_call_ends_in_the_loop(monkeypatch):
    ended = threading.Event()

    async def method():
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ended.set()

    thread = LoopThread()
    schedule = thread._loop.call_soon_threadsafe

    def interrupted(callback):
        monkeypatch.undo()
        schedule(callback)
        raise KeyboardInterrupt

    monkeypatch.setattr(thread._loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.call(method)
    assert ended.wait(SECONDS)
    thread.end()


def test_a_signal_handler_may_call_a_method_while_another_call_begins(monkeypatch):
    thread, results = LoopThread(), []
    schedule = thread._loop.call_soon_threadsafe

    def handler(callback):
        monkeypatch.undo()
        results.append(thread.call(asyncio.sleep, 0, "handler"))
        schedule(callback)

    monkeypatch.setattr(thread._loop, "call_soon_threadsafe", handler)
    caller = threading.Thread(target=lambda: results.append(thread.call(asyncio.sleep, 0, "call")), daemon=True)
    caller.start()
    caller.join(SECONDS)
    assert results == ["handler", "call"]
    thread.end()


def test_an_interrupted_start_leaves_no_thread(monkeypatch):
    started, start = [], threading.Thread.start

    def interrupted(thread):
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            LoopThread()
    started[0].join(SECONDS)
    assert not started[0].is_alive()


def fork():
    """Forks a process with several threads, of which Python warns."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return os.fork()


def test_a_child_process_has_no_loop_to_call():
    thread, forked, locked = LoopThread(), threading.Event(), threading.Event()

    def hold():
        with thread._lock:
            locked.set()
            forked.wait(SECONDS)

    other = threading.Thread(target=hold)
    other.start()
    locked.wait(SECONDS)
    child = fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            thread.call(asyncio.sleep, 0)
        except RuntimeError as error:
            os._exit(int("open another one in this process" in str(error)))
        os._exit(0)
    forked.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    thread.end()


def test_a_child_process_leaves_the_block_of_its_parent(served):
    def talk(url):
        connecting = connect(url)
        with connecting as ws:
            child = fork()
            if child == 0:
                signal.alarm(SECONDS)
                try:
                    connecting.__exit__(SystemExit, SystemExit(0), None)
                except BaseException:
                    os._exit(1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            ws.send("still open")
            return ws.recv()

    assert served(talk) == "still open"


def test_after_the_block_methods_do_as_after_the_end_of_any_connection(served):
    def talk(url):
        with connect(url) as ws:
            ws.send("left over")
            ws.ping()
        assert ws.recv() == "left over"
        for method in (ws.recv, ws.ping, lambda: ws.send("late")):
            with pytest.raises(ConnectionClosed, match="1000"):
                method()
        ws.close()
        return ws.wait_closed()

    assert served(talk) == CloseCode.NORMAL_CLOSURE


async def test_a_loop_in_the_thread_would_stand_still(serving):
    async with serving(Echo) as server:
        with pytest.raises(RuntimeError, match="use async with connect"), connect(server.addresses[0]):
            pass


INTERRUPTED = """
import signal
import sys
from duck.contrib.websockets.client import connect

def interrupt(signum, frame):
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGALRM, interrupt)
with connect(sys.argv[1]) as ws:
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)  # again, because a signal just before a wait does not end it
    ws.recv()
"""


async def test_ctrl_c_ends_a_wait_and_closes_the_connection(serving):
    async with serving(Echo) as server:
        arguments = "-P", "-c", INTERRUPTED, server.addresses[0]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        view, end = await server.views.get()
        await end
        assert errors.endswith(b"\nKeyboardInterrupt\n")
        assert (view.close_code, process.returncode) == (CloseCode.GOING_AWAY, -signal.SIGINT)


UNFINISHED = """
import sys
from duck.contrib.websockets.client import connect

class Owner:
    def __init__(self, url):
        self.block = connect(url)
        self.ws = self.block.__enter__()

    def __del__(self):
        try:
            self.ws.ping()
        except RuntimeError as error:
            print(error)
        self.block.__exit__(None, None, None)

def messages(url):
    with connect(url) as ws:
        ws.send("quack")
        yield from ws

owner = Owner(sys.argv[1])
generator = messages(sys.argv[1])
print(next(generator))
"""


async def test_a_block_that_the_end_of_the_interpreter_leaves_does_not_keep_it(serving):
    """The thread of the loop is a daemon: nothing would answer to a call."""
    async with serving(Echo) as server, asyncio.timeout(SECONDS):
        arguments = "-P", "-c", UNFINISHED, server.addresses[0]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert (output, process.returncode) == (
            b"quack\nthe interpreter has ended the thread of the connection: leave its block before\n",
            0,
        )


def test_greenlets_in_place_of_threads_are_refused(monkeypatch):
    """gevent and eventlet run the threads that Python code starts in the thread of their caller."""
    monkeypatch.setattr(threading, "get_native_id", lambda: 1)
    with (
        pytest.raises(RuntimeError, match=r"gevent or eventlet runs all threads in one.*threadpool"),
        connect("ws://127.0.0.1:1"),
    ):
        pass
    assert "duck-client" not in {thread.name for thread in threading.enumerate()}
