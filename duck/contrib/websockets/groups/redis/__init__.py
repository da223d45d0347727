"""Groups across processes by Redis: one server, the master that Sentinels name, or a cluster."""

from .broker import RedisBroker

__all__ = ["RedisBroker"]
