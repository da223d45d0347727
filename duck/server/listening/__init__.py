"""Listening sockets, the acceptance of connections, and the TLS contexts."""
