"""The operations that `.ci/sanitize` runs under sanitizers and valgrind."""

import pytest


def test_every_operation_succeeds_and_leaves_no_object():
    pytest.importorskip("duck.contrib.websockets._speedups", exc_type=ImportError)
    from .operations import main

    main()
