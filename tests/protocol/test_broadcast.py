"""One message for many connections: its delivery, the shared bytes, and the skipped members."""

import asyncio
import socket
import sys
import threading
import tracemalloc
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import (
    CloseCode,
    Compression,
    ConnectionClosed,
    Extension,
    Frame,
    OpCode,
    PerMessageDeflate,
    WebSocketView,
    broadcast,
)
from duck.contrib.websockets.codec import deflate
from duck.contrib.websockets.protocol.broadcast import Prepared

from ..support.sending import buffered
from ..support.views import Quiet

KIB = 2**10
MIB = 2**20
TEXT = '{"user": "alice", "text": "hello, hello, hello"}' * 20


@pytest.fixture
def gather(serving, dial):
    """Connects several peers to a view: `async with gather(View, 3) as (views, peers)`."""

    @asynccontextmanager
    async def gather(view_class, count=2, *, headers=((),), tls=None, **options):
        """Each peer has one of the `headers`, in turn."""
        async with serving(view_class, tls=tls) as server, AsyncExitStack() as stack:
            views, peers = [], []
            for number in range(count):
                fields = headers[number % len(headers)]
                peer = await stack.enter_async_context(dial(server, headers=fields, tls=tls, **options))
                status, _ = await peer.head()
                assert status == 101
                views.append((await server.views.get())[0])
                peers.append(peer)
            yield views, peers

    return gather


async def test_every_peer_gets_the_message(gather):
    async with gather(Quiet, 3) as (views, peers):
        messages = ["text", b"text", "ä" * 70, TEXT * 100]
        for message in messages:
            assert broadcast(set(views), message) == 3
        for data in (b"\x00\xff", bytearray(b"array"), memoryview(b"view"), b"", bytes(100 * KIB)):
            assert broadcast(iter(views), data, OpCode.BINARY) == 3
        for peer in peers:
            for message in messages:
                assert await peer.message() == (message if isinstance(message, str) else message.decode())
            for data in (b"\x00\xff", b"array", b"view", b"", bytes(100 * KIB)):
                assert await peer.message() == data


async def test_a_tls_connection_is_a_member_as_any(gather, tls):
    async with gather(Quiet, 2, tls=tls) as (views, peers):
        for message in ("small", TEXT * 100, "last"):
            assert broadcast(views, message) == 2
            for peer in peers:
                assert await peer.message() == message


@pytest.mark.parametrize(
    ("data", "opcode", "error"),
    [
        (b"\xff", OpCode.TEXT, ValueError),
        ("text", OpCode.PING, ValueError),
        ("text", OpCode.CONTINUATION, ValueError),
        (["in", "parts"], OpCode.TEXT, TypeError),
        ({"a": 1}, OpCode.TEXT, TypeError),
    ],
)
def test_invalid_messages_are_refused(data, opcode, error):
    with pytest.raises(error, match="use json.dumps" if error is TypeError else None):
        broadcast((), data, opcode)


def test_the_name_of_a_group_is_refused_in_place_of_views():
    with pytest.raises(TypeError, match=r"broadcast takes views, not 'lobby': .* by its publish"):
        broadcast("lobby", "text")


async def test_closed_connections_are_passed_over(gather, until):
    async with gather(Quiet, 3) as (views, peers):
        early = Quiet(views[0].request)
        await views[1].send_close()
        peers[2].leave()
        await until(lambda: views[2].close_code)
        assert broadcast([early, *views], "hello") == 1
        assert await peers[0].message() == "hello"
        assert broadcast((), "hello") == 0


async def test_members_come_and_go_meanwhile(gather):
    """A view whose own `send_frame` changes the set that is being sent to."""

    class Leaving(Quiet):
        async def send_frame(self, frame):
            members.discard(self)
            members.add(Quiet(self.request))
            await super().send_frame(frame)

    members = set()
    async with gather(Leaving, 3) as (views, peers):
        members.update(views)
        assert broadcast(members, "hello") == 3
        assert [await peer.message() for peer in peers] == ["hello"] * 3
        assert members.isdisjoint(views)


async def test_a_handler_that_broadcasts_keeps_its_order(gather):
    """Its own replies are gathered while the read is handled, the message for many among them."""

    class Room(WebSocketView):
        async def on_open(self):
            members.add(self)

        async def on_receive(self, message, opcode):
            await self.send("before")
            assert broadcast(members, message, opcode) == 2
            await self.send("after")

    members = set()
    async with gather(Room, 2) as (_, (speaker, listener)):
        speaker.send("one", "two")
        for message in ("one", "two"):
            assert [await speaker.message() for _ in range(3)] == ["before", message, "after"]
            assert await listener.message() == message


# Compression


OFFERS = [
    {"Sec-WebSocket-Extensions": "permessage-deflate"},
    {"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=9"},
    {"Sec-WebSocket-Extensions": "permessage-deflate; server_no_context_takeover"},
    {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover"},
    {},
]


def receiving(extensions):
    """The extensions of a client that match these of a server's view."""
    return [
        PerMessageDeflate(
            agreed.name,
            server_no_context_takeover=agreed.server_no_context_takeover,
            server_max_window_bits=agreed.server_max_window_bits,
            client=True,
        )
        for agreed in extensions
    ]


async def next_text(peer, extensions):
    frame = await Frame.parse(peer.reader.readexactly, mask_required=False, extensions=extensions)
    assert frame.fin
    return frame.payload.decode()


async def test_a_message_is_compressed_once_for_each_agreement(gather, monkeypatch):
    made = []
    deflater = deflate.Backend.deflater

    def counted(self, *args):
        made.append(args)
        return deflater(self, *args)

    async with gather(Quiet, 10, headers=OFFERS) as (views, peers):
        decoding = [receiving(view.extensions) for view in views]
        for view in views[:3]:
            await view.send(TEXT + "alone")
        monkeypatch.setattr(deflate.Backend, "deflater", counted)
        assert broadcast(views, TEXT) == 10
        assert len(made) == 2, "windows of 12 and of 9 bits"
        assert broadcast(views, "short") == 10
        assert len(made) == 3, "a client that takes nothing uncompressed"
        for view in views:
            await view.send(TEXT + "behind")
        assert broadcast(views, TEXT[::-1]) == 10
        for number, (peer, extensions) in enumerate(zip(peers, decoding, strict=True)):
            before = [TEXT + "alone"] if number < 3 else []
            for text in (*before, TEXT, "short", TEXT + "behind", TEXT[::-1]):
                assert await next_text(peer, extensions) == text


async def test_a_large_message_is_compressed_once_too(gather):
    text = TEXT * 300  # which a connection of its own would have a thread compress
    async with gather(Quiet, 2, headers=OFFERS[:1]) as (views, peers):
        decoding = [receiving(view.extensions) for view in views]
        for message in (text, "behind"):
            assert broadcast(views, message) == 2
        for peer, extensions in zip(peers, decoding, strict=True):
            assert [await next_text(peer, extensions) for _ in range(2)] == [text, "behind"]


payloads = st.binary(max_size=40).map(lambda seed: seed * 30)


@given(
    bits=st.integers(8, 15),
    alone=st.booleans(),
    backend=st.sampled_from(["zlib", deflate.BACKEND.name]),
    messages=st.lists(st.tuples(st.booleans(), payloads), max_size=12),
)
def test_shared_and_own_messages_are_decompressed_in_any_order(bits, alone, backend, messages):
    sending = PerMessageDeflate(
        "permessage-deflate",
        server_max_window_bits=bits,
        server_no_context_takeover=alone,
        backend=deflate.load(backend),
    )
    (peer,) = receiving([sending])
    for is_shared, payload in messages:
        if is_shared:
            compressed, context = sending.compress_alone(payload)
            sending.follow(context)
        else:
            compressed = sending.compress(payload)
        assert peer.decompress(compressed) == payload
    sending.release()


async def test_an_error_of_compression_leaves_a_member_as_it_was(gather, monkeypatch, log):
    def broken(self, payload):
        raise MemoryError

    async with gather(Quiet, 2, headers=[OFFERS[0], OFFERS[4]]) as (views, peers):
        extensions = receiving(views[0].extensions)
        await views[0].send(TEXT)
        with monkeypatch.context() as patch:
            patch.setattr(PerMessageDeflate, "compress_alone", broken)
            assert broadcast(views, TEXT) == 1
        await views[0].send(TEXT)
        assert [await next_text(peers[0], extensions) for _ in range(2)] == [TEXT, TEXT]
        assert await peers[1].message() == TEXT
        assert [type(entry.error) for entry in log()] == [MemoryError]


# Those to which a message goes by its ordinary way


async def test_a_broadcast_goes_through_send_frame_and_extensions_of_a_view(gather):
    class Reversed(Extension):
        uses_rsv1 = False

        def encode(self, frame):
            return frame.replace(payload=frame.payload[::-1])

    class Loud(Quiet):
        async def send_frame(self, frame):
            await super().send_frame(frame.replace(payload=frame.payload.upper()))

    class Turned(Quiet):
        EXTENSIONS = {"reversed": lambda parameters: Reversed("reversed")}  # noqa: RUF012

    offer = {"Sec-WebSocket-Extensions": "reversed"}
    async with gather(Loud, 1) as (loud, loud_peers), gather(Turned, 1, headers=[offer]) as (turned, turned_peers):
        assert broadcast([*loud, *turned], "hello") == 2
        assert await loud_peers[0].message() == "HELLO"
        assert await turned_peers[0].message() == "olleh"


async def test_a_message_above_the_limit_of_a_frame_leaves_in_fragments(gather):
    class Small(Quiet):
        MAX_FRAME_SIZE = 100

    async with gather(Small, 2) as (views, peers):
        assert broadcast(views, "x" * 250) == 2
        for peer in peers:
            frames = [await peer.frame() for _ in range(3)]
            assert [len(frame.payload) for frame in frames] == [100, 100, 50]


async def test_a_message_waits_for_the_end_of_a_stream(gather):
    async with gather(Quiet, 2) as (views, peers):
        go_on = asyncio.Event()

        async def parts():
            yield "a"
            await go_on.wait()
            yield "b"

        streaming = asyncio.ensure_future(views[0].send(parts()))
        assert (await peers[0].frame()).payload == b"a"
        assert broadcast(views, "hello") == 2
        assert await peers[1].message() == "hello"
        go_on.set()
        await streaming
        frames = [await peers[0].frame() for _ in range(3)]
        assert [frame.payload for frame in frames] == [b"b", b"", b"hello"]


# Slow peers


class Frugal(Quiet):
    WRITE_LIMIT = 4096  # the bound is 4 MiB at least


async def test_a_slow_peer_delays_no_other_and_is_closed_at_the_bound(gather, serving, dial, log):
    async with serving(Frugal) as server, dial(server, receive_buffer=4 * KIB, read_limit=4 * KIB) as slow:
        await slow.head()
        view, _ = await server.views.get()
        async with gather(Quiet, 1) as (others, (peer,)):
            taken = 2
            count = 0
            while taken == 2:
                taken = broadcast([view, *others], bytes(256 * KIB), OpCode.BINARY)
                assert await peer.message() == bytes(256 * KIB)
                count += 1
                assert count < 100, "the transport is never full"
            assert taken == 1
            assert 4 * MIB < buffered(view) < 5 * MIB
            assert view.close_code == CloseCode.POLICY_VIOLATION
            (entry,) = log()
            words = "closed, because too many broadcast bytes wait for the peer"
            assert entry.message.startswith("'127.0.0.1:") and entry.message.endswith(f" /': {words}")
            for _ in range(count - 1):  # those that had been taken
                assert await slow.message() == bytes(256 * KIB)
            assert await slow.closing() == (CloseCode.POLICY_VIOLATION, "too slow to read")
            slow.close()


class Stuck(Quiet):
    async def send_frame(self, frame):
        await asyncio.Event().wait()


@pytest.mark.parametrize("view_class", [Quiet, Stuck])
async def test_messages_that_wait_behind_another_are_bounded_too(gather, view_class):
    async def parts():
        yield "a"
        await asyncio.Event().wait()

    async with gather(view_class, 1) as ((view,), (peer,)):
        streaming = asyncio.ensure_future(view.send(parts()))
        await asyncio.sleep(0)
        taken = 0
        while broadcast([view], bytes(256 * KIB), OpCode.BINARY):
            taken += 1
            assert taken < 100
        assert taken >= 64 * view.WRITE_LIMIT // (256 * KIB)
        peer.leave()
        with pytest.raises(ConnectionClosed):
            await streaming


@pytest.mark.parametrize("policy", ["drop", "close"])
async def test_the_policy_of_a_slow_peer_decides(serving, dial, policy):
    class Slow(Quiet):
        SLOW_CONSUMER = policy

    async with serving(Slow) as server, dial(server, receive_buffer=4 * KIB, read_limit=4 * KIB) as slow:
        await slow.head()
        view, _ = await server.views.get()
        taken = 0
        while broadcast([view], bytes(256 * KIB), OpCode.BINARY):
            taken += 1
            assert taken < 100, "the transport is never full"
        assert view.dropped == (policy == "drop")
        if policy == "close":
            with pytest.raises(ConnectionClosed):
                await view.send("more")
        for _ in range(taken):
            assert await slow.message() == bytes(256 * KIB)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the transport of asyncio copies what waits")
async def test_slow_peers_share_the_bytes_of_a_message(gather):
    async with gather(Quiet, 8, receive_buffer=4 * KIB, read_limit=4 * KIB) as (views, peers):
        for view in views:
            view.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        message = bytes(MIB)
        tracemalloc.start()
        try:
            assert broadcast(views, message, OpCode.BINARY) == 8
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert all(buffered(view) > MIB // 2 for view in views)
        assert taken < 2 * MIB
        for peer in peers:
            assert await peer.message() == message


# Other threads


async def test_one_hop_serves_all_members_of_another_loop(gather):
    loop = asyncio.get_running_loop()
    async with gather(Quiet, 3) as (views, peers):
        hops = []
        call = loop.call_soon_threadsafe

        class Watched:
            """The methods of a loop that a call from another thread uses; those of uvloop cannot be replaced."""

            def call_soon_threadsafe(self, *args):
                hops.append(args)
                return call(*args)

        watched = Watched()
        for view in views:
            view._protocol.loop = watched
        try:
            counts = []
            thread = threading.Thread(target=lambda: counts.append(broadcast(views, "from afar")))
            thread.start()
            assert [await peer.message() for peer in peers] == ["from afar"] * 3
            thread.join()
            assert counts == [3]
            assert len(hops) == 1
        finally:
            for view in views:
                view._protocol.loop = loop


def test_members_of_a_closed_loop_are_skipped(run, gather):
    async def scenario():
        async with gather(Quiet, 1) as (views, _):
            return views[0]

    view = run(scenario())
    assert broadcast([view], "hello") == 0


def test_any_object_with_the_method_is_a_member():
    class Sink:
        def _send_prepared(self, message):
            taken.append((message.payload, message.opcode))
            return True

    taken = []
    assert broadcast([Sink(), Sink()], "hello") == 2
    assert taken == [(b"hello", OpCode.TEXT)] * 2
    assert Prepared("hello").frame == b"\x81\x05hello"


def test_compression_settings_make_agreements_of_their_own():
    agreements = {
        Compression(**settings).accept(()).agreement
        for settings in ({}, {"level": 9}, {"server_max_window_bits": 10}, {"threshold": 0}, {"memory_level": 8})
    }
    assert len(agreements) == 4
