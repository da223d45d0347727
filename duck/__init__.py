"""WebSockets served from Python: `duck.contrib.websockets`, and an embedded host, `duck.server`."""
