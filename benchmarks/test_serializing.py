"""Making one binary frame, as a server (not masked) and as a client (masked, with a mask that cannot be guessed)."""

import pytest

from duck.contrib.websockets import codec

SIZES = {"8 B": 8, "32 B": 32, "125 B": 125, "1 KiB": 1024, "16 KiB": 16384, "64 KiB": 65536, "1 MiB": 2**20}
FIRST = 0x82

# Each gives a function of a payload that makes the frame: bytes, or the parts that would be written.


def duck(module):
    def prepare(load, client):
        serialize = load(module).serialize
        if client:
            return lambda payload: serialize(FIRST, payload, codec.new_mask())
        return lambda payload: serialize(FIRST, payload)

    return prepare


def duck_apart(load, client):
    """As large payloads leave: behind their header, not copied."""
    if client:
        pytest.skip("masking is a copy")
    build_header = load("duck.contrib.websockets._speedups").build_header
    return lambda payload: [build_header(FIRST, len(payload)), payload]


def aiohttp(load, client):
    writer_module = load("aiohttp._websocket.writer")

    class Transport(list):
        write = list.append

        def is_closing(self):
            return False

    transport = Transport()
    writer = writer_module.WebSocketWriter(None, transport, use_mask=client)

    def make(payload):
        transport.clear()
        writer._write_websocket_frame(payload, 2, 0)
        return transport

    return make


def websockets(load, client):
    frames = load("websockets.frames")
    return lambda payload: frames.Frame(frames.BINARY, payload).serialize(mask=client)


def wsproto(load, client):
    return load("wsproto.frame_protocol").FrameProtocol(client=client, extensions=[]).send_data


MAKERS = {
    "duck compiled": duck("duck.contrib.websockets._speedups"),
    "duck compiled, header apart": duck_apart,
    "duck Python": duck("duck.contrib.websockets.codec.pure"),
    "aiohttp": aiohttp,
    "websockets": websockets,
    "wsproto": wsproto,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("name", MAKERS)
def test_serialize(compare, load, name, client, size):
    payload = (bytes(range(256)) * (SIZES[size] // 256 + 1))[: SIZES[size]]

    def read(frame, _):
        reader = codec.MessageReader(2**20, client, False)
        return reader.receive(b"".join(frame) if isinstance(frame, list) else frame)

    group = f"serialize {size}, {'masked' if client else 'not masked'}"
    compare(group, name, MAKERS[name](load, client), payload, expected=[(2, payload)], result=read)
