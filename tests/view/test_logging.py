"""Log lines: their form, which a peer cannot forge or break."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets.exceptions import HandshakeError
from duck.contrib.websockets.logging import (
    format_address,
    get_django_formatted_log,
    get_duck_formatted_log,
    log_access,
    log_message,
    log_refusal,
    logger,
    printable,
)
from duck.http.request import HttpRequest

pytestmark = pytest.mark.in_memory

FORMATS = [get_django_formatted_log, get_duck_formatted_log]


def test_the_logger_has_the_name_of_the_package():
    assert logger is logging.getLogger("duck.contrib.websockets")


def test_the_django_format_is_one_line_headed_by_the_time():
    line = get_django_formatted_log(None, "/chat [OPEN]")
    time, message = line[1:].split("] ", 1)
    assert message == "/chat [OPEN]"
    day, month, rest = time.split("/")
    year, clock = rest.split(" ")
    assert day.isdigit() and year.isdigit() and month.isalpha()
    assert clock.count(":") == 2


def test_the_duck_format_is_one_line_headed_by_the_peer():
    request = HttpRequest(client_address=("192.0.2.7", 4711))
    assert get_duck_formatted_log(request, "/chat [OPEN]") == "192.0.2.7:4711 /chat [OPEN]"


@pytest.mark.parametrize("request_", [None, HttpRequest(), SimpleNamespace()])
def test_the_duck_format_manages_without_an_address(request_):
    assert get_duck_formatted_log(request_, "x") == "- x"


def test_a_long_path_and_a_long_header_field_are_cut(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(logging.getLogger("duck.access"), "level", logging.INFO)
    request = HttpRequest("GET", "/" + "x" * 30000, headers=[("origin", "http://" + "y" * 30000)])
    log_refusal(request, HandshakeError(403, "no" * 30000, fields=("Origin",)))
    log_access(request, 403)
    shown = "/" + "x" * 199 + "..."
    for entry in caplog.messages:
        assert shown in entry
        assert len(entry) < 800
    assert len(caplog.messages) == 2


def test_several_messages_are_one_line():
    request = HttpRequest(client_address=("a", 1))
    assert get_duck_formatted_log(request, ["head", "one", "two"]) == "a:1 head; one; two"
    assert get_django_formatted_log(request, ["head", "one", "two"]).endswith("] head; one; two")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (("192.0.2.7", 4711), "192.0.2.7:4711"),
        (["192.0.2.7", 4711], "192.0.2.7:4711"),  # as ASGI has it
        (("2001:db8::1", 4711), "[2001:db8::1]:4711"),
        (("203.0.113.7", 0), "203.0.113.7"),  # a proxy does not report the port
        (("2001:db8::1", 0), "[2001:db8::1]"),
        ("/run/duck.sock", "/run/duck.sock"),
        ("/tmp/a\nb\udcff", "/tmp/a\\x0ab\\udcff"),  # a client may bind its end to any name
        ("", "-"),
        (None, "-"),
    ],
)
def test_addresses_of_all_families_are_formatted(address, shown):
    assert format_address(address) == shown


@given(st.text())
def test_text_of_a_peer_is_one_line(text):
    request = HttpRequest(client_address=text)
    for line in (get_duck_formatted_log(request, text), get_duck_formatted_log(request, [text, text])):
        assert line.isprintable()
        line.encode()  # handlers write UTF-8


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u202e", "\ud800", "\U000e0001"])
def test_characters_that_are_not_of_latin_1_are_shown_as_well(character):
    assert printable(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize("format_", FORMATS)
def test_a_missing_message_is_an_empty_line(format_):
    assert format_() == format_(None, "") == format_(None, "x").removesuffix("x")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("code", [0, 7, 10, 13, 27, 31, 127, 0x85, 0x9B])
def test_control_characters_are_shown_and_not_obeyed(format_, code):
    line = format_(None, f"a{chr(code)}b")
    assert f"a\\x{code:02x}b" in line
    assert chr(code) not in line


@pytest.mark.parametrize("format_", FORMATS)
def test_control_characters_in_the_lines_of_a_list_are_shown_too(format_):
    assert "one\\x0atwo" in format_(None, ["head", "one\ntwo"])


@pytest.mark.parametrize("format_", FORMATS)
def test_other_characters_stay(format_):
    assert "grüße 🦆 %s {0}" in format_(None, "grüße 🦆 %s {0}")


def test_log_message_logs_at_info(caplog):
    with caplog.at_level("INFO", "duck.contrib.websockets"):
        log_message(HttpRequest(client_address=("a", 1)), "100 %s [OPEN]")
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "100 %s [OPEN]" in record.getMessage()


def test_log_message_formats_nothing_while_its_level_is_off(caplog):
    class Unformattable(list):
        def __iter__(self):
            raise AssertionError("formatted")

    with caplog.at_level("WARNING", "duck.contrib.websockets"):
        log_message(None, Unformattable(["x"]))
    assert not caplog.records
    with caplog.at_level("INFO", "duck.contrib.websockets"), pytest.raises(AssertionError):
        log_message(None, Unformattable(["x"]))


def test_a_refusal_is_logged_with_its_fields_and_its_setting(caplog):
    request = HttpRequest(target="/chat", headers=[("Origin", "http://a\xa0b"), ("Host", "x:80")])
    error = HandshakeError(403, "not allowed", fields=("Origin", "Host", "X-None"), setting="SETTING")
    with caplog.at_level("INFO", "duck.contrib.websockets"):
        log_refusal(request, error)
        log_refusal(request, HandshakeError(400, "malformed"))
    told, plain = caplog.messages
    assert told == (
        "- /chat [WebSocket] [REFUSED] 403 not allowed (Origin: http://a\\xa0b; Host: x:80; X-None: -; see SETTING)"
    )
    assert plain == "- /chat [WebSocket] [REFUSED] 400 malformed"


def test_the_access_log_is_off_by_default(caplog):
    class Unformattable:
        def __getattr__(self, name):
            raise AssertionError(f"looked at {name}")

    with caplog.at_level("INFO"):  # of the root, and of all that have none of their own
        log_access(Unformattable(), 200)
    assert not caplog.records
    with caplog.at_level("INFO", "duck.access"), pytest.raises(AssertionError):
        log_access(Unformattable(), 200)


def test_the_access_log_may_be_asked_for_before_the_import():
    code = (
        "import logging; logger = logging.getLogger('duck.access'); logger.setLevel('DEBUG');"
        "import duck.contrib.websockets; print(logger.level)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "10\n"


def test_the_access_log_escapes_the_text_of_the_client(caplog):
    request = HttpRequest("GET", '/a"\u2028?b=%0A', client_address=("::1", 4711))
    with caplog.at_level("INFO", "duck.access"):
        log_access(request, 200, 5)
        log_access(request, 101)
        log_access(None, 431, address="/run/peer")
        log_access(SimpleNamespace(method="GET", path="/x y", http_version="1.1", client_address=None), 101)
    assert caplog.messages == [
        '[::1]:4711 "GET /a\\x22\\u2028?b=%0A HTTP/1.1" 200 5',
        '[::1]:4711 "GET /a\\x22\\u2028?b=%0A HTTP/1.1" 101 -',
        '/run/peer "-" 431 -',
        '- "GET /x y HTTP/1.1" 101 -',
    ]
