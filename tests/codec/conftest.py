"""How streams are fed, and whether they are masked."""

import pytest

from ..support.frames import MASK
from .streams import WAYS


@pytest.fixture(params=WAYS)
def feed(request):
    """Each way of giving a stream to a reader; gives its messages."""
    return WAYS[request.param]


@pytest.fixture(params=[MASK, None], ids=["server", "client"])
def mask(request):
    """What the peer masks with: a reader at a server expects a mask, at a client none."""
    return request.param
