"""Masking one payload (RFC 6455, section 5.3)."""

import pytest

MASK = b"\x37\xfa\x21\x3d"
SIZES = {"8 B": 8, "32 B": 32, "125 B": 125, "1 KiB": 1024, "16 KiB": 16384, "64 KiB": 65536, "1 MiB": 2**20}

FUNCTIONS = {
    "duck compiled": ("duck.contrib.websockets._speedups", "apply_mask"),
    "duck Python": ("duck.contrib.websockets.codec.pure", "apply_mask"),
    "websockets compiled": ("websockets.speedups", "apply_mask"),
    "websockets Python": ("websockets.utils", "apply_mask"),
}


def payload_of(size):
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def masked(payload):
    return bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_masking(compare, load, name, size):
    module, function = FUNCTIONS[name]
    mask = getattr(load(module), function)
    payload = payload_of(SIZES[size])
    compare(f"mask {size}", name, mask, payload, MASK, expected=masked(payload))


@pytest.mark.parametrize("size", SIZES)
def test_wsproto(compare, load, size):
    masker = load("wsproto.frame_protocol").XorMaskerSimple(MASK)
    payload = payload_of(SIZES[size])
    compare(f"mask {size}", "wsproto", masker.process, payload, expected=masked(payload))
