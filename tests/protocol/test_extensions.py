"""Extensions of users on a connection (RFC 6455, section 9)."""

import asyncio
from array import array

import pytest

from duck.contrib.websockets import Extension, Frame, OpCode
from duck.contrib.websockets.extensions import _kept

from ..support.errors import Panic
from ..support.views import Echo
from .large import far_end
from .test_compression import JSON

pytestmark = pytest.mark.in_memory


class Shout(Extension):
    """Sends capitals, with RSV1 set."""

    def encode(self, frame):
        return frame.replace(payload=frame.payload.upper(), rsv1=True)

    def decode(self, frame, max_size=None):
        return frame.replace(payload=frame.payload.lower(), rsv1=False) if frame.rsv1 else frame


def shout(parameters):
    return Shout("x-shout", parameters) if dict(parameters) in ({}, {"volume": "11"}) else None


async def test_a_view_may_have_extensions_of_its_own(serving, dial):
    class View(Echo):
        EXTENSIONS = {"x-shout": shout}  # noqa: RUF012

    offers = "x-shout; volume=12, x-shout; volume=11, permessage-deflate"
    async with serving(View) as server, dial(server, headers={"Sec-WebSocket-Extensions": offers}) as peer:
        _, headers = await peer.head()
        assert headers["sec-websocket-extensions"] == "x-shout; volume=11"
        peer.send(Frame(OpCode.TEXT, payload=b"QUACK", rsv1=True))
        peer.send("quack")
        for _ in range(2):
            head = await peer.reader.readexactly(2)
            assert head == b"\xc1\x05"
            assert await peer.reader.readexactly(5) == b"QUACK"


class Odd(Extension):
    """Inverts each byte without setting RSV1; cannot decode payloads that begin with 0xFF."""

    uses_rsv1 = False

    def encode(self, frame):
        if frame.payload == b"unspeakable":
            raise LookupError("cannot encode")
        return frame.replace(payload=bytes(byte ^ 0xFF for byte in frame.payload))

    def decode(self, frame, max_size=None):
        if frame.payload[:1] == b"\xff":
            raise LookupError("cannot decode")
        return self.encode(frame)


class OddView(Echo):
    COMPRESSION = False
    EXTENSIONS = {"x-odd": lambda parameters: Odd("x-odd")}  # noqa: RUF012


ODD = {"Sec-WebSocket-Extensions": "x-odd"}


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_text_that_an_extension_has_changed_need_not_be_utf8_on_the_wire(connect, pieces):
    async with connect(OddView, headers=ODD) as session:
        odd, peer, text = Odd("x-odd"), session.peer, "grüße"
        payload = odd.encode(Frame(OpCode.TEXT, payload=text.encode())).payload
        size = -(-len(payload) // pieces)
        for at in range(0, len(payload), size):
            opcode = OpCode.CONTINUATION if at else OpCode.TEXT
            peer.send(Frame(opcode, at + size >= len(payload), payload[at : at + size]))
        assert odd.decode(await peer.frame()).payload == text.encode()
        peer.send(odd.encode(Frame(OpCode.TEXT, payload=b"\xe9")))  # which is none when it is decoded
        assert (await peer.closing())[0] == 1007


async def test_the_error_of_an_extension_is_that_of_the_sender_although_the_message_has_waited(connect):
    async def parts(go_on):
        yield b"one"
        await go_on.wait()

    async with connect(OddView, headers=ODD) as session:
        view, go_on = session.view, asyncio.Event()
        sending = asyncio.gather(*map(view.send, (parts(go_on), b"unspeakable", b"after")), return_exceptions=True)
        await asyncio.sleep(0)
        go_on.set()
        first, second, third = await sending
        assert isinstance(second, LookupError)
        assert first is third is None
        odd = Odd("x-odd")
        assert [odd.decode(await session.peer.frame()).payload for _ in range(2)] == [b"one", b"after"]


async def test_an_extension_that_cannot_decode_closes_with_1011(connect, log):
    """The fault is logged, and the peer gets no details. Earlier messages are answered."""
    async with connect(OddView, headers=ODD) as session:
        odd, peer = Odd("x-odd"), session.peer
        before = odd.encode(Frame(OpCode.TEXT, payload=b"before"))
        peer.send(before, Frame(OpCode.BINARY, payload=b"\xff"), before)
        assert (await peer.frame()).payload == before.payload
        assert await peer.closing() == (1011, "internal error")
        assert await peer.rest() == []
    (entry,) = log()
    assert (entry.level, str(entry.error)) == ("ERROR", "cannot decode")


@pytest.mark.parametrize(("changes", "code"), [({"payload": b"x" * 11}, 1009), ({"opcode": OpCode.PING}, 1011)])
async def test_an_extension_must_decode_to_a_message_within_the_limit(connect, changes, code):
    class Wrong(Odd):
        def decode(self, frame, max_size=None):
            return frame.replace(**changes)

    class View(OddView):
        MAX_FRAME_SIZE = 10
        EXTENSIONS = {"x-odd": lambda parameters: Wrong("x-odd")}  # noqa: RUF012

    async with connect(View, headers=ODD) as session:
        session.peer.send(b"x")
        assert (await session.peer.closing())[0] == code


@pytest.mark.parametrize("pulls", [False, True], ids=["handed on", "pulled"])
async def test_a_handler_gets_bytes_whatever_an_extension_assigns(connect, pulls):
    kinds = iter([bytearray, memoryview, lambda payload: array("I", payload)])

    class Loose(Odd):
        def encode(self, frame):
            return frame

        def decode(self, frame, max_size=None):
            frame.payload = next(kinds)(frame.payload)
            return frame

    class View(OddView):
        MAX_FRAME_SIZE = 8
        EXTENSIONS = {"x-odd": lambda parameters: Loose("x-odd")}  # noqa: RUF012

        async def on_receive(self, message, opcode):
            await self.send(type(message).__name__)

    class Pulling(View):
        async def read_frame(self):
            return await super().read_frame()

    async with connect(Pulling if pulls else View, headers=ODD) as session:
        session.peer.send(b"x", b"y", b"12345678")
        assert [await session.peer.message() for _ in range(3)] == ["bytes"] * 3


@pytest.mark.parametrize("pulls", [False, True], ids=["handed on", "pulled"])
@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, Panic])
async def test_a_system_exit_of_an_extension_does_not_end_the_server(connect, log, error, pulls):
    class Leaving(Odd):
        def decode(self, frame, max_size=None):
            raise error("as the test expects")

    class View(OddView):
        EXTENSIONS = {"x-odd": lambda parameters: Leaving("x-odd")}  # noqa: RUF012

        if pulls:

            async def read_frame(self):
                return await super().read_frame()

    async with connect(View, headers=ODD) as session:
        session.peer.send("x")
        assert await session.peer.closing() == (1011, "internal error")
    assert [type(entry.error) for entry in log()] == [error]


async def test_a_message_that_an_extension_cannot_encode_is_not_referred_to(connect):
    """The peer has not received a message that was compressed and did not leave."""

    class View(Echo):
        EXTENSIONS = {"x-odd": lambda parameters: Later("x-odd")}  # noqa: RUF012

    class Later(Odd):
        def encode(self, frame):
            if fails:
                raise LookupError("cannot encode")
            return super().encode(frame)

    fails = []
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate, x-odd"}
    async with connect(View, headers=offer) as session:
        view, client, odd = session.view, far_end(), Odd("x-odd")

        async def message():
            first, payload = await session.peer.joined()
            frame = odd.encode(Frame(OpCode.TEXT, payload=payload, rsv1=bool(first & 0b01000000)))
            return client.decode(frame).payload

        assert len(view.extensions) == 2
        await view.send(JSON)
        assert await message() == JSON
        fails.append(True)
        with pytest.raises(LookupError):
            await view.send(b"lost" * 100)
        fails.clear()
        await view.send(b"lost" * 100)
        assert await message() == b"lost" * 100


async def test_compressors_of_ended_connections_are_let_go_beside_another_extension(connect):
    class View(Echo):
        EXTENSIONS = {"x-odd": lambda parameters: Odd("x-odd")}  # noqa: RUF012

    offer = {"Sec-WebSocket-Extensions": "permessage-deflate, x-odd"}
    async with connect(View, headers=offer) as session:
        view = session.view
        await view.send(JSON)
        await session.peer.reader.readexactly(2)
        deflate = view.extensions[0]
        assert deflate in _kept._extensions
        session.peer.leave()
        await session.ended()
        assert deflate not in _kept._extensions
