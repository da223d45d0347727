"""Adapters to hosts, the servers that receive connections: ASGI servers, uvicorn's protocol, and Duck Framework.

`upgrade` is the interface between a view and any host. `duck.server` and `uvicorn.py` use it directly.
"""
