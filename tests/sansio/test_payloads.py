"""The parts of a message that a file gives."""

import fileinput
import io
import os

import pytest

from duck.contrib.websockets.sansio.payloads import parts_of


@pytest.mark.parametrize(
    "file", [io.BytesIO(b"\n" * 100_000), io.StringIO("\n" * 100_000)], ids=lambda file: type(file).__name__
)
def test_a_file_is_read_by_pieces_rather_than_lines(file):
    assert [len(part) for part in parts_of(file)] == [65536, 100_000 - 65536]


@pytest.mark.parametrize("mode", ["buffered", "raw", "text"])
def test_a_pipe_is_read_as_its_data_comes(mode):
    """As the output of a command, which the peer is to see before the command ends."""
    source, sink = os.pipe()
    with open(source, "r" if mode == "text" else "rb", buffering=0 if mode == "raw" else -1) as file:
        parts = iter(parts_of(file))
        os.write(sink, b"one\n")
        assert next(parts) in (b"one\n", "one\n")
        os.write(sink, b"two\n")
        assert next(parts) in (b"two\n", "two\n")
        os.close(sink)
        assert list(parts) == []


def test_an_object_that_only_has_lines_is_read_by_lines(tmp_path):
    (tmp_path / "file").write_text("one\ntwo\n")
    with fileinput.input(tmp_path / "file") as lines:
        assert list(parts_of(lines)) == ["one\n", "two\n"]
