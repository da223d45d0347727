"""Counts of the activity of connections, for a program, for Prometheus and for other collectors.

    from duck.contrib.websockets.metrics import Metrics

    metrics = Metrics()
    WebSocketView.METRICS = metrics  # on any server; that of `duck.server` has its own, `server.metrics`
    print(metrics.stats())

The connections of a loop share one `codec.Counters`, which they increment. `Metrics.stats` adds up those of all loops,
at the same cost for one connection as for ten thousand.
"""

from typing import TYPE_CHECKING, Any

from .metrics import Metrics

if TYPE_CHECKING:
    from .stats import HistogramStats, Stats

__all__ = ["HistogramStats", "Metrics", "Stats"]


def __getattr__(name: str) -> Any:
    """Imports the types of the numbers when they are first used: no connection needs them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import stats

    return getattr(stats, name)
