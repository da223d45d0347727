"""HTTP/1.1 on one connection, up to the handover to a WebSocket view, and the information that proxies add."""
