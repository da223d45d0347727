"""The libraries of compression: each reads the output of the others, and none refers farther back than agreed."""

import importlib.util
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets import ExtensionError, PayloadTooBig, PerMessageDeflate, extensions
from duck.contrib.websockets.codec import deflate

TAIL = b"\x00\x00\xff\xff"
JSON = b"".join(b'{"id": %d, "price": %d.%02d, "side": "buy"}, ' % (i, i * 7919 % 1000, i % 100) for i in range(500))


@pytest.fixture(scope="module", params=deflate.BACKENDS)
def backend(request):
    try:
        return deflate.load(request.param)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")


def end(backend, **options):
    return PerMessageDeflate("permessage-deflate", backend=backend, **options)


pieces = st.sampled_from([JSON[:100], JSON[:3000], JSON[2500:9000], bytes(500), b""]) | st.binary(max_size=400)


@given(
    st.lists(st.lists(pieces, min_size=1, max_size=3), max_size=6),
    st.integers(8, 15),
    st.integers(1, 9),
    st.integers(1, 9) | st.none(),
    st.booleans(),
    st.booleans(),
)
def test_zlib_inflates_our_output(backend, messages, bits, memory_level, level, alone, forgetful):
    sender = end(
        backend,
        server_max_window_bits=bits,
        memory_level=memory_level,
        level=level,
        server_no_context_takeover=alone,
    )
    reader = zlib.decompressobj(-max(bits, 9))
    for fragments in messages:
        parts = [sender.compress(fragment, False) for fragment in fragments[:-1]]
        parts.append(sender.compress(fragments[-1]))
        assert parts[-1]
        if alone:
            reader = zlib.decompressobj(-max(bits, 9))
        assert reader.decompress(b"".join(parts) + TAIL) == b"".join(fragments)
        if forgetful:
            sender.release()


@given(
    st.lists(pieces, max_size=6),
    st.integers(9, 15),
    st.integers(1, 9),
    st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]),
)
def test_the_output_of_zlib_is_inflated(backend, messages, bits, level, flush):
    writer = zlib.compressobj(level, wbits=-bits)
    reader = end(backend, client_max_window_bits=bits)
    for message in messages:
        payload = writer.compress(message) + writer.flush(flush)
        assert reader.decompress(payload.removesuffix(TAIL) or b"\x00") == message


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("forgetful", [False, True])
def test_nothing_refers_farther_back_than_the_window(backend, bits, forgetful):
    sender = end(backend, server_max_window_bits=bits, memory_level=9)
    stream = b""
    for at in range(0, len(JSON), 1000):
        stream += sender.compress(JSON[at : at + 1000]) + TAIL
        if forgetful:
            sender.release()
    # Byte by byte, zlib can look no farther back than its window.
    reader = zlib.decompressobj(-bits)
    got = bytearray()
    while len(got) < len(JSON):
        got += reader.decompress(stream, 1)
        stream = reader.unconsumed_tail
    assert got == JSON


def test_the_check_finds_references_beyond_the_window():
    writer = zlib.compressobj(wbits=-12)
    stream = writer.compress(JSON) + writer.flush(zlib.Z_SYNC_FLUSH)
    reader = zlib.decompressobj(-9)
    with pytest.raises(zlib.error, match="too far back"):
        while stream:
            reader.decompress(stream, 1)
            stream = reader.unconsumed_tail


@given(st.binary(max_size=60), st.integers(0, 1000))
def test_broken_data_is_an_error_or_a_message_within_the_limit(backend, payload, limit):
    try:
        message = end(backend).decompress(payload, limit)
    except (ExtensionError, PayloadTooBig):
        return
    assert len(message) <= limit


def test_a_message_that_is_cut_off_is_an_error(backend):
    payload = end(backend).compress(JSON[:3000])
    for cut in range(1, len(payload) - 1):
        with pytest.raises(ExtensionError, match="broken"):
            end(backend).decompress(payload[:cut], 100_000)


def test_bytes_behind_the_last_block_are_an_error(backend):
    final = b"\xf3\x48\xcd\xc9\xc9\x07\x00"  # "Hello", with BFINAL set
    for payload in (final, final + b"\x00"):
        assert end(backend).decompress(payload) == b"Hello"
    for payload in (final + b"more", final + final, final + b"\x00\x00"):
        with pytest.raises(ExtensionError, match="last block"):
            end(backend).decompress(payload)


@pytest.mark.parametrize("most", [1, 1000, len(JSON), len(JSON) + 1])
@pytest.mark.parametrize("behind", [b"", b"\x00"], ids=["nothing", "an empty block"])
def test_a_message_that_is_decompressed_in_parts_may_end_with_a_last_block(backend, most, behind):
    """RFC 7692, section 7.2.3.4. The last part may leave bytes behind that block."""
    writer = zlib.compressobj(wbits=-15)
    inflating = extensions.Inflating(end(backend), None)
    inflating.feed(writer.compress(JSON) + writer.flush(zlib.Z_FINISH) + behind)
    inflating.finish()
    parts = list(iter(lambda: inflating.take(most), b""))
    assert inflating.is_over
    assert b"".join(parts) == JSON


@pytest.mark.parametrize("limit", [0, 1, 1000, 2**20])
def test_a_message_may_have_the_size_of_the_limit_and_no_more(backend, limit):
    fits = end(backend).compress(bytes(limit))
    assert end(backend).decompress(fits, limit) == bytes(limit)
    with pytest.raises(PayloadTooBig):
        end(backend).decompress(end(backend).compress(bytes(limit + 1)), limit)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 262_144, 300_000])
@pytest.mark.parametrize("kind", ["zeros", "text", "random"])
def test_large_messages_pass_between_all_libraries(backend, size, kind):
    text = (JSON * (size // len(JSON) + 1))[:size]
    message = {"zeros": bytes(size), "text": text, "random": random.Random(size).randbytes(size)}[kind]
    for writer in (end(backend), end(deflate.load("zlib"))):
        payload = writer.compress(message)
        for limit in (None, size, size + 1, 2 * size):
            assert end(backend).decompress(payload, limit) == message
        with pytest.raises(PayloadTooBig):
            end(backend).decompress(payload, size - 1)


# Connections that keep a compressor


def test_the_connections_that_sent_last_keep_their_compressors(backend, monkeypatch):
    ends = [end(backend, server_max_window_bits=12, memory_level=5) for _ in range(4)]
    monkeypatch.setattr(extensions, "KEPT", 2 * ends[0].compressor_size())
    readers = [zlib.decompressobj(-12) for _ in ends]

    def send(number):
        payload = ends[number].compress(JSON[:500])
        assert len(payload) < 400
        assert readers[number].decompress(payload + TAIL) == JSON[:500]

    def keep():
        return [number for number in range(4) if ends[number]._compressor is not None]

    for number in (0, 1, 0, 2):
        send(number)
    assert keep() == [0, 2]
    ends[0].release()
    assert keep() == [2]
    for number in (3, 2, 1, 0):
        send(number)
    assert keep() == [0, 1]
    for one in ends:
        one.release()


def test_a_compressor_takes_the_stated_memory(backend):
    tracemalloc.start()
    try:
        compressor = backend.deflater(None, 12, 5)
        compressor.compress(b"{}")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken == pytest.approx(backend.deflater_size(12, 5), rel=0.1)


def test_a_compressor_within_a_message_is_never_evicted(backend, monkeypatch):
    one, other = end(backend), end(backend)
    monkeypatch.setattr(extensions, "KEPT", one.compressor_size())
    one.compress(b"before")
    payload = one.compress(JSON[:1000], False)
    other.compress(b"x")
    payload += one.compress(JSON[1000:2000])
    reader = end(backend)
    reader._received = b"before"
    assert reader.decompress(payload) == JSON[:2000]
    one.release()
    other.release()


def test_a_compressor_is_kept_or_not_as_its_caller_says(backend):
    """A thread of another loop compresses it; the next message refers to it nevertheless."""
    one, reader = end(backend), zlib.decompressobj(-15)
    for keep in (True, False, True):
        fragments = one.compress(JSON[:1000], False, keep), one.compress(JSON[1000:2000], True, keep)
        assert (one._compressor is not None) is keep
        assert reader.decompress(b"".join(fragments) + TAIL) == JSON[:2000]
        one.release()
    assert len(fragments[1]) < 50


def test_without_context_takeover_nothing_is_kept(backend):
    one = end(backend, server_no_context_takeover=True, client_no_context_takeover=True)
    assert one.decompress(one.compress(JSON)) == JSON
    assert (one._compressor, one._sent, one._received) == (None, b"", b"")


# The choice


def test_the_environment_chooses(backend, monkeypatch):
    monkeypatch.setenv("DUCK_DEFLATE", backend.name)
    assert deflate.choose().name == backend.name


def test_the_default_is_the_fastest_installed_library(monkeypatch):
    monkeypatch.delenv("DUCK_DEFLATE", raising=False)
    installed = (name for name in deflate.BACKENDS if importlib.util.find_spec(name.replace("-", "_")))
    assert deflate.choose().name == next(installed)


def test_a_requested_library_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setenv("DUCK_DEFLATE", "gzip")
    with pytest.raises(ImportError, match="set it to isal, zlib-ng, zlib"):
        deflate.choose()
