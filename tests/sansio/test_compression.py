"""The agreement on compression (RFC 7692, section 7.1), and its observance at both ends."""

import itertools

import pytest

from duck.contrib.websockets import Compression, PerMessageDeflate

JSON = b'{"symbol": "ABCD", "price": 123.45, "side": "buy"}, ' * 20

BROWSER = [("client_max_window_bits", None)]


def agreed(parameters, **settings):
    extension = Compression(**settings).accept(parameters)
    return None if extension is None else dict(extension.parameters)


# The offer


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ([], {"server_max_window_bits": "12"}),  # no parameter for the client: Mojolicious would ignore it
        (BROWSER, {"server_max_window_bits": "12", "client_max_window_bits": "12"}),
        ([("client_max_window_bits", "15")], {"server_max_window_bits": "12", "client_max_window_bits": "12"}),
        ([("client_max_window_bits", "9")], {"server_max_window_bits": "12", "client_max_window_bits": "9"}),
        (
            [*BROWSER, ("server_max_window_bits", "8")],
            {"server_max_window_bits": "8", "client_max_window_bits": "12"},
        ),
        (
            [*BROWSER, ("server_no_context_takeover", None), ("client_no_context_takeover", None)],
            {
                "server_no_context_takeover": None,
                "client_no_context_takeover": None,
                "server_max_window_bits": "12",
                "client_max_window_bits": "12",
            },
        ),
    ],
)
def test_the_answer_has_the_agreed_parameters(offer, answer):
    assert agreed(offer) == answer


@pytest.mark.parametrize(
    "parameter",
    [
        *[
            (name, value)
            for name in ("server_max_window_bits", "client_max_window_bits")
            for value in ("", "0", "7", "16", "08", "012", "+9", "-9", "9.0", "1e1", "true", "٩")
        ],
        ("server_max_window_bits", None),
        ("server_no_context_takeover", "true"),
        ("client_no_context_takeover", "1"),
        ("client_no_context_takeover", ""),
        ("unknown", None),
        ("Server_max_window_bits", "9"),
    ],
)
def test_invalid_offers_are_declined(parameter):
    assert agreed([parameter]) is None
    assert agreed([parameter, ("server_no_context_takeover", None)]) is None


@pytest.mark.parametrize("value", [None, "9"])
def test_a_parameter_twice_is_declined(value):
    assert agreed([("client_max_window_bits", value)] * 2) is None
    assert agreed([("client_no_context_takeover", None)] * 2) is None


def test_settings_bound_the_agreement():
    answer = agreed([("server_max_window_bits", "11"), *BROWSER], server_max_window_bits=10, client_max_window_bits=9)
    assert answer == {"server_max_window_bits": "10", "client_max_window_bits": "9"}
    answer = agreed(BROWSER, server_context_takeover=False, client_context_takeover=False)
    assert {"server_no_context_takeover", "client_no_context_takeover"} <= answer.keys()


def test_a_window_that_does_not_fit_is_not_taken_over():
    assert "client_no_context_takeover" in agreed([], memory_limit=4096 + 32767)
    assert "client_no_context_takeover" not in agreed([], memory_limit=4096 + 32768)
    assert "client_no_context_takeover" in agreed(BROWSER, memory_limit=4096 + 4095)
    assert "client_no_context_takeover" not in agreed(BROWSER, memory_limit=4096 + 4096)
    assert "client_no_context_takeover" not in agreed([], server_context_takeover=False, memory_limit=32768)
    # Without the parameters both windows have 15 bits.
    assert agreed([], server_max_window_bits=15) == {}


@pytest.mark.parametrize("threshold", [0, 256, 10_000])
def test_all_messages_are_compressed_for_the_offers_of_libwebsockets(threshold):
    """Versions 4.1 to 4.3 of libwebsockets deliver an uncompressed message repeatedly."""
    settings = Compression(threshold=threshold, binary=False)
    for offer in ([], BROWSER, [("server_no_context_takeover", None)]):
        extension = settings.accept(offer)
        assert (extension.threshold, extension.binary) == (threshold, False)
    for offer in ([("client_no_context_takeover", None)], [("client_no_context_takeover", None), *BROWSER]):
        extension = settings.accept(offer)
        assert (extension.threshold, extension.binary) == (0, True)


@pytest.mark.parametrize(
    "settings",
    [
        {"level": 0},
        {"level": 10},
        {"level": "6"},
        {"server_max_window_bits": 7},
        {"server_max_window_bits": 16},
        {"client_max_window_bits": None},
        {"binary": 1},
        {"memory_level": 0},
        {"memory_level": 10},
        {"threshold": -1},
        {"threshold": 2**63},
        {"memory_limit": None},
        {"memory_limit": 4095},
        {"level": True},
        {"threshold": False},
        {"server_context_takeover": "no"},
        {"client_context_takeover": 0},
        {"server_max_window_bits": 15, "memory_limit": 32767},
    ],
)
def test_settings_have_bounds(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Compression(**settings)


@pytest.mark.parametrize("agree", [Compression().accept, Compression(server_max_window_bits=15).confirm])
def test_connections_with_the_same_agreement_share_no_history(agree):
    first, second = agree([("client_max_window_bits", "12")]), agree([("client_max_window_bits", "12")])
    before = second.compress(b"duck " * 100)
    first.compress(b"goose " * 100)
    assert agree([("client_max_window_bits", "12")]).compress(b"duck " * 100) == before
    assert first.parameters == second.parameters


def test_settings_are_not_changed():
    with pytest.raises(AttributeError):
        Compression().level = 1


# Both ends keep to it


@pytest.mark.parametrize("bits", [*itertools.product(range(8, 16), (8, 15))])
@pytest.mark.parametrize("alone", [*itertools.product((False, True), repeat=2)])
def test_two_ends_understand_each_other(bits, alone):
    server = PerMessageDeflate("permessage-deflate", *alone, bits[1], server_max_window_bits=bits[0])
    client = PerMessageDeflate("permessage-deflate", *alone[::-1], bits[0], server_max_window_bits=bits[1])
    for number in range(30):
        message = b"%d" % number + JSON[: number * 50]
        assert client.decompress(server.compress(message)) == message
        assert server.decompress(client.compress(message)) == message
