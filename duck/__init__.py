"""WebSockets served from Python: `duck.contrib.websockets`, and an embedded host, `duck.server`."""

from . import _duckframework

__distribution__ = "duck-websockets"

if _duckframework.is_beside():
    import warnings

    warnings.warn(_duckframework.EXPLANATION, RuntimeWarning, stacklevel=2)
