"""Frame headers alone (RFC 6455, section 5.2), in each of the three forms of length; no rival offers as much."""

import struct

import pytest

MASK = b"\x37\xfa\x21\x3d"
HEADERS = {
    "125 B": (125, struct.pack("!BB", 0x82, 0x80 | 125) + MASK),
    "16 KiB": (16384, struct.pack("!BBH", 0x82, 0x80 | 126, 16384) + MASK),
    "1 MiB": (2**20, struct.pack("!BBQ", 0x82, 0x80 | 127, 2**20) + MASK),
}
CODECS = {
    "duck compiled": "duck.contrib.websockets._speedups",
    "duck Python": "duck.contrib.websockets.codec.pure",
}


@pytest.mark.parametrize("size", HEADERS)
@pytest.mark.parametrize("name", CODECS)
def test_parse(compare, load, name, size):
    length, header = HEADERS[size]
    parse = load(CODECS[name]).parse_header
    expected = len(header), 0x82, length, MASK
    compare(f"parse the header of {size}", name, parse, header, True, False, 2**20, expected=expected)


@pytest.mark.parametrize("size", HEADERS)
@pytest.mark.parametrize("name", CODECS)
def test_build(compare, load, name, size):
    length, header = HEADERS[size]
    build = load(CODECS[name]).build_header
    compare(f"build the header of {size}", name, build, 0x82, length, MASK, expected=header)
