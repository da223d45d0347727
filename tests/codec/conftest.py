"""Ways to feed streams, masked and unmasked."""

import pytest

from ..support.frames import MASK
from .streams import WAYS


@pytest.fixture(params=WAYS)
def feed(request):
    """Each way of giving a stream to a reader; gives its messages."""
    return WAYS[request.param]


@pytest.fixture(params=[MASK, None], ids=["server", "client"])
def mask(request):
    """The mask of the peer: a reader at a server expects one, at a client none."""
    return request.param
