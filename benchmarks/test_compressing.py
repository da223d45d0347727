"""Compressing a JSON message that comes after others like it, and decompressing it, as permessage-deflate does."""

import itertools
import json
import random

import pytest

from duck.contrib.websockets import PerMessageDeflate
from duck.contrib.websockets.codec import deflate

SIZES = {"256 B": 256, "1 KiB": 1024, "16 KiB": 16384, "1 MiB": 2**20}
MESSAGES = 64

chance = random.Random(7692)


def trade():
    symbol = "".join(chance.choices("ABCDEFGHIJ", k=4))
    return {"symbol": symbol, "price": chance.randrange(10**5) / 100, "volume": chance.randrange(10**5), "side": "buy"}


def messages(size):
    """JSON texts of about that size."""
    return [json.dumps([trade() for _ in range(max(size // 66, 1))])[:size].encode() for _ in range(MESSAGES)]


def duck(backend, kept):
    """Ours, by a compressor that is kept, or as of a connection that has not sent for a while."""

    def prepare():
        extension = PerMessageDeflate(
            "permessage-deflate",
            client_max_window_bits=12,
            server_max_window_bits=12,
            level=None,
            memory_level=5,
            backend=backend,
        )

        def compress(payload):
            if not kept:
                extension.release()
            return extension.compress(payload)

        return compress, extension.decompress

    return prepare


def websockets():
    module = pytest.importorskip("websockets.extensions.permessage_deflate")
    frames = pytest.importorskip("websockets.frames")
    settings = {"compress_settings": {"memLevel": 5}}
    far, near = (module.PerMessageDeflate(False, False, 12, 12, **settings) for _ in range(2))

    def decompress(payload):
        return near.decode(frames.Frame(frames.TEXT, payload, rsv1=True)).data

    return lambda payload: far.encode(frames.Frame(frames.TEXT, payload)).data, decompress


def prepared(name):
    """(compress, decompress), one after the other for the same messages."""
    if name == "websockets":
        return websockets()
    library, _, way = name.removeprefix("duck ").partition(", ")
    try:
        return duck(deflate.load(library), not way)()
    except ImportError:
        pytest.skip(f"{library} is not installed")


NAMES = [*(f"duck {library}{way}" for library in deflate.BACKENDS for way in ("", ", made anew")), "websockets"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_compress(compare, name, size):
    texts = messages(SIZES[size])
    compress, _ = prepared(name)
    following = itertools.cycle(texts)
    _, decompress = prepared("duck zlib")

    def read(payload):
        return decompress(bytes(payload))

    compare(f"compress {size} of JSON", name, lambda: compress(next(following)), expected=texts[0], result=read)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("anew")])
def test_decompress(compare, name, size):
    (text, *_) = messages(SIZES[size])
    compress, decompress = prepared(name)
    # One that refers to none before it, so that it can be read again and again.
    compare(f"decompress {size} of JSON", name, decompress, compress(text), expected=text)
