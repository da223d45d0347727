"""The URLs of brokers."""

import sys

import pytest

from duck.contrib.websockets.groups import Groups


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost", r"not a scheme.*redis://.*redis\+cluster://.*redis\+sentinel://"),
        ("localhost:6379", "not a scheme"),
        ("redis://", "no host"),
        ("redis://localhost:none", "the port is not a number"),
        ("redis://localhost:99999", "[Pp]ort"),
        ("redis://localhost/zero", "number of a database"),
        ("redis://localhost?nonsense=1", "nonsense"),
        ("unix://", "path of a socket"),
        ("redis+sentinel://localhost", "lacks the name of the master"),
        ("redis+sentinel://localhost,/main", "lacks a host"),
        ("redis+sentinel://localhost:none/main", "the port is not a number"),
        ("redis+sentinel://localhost/main/zero", "number of a database"),
        ("redis+sentinel://localhost/main?nonsense=1", "nonsense"),
    ],
)
def test_an_invalid_url_is_refused(url, words):
    pytest.importorskip("redis")
    with pytest.raises(ValueError, match=words):
        Groups(url)


@pytest.mark.parametrize("url", ["redis://me:secret@localhost/0", "redis+sentinel://me:secret@localhost/main"])
def test_errors_do_not_contain_passwords(url):
    pytest.importorskip("redis")
    with pytest.raises(ValueError, match="nonsense") as caught:
        Groups(f"{url}?nonsense=1&sentinel_password=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis://", "redis+cluster://", "redis+sentinel://", "//", ""])
@pytest.mark.parametrize(
    "rest",
    [
        "me:se/cret@h",
        "me:se?cret@h/m",
        "me:se#cret@h",
        "me:se[cret@h/m",
        "me:se\uff1fcret@h/m",
        "me:secret@h:99999",
        "h:1/0/secret@h",
        "h:99999/m?password=secret",
        "h:99999/m?sentinel_password=se/cret&password=secret",
    ],
)
def test_errors_do_not_contain_passwords_that_break_the_url(scheme, rest):
    pytest.importorskip("redis")
    with pytest.raises(ValueError, match="redis") as caught:
        Groups(scheme + rest)
    assert "cret" not in str(caught.value) and "'se'" not in str(caught.value)


def test_without_redis_py_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in [name for name in sys.modules if name.startswith("duck.contrib.websockets.groups.redis")]:
        monkeypatch.delitem(sys.modules, name)  # an earlier test has imported it
    with pytest.raises(ImportError, match=r"duck-websockets\[redis\]"):
        Groups("redis://localhost")
