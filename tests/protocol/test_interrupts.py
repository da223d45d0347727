"""Sends of a signal handler that interrupts a send: they leave behind it, and no bytes are mixed up."""

import asyncio
import itertools
import signal

import pytest

from duck.contrib.websockets import Frame, OpCode, PerMessageDeflate
from duck.contrib.websockets.codec import SENT
from duck.contrib.websockets.protocol.protocol import ConnectionProtocol

from ..support.views import Quiet

if not hasattr(signal, "SIGUSR1"):
    pytest.skip("this system has no signals to send", allow_module_level=True)

OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
OURS = b"from the handler of a message, " * 20
THEIRS = b"from the handler of a signal, " * 20


class View(Quiet):
    MAX_FRAME_SIZE = 1000


class ByFrame(View):
    async def send_frame(self, frame):
        await super().send_frame(frame)


WAYS = {
    "message": lambda view: view.send(OURS),
    "text": lambda view: view.send(OURS.decode()),
    "fragments": lambda view: view.send(OURS * 5),
    "stream": lambda view: view.send([OURS, OURS]),
    "frame": lambda view: view.send_frame(Frame(OpCode.TEXT, payload=OURS)),
}
MEANWHILE = {
    "message": lambda view: view.send(THEIRS),
    "stream": lambda view: view.send([THEIRS]),
    "frame": lambda view: view.send_frame(Frame(OpCode.TEXT, payload=THEIRS)),
    "close": lambda view: view.send_close(4000),
}
COMBINATIONS = [
    (view_class, way, meanwhile)
    for view_class, way, meanwhile in itertools.product((View, ByFrame), WAYS, MEANWHILE)
    # The view's own `send_frame` is a coroutine function, which does nothing before it is awaited.
    if not (view_class is ByFrame and "frame" in (way, meanwhile))
]


@pytest.fixture
def interrupts(monkeypatch):
    """Raises a signal while a message is being compressed: `interrupts(handler)`."""
    compress = PerMessageDeflate._compress
    busy = False

    def interrupted(self, payload, fin):
        nonlocal busy
        compressed = compress(self, payload, fin)
        if not busy and self.interrupted:
            busy = True
            signal.raise_signal(signal.SIGUSR1)
            busy = False
        return compressed

    PerMessageDeflate.interrupted = False
    monkeypatch.setattr(PerMessageDeflate, "_compress", interrupted)
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, lambda *_: handler())
    signal.signal(signal.SIGUSR1, before)
    del PerMessageDeflate.interrupted


@pytest.fixture
def tireless(monkeypatch):
    """Keeps senders from yielding to the loop, as they do after some milliseconds: a close frame could come between."""
    monkeypatch.setattr(ConnectionProtocol, "pace", lambda self: SENT)


@pytest.mark.usefixtures("tireless")
@pytest.mark.parametrize(("view_class", "way", "meanwhile"), COMBINATIONS)
async def test_a_signal_handler_may_send_within_a_send(connect, interrupts, view_class, way, meanwhile):
    async with connect(view_class, headers=OFFER) as session:
        view, peer = session.view, session.peer
        client = PerMessageDeflate("permessage-deflate", server_max_window_bits=12)
        interrupts(lambda: MEANWHILE[meanwhile](view))
        view.extensions[0].interrupted = True
        await WAYS[way](view)
        view.extensions[0].interrupted = False
        expected = {"fragments": OURS * 5, "stream": OURS * 2}.get(way, OURS)
        got = [await peer.inflated(client)]
        if meanwhile == "close":
            assert got == [expected]
            assert (await peer.closing())[0] == 4000
            return
        behind = "behind both, " * 30
        while THEIRS not in got:
            got.append(await peer.inflated(client))
        assert expected in got
        assert set(got) == {expected, THEIRS}
        await view.send(behind)
        while (last := await peer.inflated(client)) == THEIRS:
            pass
        assert last.decode() == behind


async def test_a_signal_handler_that_raises_loses_only_the_interrupted_message(connect, interrupts):
    """Messages behind it do not refer to it."""

    def handler():
        raise LookupError("enough")

    async with connect(View, headers=OFFER) as session:
        view, peer = session.view, session.peer
        client = PerMessageDeflate("permessage-deflate", server_max_window_bits=12)
        interrupts(handler)
        await view.send(OURS)
        view.extensions[0].interrupted = True
        with pytest.raises(LookupError):
            await view.send(THEIRS)
        view.extensions[0].interrupted = False
        await view.send(THEIRS + OURS)
        assert [await peer.inflated(client) for _ in range(2)] == [OURS, THEIRS + OURS]


async def test_a_message_sent_within_a_write_follows_it(connect, interrupts):
    async with connect(View) as session:
        view, peer = session.view, session.peer
        protocol = view._protocol
        protocol.fd = -1  # so that nothing is written past the transport
        transport = protocol.transport

        class Interrupted:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                protocol.transport = transport
                signal.raise_signal(signal.SIGUSR1)
                transport.write(data)

        interrupts(lambda: view.send("second"))
        protocol.transport = Interrupted()
        await view.send("first")
        assert [await peer.message(), await peer.message()] == ["first", "second"]
        await asyncio.sleep(0)
