"""The origins that a list allows, and its invalid entries."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duck.contrib.websockets.sansio.origins import AllowedOrigins, HostPatterns, allowed_origins, host_of, origin_of

ALLOWED = [
    ("https://example.org", ["https://example.org"]),
    ("https://example.org", ["https://example.org:443"]),
    ("https://example.org:443", ["https://example.org"]),
    ("https://example.org", ["http://a.example", "https://example.org"]),
    ("http://example.org", ["http://example.org:80/"]),
    ("https://example.org", ["HTTPS://Example.ORG"]),
    ("https://example.org:8443", ["https://example.org:8443"]),
    ("wss://example.org", ["https://example.org"]),
    ("https://example.org", ["wss://example.org"]),
    ("https://a.example.org", ["https://*.example.org"]),
    ("https://a.b.example.org", ["https://*.example.org"]),
    ("https://a.example.org:8443", ["https://*.example.org:8443"]),
    ("http://app.localhost:3000", ["http://*.localhost:3000"]),
    ("http://[::1]:8000", ["http://[0:0:0:0:0:0:0:1]:8000"]),
    ("null", ["null"]),
    ("file://", ["file://"]),
    ("chrome-extension://abcdefghijklmnop", ["chrome-extension://abcdefghijklmnop"]),
    ("app://.", ["app://."]),
    ("capacitor://localhost", ["capacitor://localhost"]),
    ("anything at all", ["*"]),
    ("null", ["https://example.org", "*"]),
]

FOREIGN = [
    ("https://other.example", ["https://example.org"]),
    ("http://example.org", ["https://example.org"]),
    ("https://example.org.evil.test", ["https://example.org"]),
    ("https://example.org", ["https://*.example.org"]),
    ("https://evilexample.org", ["https://*.example.org"]),
    ("https://.example.org", ["https://*.example.org"]),
    ("https://example.org.evil.test", ["https://*.example.org"]),
    ("https://a.example.org.evil.test", ["https://*.example.org"]),
    ("https://evil.test/.example.org", ["https://*.example.org"]),
    ("https://evil.test?.example.org", ["https://*.example.org"]),
    ("https://evil.test#.example.org", ["https://*.example.org"]),
    ("https://evil.test@a.example.org", ["https://*.example.org"]),
    ("https://evil.test, https://a.example.org", ["https://*.example.org"]),
    ("https://*.example.org", ["https://*.example.org"]),
    ("http://a.example.org", ["https://*.example.org"]),
    ("https://a.example.org:8443", ["https://*.example.org"]),
    ("https://a.example.org", ["https://*.example.org:8443"]),
    ("https://example.org:80", ["https://example.org"]),
    ("http://example.org:443", ["https://example.org"]),
    ("https://example.org:99999", ["https://example.org"]),
    ("https://example.org:", ["https://example.org:8443"]),
    ("null", ["file://"]),
    ("file://", ["null"]),
    ("file://host", ["file://"]),
    ("", ["https://example.org"]),
    ("https://example.org", []),
    ("*", ["https://example.org"]),
]


@pytest.mark.parametrize(("origin", "entries"), ALLOWED)
def test_an_origin_that_matches_an_entry_is_allowed(origin, entries):
    assert origin in AllowedOrigins(entries)


@pytest.mark.parametrize(("origin", "entries"), FOREIGN)
def test_an_origin_that_matches_no_entry_is_not_allowed(origin, entries):
    assert origin not in AllowedOrigins(entries)


@pytest.mark.parametrize(
    ("entries", "advice"),
    [
        ("https://*.example.org", r"is a list of origins, not one str: write \['https://\*\.example\.org'\]"),
        ("*", r"write \['\*'\]"),
        ("", "not one str"),
        (b"https://example.org", "is a list of origins"),
        (5, "is a list of origins"),
        (iter(["https://example.org"]), "is a list of origins"),
        ([b"https://example.org"], "each a str"),
        (["https://example.org", None], "each a str"),
        (["example.org"], "write its scheme too, as in 'https://example.org'"),
        (["//example.org"], "write its scheme too, as in 'https://example.org'"),
        (["*.example.org"], "write its scheme too"),
        (["localhost:3000"], "write its scheme too, as in 'https://localhost:3000'"),
        ([""], "write its scheme too"),
        (["https://example.org/path"], "write only scheme, host and port, as in 'https://example.org'"),
        (["https://example.org//"], "write only scheme, host and port"),
        (["https://example.org?q"], "write only scheme, host and port"),
        (["https://example.org#f"], "write only scheme, host and port"),
        (["https://user@example.org"], "write only scheme, host and port, as in 'https://example.org'"),
        (["https://bücher.example"], "in ASCII"),
        (["file:///"], "write 'file://'"),
        (["file://host"], "write 'file://'"),
        (["https://"], "write 'https://example.org'"),
        (["https://*"], "write 'https://example.org'"),
        (["https://*.*.example.org"], "for its subdomains"),
        (["https://a.*.example.org"], "for its subdomains"),
        (["https://*example.org"], "for its subdomains"),
        (["https://*..example.org"], "for its subdomains"),
        (["https://*.127.0.0.1"], "for its subdomains"),
        (["https://*.[::1]"], "for its subdomains"),
        (["https://example.org:*"], "for its subdomains"),
        (["https://example.org:0"], "for its subdomains"),
        (["https://example.org:65536"], "for its subdomains"),
        (["https://example.org:"], "for its subdomains"),
        (["https://[::g]"], "for its subdomains"),
        ([" https://example.org"], "for its subdomains"),
        (["https://example.org, https://example.net"], "for its subdomains"),
        (["https://example.org\n"], "for its subdomains"),
    ],
)
def test_an_entry_that_no_page_can_match_is_refused_with_advice(entries, advice):
    with pytest.raises((TypeError, ValueError), match=advice):
        AllowedOrigins(entries)


def test_a_list_that_has_changed_is_read_anew():
    entries = ["https://example.org"]
    assert "https://example.net" not in allowed_origins(entries)
    entries.append("https://example.net")
    assert "https://example.net" in allowed_origins(entries)
    with pytest.raises(TypeError, match="not one str"):
        allowed_origins("https://example.org")


LABELS = st.lists(st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=8), min_size=1, max_size=4)


@given(LABELS, LABELS, st.sampled_from(["http", "https", "app"]), st.none() | st.integers(1, 65535))
def test_a_pattern_allows_each_host_below_its_name_and_no_other(above, below, scheme, port):
    name = ".".join([*below, "example"])
    at = "" if port is None else f":{port}"
    allowed = AllowedOrigins([f"{scheme}://*.{name}{at}"])
    assert f"{scheme}://{'.'.join(above)}.{name}{at}" in allowed
    assert f"{scheme}://{name}{at}" not in allowed
    assert f"{scheme}://x{name}{at}" not in allowed
    assert f"x{scheme}://a.{name}{at}" not in allowed


@given(st.text())
def test_any_text_is_an_origin_or_none(text):
    assert origin_of(text) is None or origin_of(text).scheme
    assert host_of(text, "http") is None or host_of(text, "http").host
    assert text not in AllowedOrigins(["https://*.example.org"]) or text.endswith((".example.org", ".example.org:443"))


def test_patterns_of_hosts_match_subdomains_only():
    patterns = HostPatterns(["localhost", "*.example.org"])
    assert [host for host in ("localhost", "a.example.org", "example.org", "xexample.org") if host in patterns] == [
        "localhost",
        "a.example.org",
    ]
    assert "localhost" not in HostPatterns([])
