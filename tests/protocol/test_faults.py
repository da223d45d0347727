"""A conversation that is broken at every step, in every way: it ends by one path, and leaves nothing behind."""

import asyncio
import contextlib
import gc
import os
from pathlib import Path

import pytest

from duck.contrib.websockets import ConnectionClosed, Frame, OpCode, State, WebSocketView

from ..support.handshake import UPGRADE

FILES = Path("/proc/self/fd")
STEPS = [
    "connected",
    "head begun",
    "request sent",
    "on_open waits",
    "open",
    "header begun",
    "payload begun",
    "large payload begun",
    "fragment sent",
    "ping sent",
    "handler waits",
    "peer does not read",
    "close frame begun",
    "close frame sent",
    "our close frame sent",
]
UPGRADED = STEPS[STEPS.index("request sent") :]

pytestmark = pytest.mark.usefixtures("quick_collection")


class Boom(Exception):
    pass


class View(WebSocketView):
    """Waits in its hooks on request, and fails in them once it is `broken`."""

    CLOSE_TIMEOUT = 0.03
    broken = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.closes = 0
        self.gate = asyncio.Event()
        self.flooding = False
        self.filled = asyncio.Event()

    async def pass_gate(self):
        await self.gate.wait()
        self.gate.clear()
        self.check()

    def check(self):
        if self.broken:
            raise Boom

    async def on_open(self):
        await self.pass_gate()

    async def on_receive(self, message, opcode):
        self.check()
        if message == b"wait":
            await self.pass_gate()
        elif message == b"flood":
            self.flooding = True
            while self.flooding:
                sending = self.send(bytes(2**16))
                if self.request.transport.get_write_buffer_size():
                    self.filled.set()
                await sending
                self.check()
        elif message == b"close":
            await self.send_close(1000)
            return
        await self.send(message, opcode)

    async def on_close(self, frame=None):
        assert self.state is State.CLOSED
        self.closes += 1
        self.check()


class Overriding(View):
    """Overrides steps of serving, which makes it slower, and changes the paths of its end."""

    async def read_frame(self):
        return await super().read_frame()

    async def send_frame(self, frame):
        await super().send_frame(frame)

    async def _heartbeat_loop(self):
        await super()._heartbeat_loop()


async def settle():
    """Waits until the server has read and answered the sent bytes, which the kernel delivers at once."""
    for _ in range(10):
        await asyncio.sleep(0)


async def converse(conversation, wanted):
    """The conversation; yields the name of each step when it is reached."""
    peer, server = conversation.peer, conversation.server
    yield "connected"
    peer.write(UPGRADE[:40])
    await settle()
    yield "head begun"
    peer.write(UPGRADE[40:])
    view, end = conversation.view, conversation.end = await server.views.get()
    await settle()
    yield "request sent"
    await peer.head()
    peer.send("early")
    await settle()
    conversation.reading_is_on_hold = True
    yield "on_open waits"
    conversation.reading_is_on_hold = False
    view.gate.set()
    assert await peer.message() == "early"
    yield "open"
    frame = peer.serialize("x" * 20)
    for some, step in ((slice(1), "header begun"), (slice(1, 10), "payload begun")):
        peer.write(frame[some])
        await settle()
        yield step
    peer.write(frame[10:])
    assert await peer.message() == "x" * 20
    frame = peer.serialize(bytes(300_000))
    peer.write(frame[:100_000])
    await settle()
    yield "large payload begun"
    peer.write(frame[100_000:])
    assert await peer.message() == bytes(300_000)
    peer.send(Frame(OpCode.TEXT, fin=False, payload=b"one "))
    await settle()
    yield "fragment sent"
    peer.send(Frame(OpCode.CONTINUATION, payload=b"message"))
    assert await peer.message() == "one message"
    peer.ping(b"here?")
    await settle()
    yield "ping sent"
    assert (await peer.frame()).payload == b"here?"
    peer.send("wait")
    await settle()
    yield "handler waits"
    view.gate.set()
    assert await peer.message() == "wait"
    peer.send("flood")
    await view.filled.wait()
    yield "peer does not read"
    view.flooding = False
    while await peer.message() != "flood":
        pass
    if wanted == "our close frame sent":
        peer.send("close")
        await settle()
        yield wanted
    frame = peer.serialize(Frame(OpCode.CLOSE, payload=b"\x03\xe8"))
    peer.write(frame[:3])
    await settle()
    yield "close frame begun"
    peer.write(frame[3:])
    yield "close frame sent"
    assert not end.cancelled()


class Conversation:
    """A peer, its server, and the view once there is one."""

    def __init__(self, peer, server):
        self.peer = peer
        self.server = server
        self.view = self.end = None
        self.reading_is_on_hold = False

    async def rest(self):
        """Reads the rest, which may be cut anywhere."""
        with contextlib.suppress(ConnectionError):
            await self.peer.reader.read()


async def reset(conversation):
    view = conversation.view
    conversation.peer.reset()
    while conversation.reading_is_on_hold and view.close_code is None:
        with contextlib.suppress(ConnectionClosed):
            await view.send_ping()  # as the heartbeat does; only a write detects that the peer has gone
        await asyncio.sleep(0)


async def half_close(conversation):
    conversation.peer.shut()
    if conversation.reading_is_on_hold:
        conversation.view.gate.set()
    await conversation.rest()


async def break_hooks(conversation):
    View.broken = True
    if conversation.view is not None:
        conversation.view.gate.set()
    await settle()
    await half_close(conversation)


async def cancel(conversation):
    conversation.end.cancel()
    await conversation.rest()


async def shut_down(conversation):
    closing = asyncio.create_task(conversation.server.close())
    await conversation.rest()
    await closing


FAULTS = (reset, half_close, break_hooks, cancel, shut_down)
LOOPS = ("asyncio", "uvloop")
CASES = [
    pytest.param(fault, step, view_class, encrypted, loop, id=f"{fault.__name__}-{step}-{kind}-{loop}")
    for kind, view_class, encrypted, loops in (
        ("plain", View, False, LOOPS),
        ("TLS", View, True, LOOPS),
        ("overriding", Overriding, False, LOOPS[:1]),  # its paths begin above the transport
    )
    for loop in loops
    for fault in FAULTS
    for step in (STEPS if fault is not cancel else UPGRADED)
    if not encrypted or fault in (reset, cancel, shut_down)  # because TLS has no half-closed streams
]


def sockets():
    """The open sockets, if the system lists them; other files may be uvloop's."""
    links = []
    for name in os.listdir(FILES) if FILES.exists() else []:
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            links.append(os.readlink(FILES / name))
    return sorted(link for link in links if link.startswith("socket:"))


@pytest.mark.parametrize(("fault", "step", "view_class", "encrypted", "loop_name"), CASES, indirect=["loop_name"])
async def test_a_fault_at_any_step_ends_the_connection_and_leaves_nothing(
    serving, dial, log, monkeypatch, tls, fault, step, view_class, encrypted
):
    monkeypatch.setattr("duck.contrib.websockets.protocol.hooks.Hooks.FLUSH_TIMEOUT", 0.02)
    monkeypatch.setattr(View, "broken", False)
    if step == "our close frame sent":  # the fault has to come first
        monkeypatch.setattr(View, "CLOSE_TIMEOUT", 5)
    closes = []
    before = sockets()
    options = {"tls": tls} if encrypted else {}
    async with serving(view_class, by_run=fault is cancel, shutdown_timeout=0.1, **options) as server:
        async with dial(server, cut=0, **options) as peer:
            conversation = Conversation(peer, server)
            async with contextlib.aclosing(converse(conversation, step)) as steps:
                async for reached in steps:
                    if reached == step:
                        break
                else:
                    pytest.fail(f"the conversation does not come to {step!r}")
                await fault(conversation)
            if conversation.end is not None:
                await asyncio.wait([conversation.end])
                assert conversation.end.cancelled() is (fault is cancel)
                closes.append(conversation.view.closes)
        assert not server.connections
    assert asyncio.all_tasks() == {asyncio.current_task()}
    del conversation, steps, server, peer
    await settle()
    gc.collect()
    assert set(sockets()) <= set(before)
    assert closes == ([1] if step in UPGRADED else [])
    explained = log()
    if fault is break_hooks:
        assert all(isinstance(entry.error, Boom) for entry in explained)
        assert len([entry for entry in explained if "on_close" in entry.message]) == len(closes)
    elif step == "on_open waits":
        assert all("not handled in time" in entry.message for entry in explained)
    else:
        assert explained == []
