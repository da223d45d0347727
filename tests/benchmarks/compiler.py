"""The mark of tests that run the load client, which is compiled when it is first used."""

import pytest

from benchmarks.echo import programs

__all__ = ["needs_compiler"]


def _has_compiler() -> bool:
    try:
        programs.compiler()
    except programs.BuildError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="the load client needs a C compiler")
