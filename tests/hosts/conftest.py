"""Uvicorn's parsers of HTTP."""

import pytest


@pytest.fixture(params=["httptools", "h11"])
def http(request):
    """Each of uvicorn's parsers of HTTP, which hand a request over in their own ways."""
    pytest.importorskip(request.param)
    return request.param
