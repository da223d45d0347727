"""The rules of RFC 6455 and RFC 7692 without I/O: the handshakes of both roles, and the `Connection` after them."""
