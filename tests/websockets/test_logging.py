"""Log lines: their form, and that a peer cannot forge or spoil them."""

import logging
from types import SimpleNamespace

import pytest

from duck.contrib.websockets.logging import (
    get_django_formatted_log,
    get_duck_formatted_log,
    log_message,
    logger,
)
from duck.http.request import HttpRequest

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


def test_the_duck_format_names_the_peer():
    request = HttpRequest(client_address=("192.0.2.7", 4711))
    first, last = get_duck_formatted_log(request, "/chat [OPEN]").split("\n")
    assert first.endswith("] /chat [OPEN]")
    assert last == "  └── ADDR ['192.0.2.7', 4711]"


@pytest.mark.parametrize("request_", [None, HttpRequest(), SimpleNamespace()])
def test_the_duck_format_manages_without_an_address(request_):
    assert get_duck_formatted_log(request_, "x").endswith("  └── ADDR ['unknown', 'unknown']")


def test_several_messages_are_a_tree():
    request = HttpRequest(client_address=("a", 1))
    _, *branches = get_duck_formatted_log(request, ["head", "one", "two"]).split("\n")
    assert branches == ["  ├── one", "  ├── two", "  └── ADDR ['a', 1]"]
    _, *lines = get_django_formatted_log(request, ["head", "one", "two"]).split("\n")
    assert lines == ["one", "two"]


@pytest.mark.parametrize("format_", FORMATS)
def test_no_message_is_an_empty_one(format_):
    assert format_().split("\n")[0].endswith("] ")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("code", [0, 7, 10, 13, 27, 31, 127, 0x85, 0x9B])
def test_control_characters_are_shown_and_not_obeyed(format_, code):
    lines = format_(None, f"a{chr(code)}b")
    assert f"a\\x{code:02x}b" in lines
    assert chr(code) not in lines.replace("\n", "")
    assert len(lines.split("\n")) == len(format_(None, "ab").split("\n"))


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


def test_log_message_formats_nothing_when_nobody_listens(caplog):
    class Unformattable(list):
        def __iter__(self):
            raise AssertionError("formatted")

    with caplog.at_level("WARNING", "duck.contrib.websockets"):
        log_message(None, Unformattable(["x"]))
    assert not caplog.records
    with caplog.at_level("INFO", "duck.contrib.websockets"), pytest.raises(AssertionError):
        log_message(None, Unformattable(["x"]))
