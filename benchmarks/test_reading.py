"""Reading masked frames at a server: from the bytes of the stream to the messages."""

import pytest

from duck.contrib.websockets.codec import pure

MASK = b"\x37\xfa\x21\x3d"
MIB = 2**20
READ = 262144  # bytes that an event loop receives at a time

# label: (size of a payload, frames)
SIZES = {
    "100 x 8 B": (8, 100),
    "100 x 32 B": (32, 100),
    "100 x 125 B": (125, 100),
    "100 x 1 KiB": (1024, 100),
    "10 x 16 KiB": (16384, 10),
    "3 x 64 KiB": (65536, 3),
    "1 MiB": (MIB, 1),
}
CODECS = {
    "duck compiled": "duck.contrib.websockets._speedups",
    "duck Python": "duck.contrib.websockets.codec.pure",
}
TEXT = {"ASCII": "The quick brown duck. ", "mixed": "Gr\u00fc\u00dfe, \u4e16\u754c \U0001f986! "}


def pieces_of(opcode, payload, count):
    stream = pure.serialize(0x80 | opcode, payload, MASK) * count
    return [stream[i : i + READ] for i in range(0, len(stream), READ)]


def text_of(kind, size):
    text = (TEXT[kind] * size).encode()[:size]
    return text.decode(errors="ignore").encode().ljust(size)


# Each reader has `read`, which is timed, and `payloads` of the results. All of them give text as str but ours, which
# gives the bytes that it found valid; "decoded" is the str that a handler sees.


class Duck:
    def __init__(self, load, module):
        self.reader = load(module).MessageReader(2 * MIB, True, False)

    def read(self, pieces):
        messages = []
        for piece in pieces:
            messages += self.reader.receive(piece)
        return messages

    def payloads(self, messages):
        return [payload for _, payload in messages]


class DuckDecoded(Duck):
    def read(self, pieces):
        return [payload.decode() for _, payload in super().read(pieces)]

    def payloads(self, messages):
        return messages


class DuckInPlace(Duck):
    """As an event loop with a BufferedProtocol does, whose recv_into() is a copy here."""

    def __init__(self, load, module):
        super().__init__(load, module)
        self.spare = bytearray(READ)

    def read(self, pieces):
        messages = []
        for piece in pieces:
            at = 0
            while at < len(piece):
                buffer = self.reader.get_buffer(self.spare)
                size = min(len(buffer), len(piece) - at)
                buffer[:size] = piece[at : at + size]
                messages += self.reader.buffer_updated(self.spare, size)
                at += size
        return messages


class Aiohttp:
    def __init__(self, load):
        reader_c = load("aiohttp._websocket.reader_c")
        unlimited = 2**31 - 1  # it counts in unsigned ints, up to twice this
        self.queue = reader_c.WebSocketDataQueue(None, unlimited, loop=None)
        self.reader = reader_c.WebSocketReader(self.queue, 2 * MIB, compress=False, decode_text=True)

    def read(self, pieces):
        self.queue._buffer.clear()
        for piece in pieces:
            self.reader.feed_data(piece)
        return self.queue._buffer

    def payloads(self, messages):
        return [message.data for message, _ in messages]


class Websockets:
    def __init__(self, load):
        protocol = load("websockets.protocol")
        self.protocol = protocol.Protocol(protocol.SERVER, max_size=2 * MIB)

    def read(self, pieces):
        for piece in pieces:
            self.protocol.receive_data(piece)
        return self.protocol.events_received()

    def payloads(self, messages):
        return [frame.data for frame in messages]


class WebsocketsDecoded(Websockets):
    """Decodes, and so validates, as the rest of websockets does."""

    def read(self, pieces):
        return [frame.data.decode() for frame in super().read(pieces)]

    def payloads(self, messages):
        return messages


class Wsproto:
    def __init__(self, load):
        self.protocol = load("wsproto.frame_protocol").FrameProtocol(client=False, extensions=[])

    def read(self, pieces):
        frames = []
        for piece in pieces:
            self.protocol.receive_bytes(piece)
            frames += self.protocol.received_frames()
        return frames

    def payloads(self, frames):
        """A frame comes in parts if it was received in parts."""
        payloads = [frames[0].payload[:0]]
        for frame in frames:
            payloads[-1] += frame.payload
            if frame.message_finished:
                payloads.append(frame.payload[:0])
        return payloads[:-1]


BINARY_READERS = {
    "duck compiled": lambda load: Duck(load, CODECS["duck compiled"]),
    "duck compiled, in place": lambda load: DuckInPlace(load, CODECS["duck compiled"]),
    "duck Python": lambda load: Duck(load, CODECS["duck Python"]),
    "aiohttp compiled": Aiohttp,
    "websockets": Websockets,
    "wsproto": Wsproto,
}
TEXT_READERS = BINARY_READERS | {
    "duck compiled, decoded": lambda load: DuckDecoded(load, CODECS["duck compiled"]),
    "websockets": WebsocketsDecoded,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BINARY_READERS)
def test_binary(compare, load, name, size):
    length, count = SIZES[size]
    payload = (bytes(range(256)) * (length // 256 + 1))[:length]
    reader = BINARY_READERS[name](load)
    compare(
        f"read binary, {size}",
        name,
        reader.read,
        pieces_of(2, payload, count),
        expected=[payload] * count,
        result=lambda messages, _: reader.payloads(messages),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TEXT_READERS)
def test_text(compare, load, name, size):
    length, count = SIZES[size]
    text = text_of("ASCII", length)
    reader = TEXT_READERS[name](load)
    gives_bytes = type(reader) in (Duck, DuckInPlace)
    compare(
        f"read text, {size}",
        name,
        reader.read,
        pieces_of(1, text, count),
        expected=[text if gives_bytes else text.decode()] * count,
        result=lambda messages, _: reader.payloads(messages),
    )


@pytest.mark.parametrize("size", ["100 x 1 KiB", "1 MiB"])
@pytest.mark.parametrize("kind", ["binary", *TEXT])
@pytest.mark.parametrize("codec", CODECS)
def test_text_beside_binary(compare, load, codec, kind, size):
    """The cost of the validation of UTF-8."""
    length, count = SIZES[size]
    payload = text_of("ASCII" if kind == "binary" else kind, length)
    reader = Duck(load, CODECS[codec])
    compare(
        f"text beside binary, {codec}, {size}",
        kind,
        reader.read,
        pieces_of(2 if kind == "binary" else 1, payload, count),
        expected=[payload] * count,
        result=lambda messages, _: reader.payloads(messages),
    )
