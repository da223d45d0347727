"""The TLS side of a server, from certificate files."""

import ssl

__all__ = ["server_context"]


def server_context(certfile: str, keyfile: str | None = None) -> ssl.SSLContext:
    """Make the context for a server.

    Args:
        certfile: A PEM file with the certificate, and those between it and the root.
        keyfile: A PEM file with the private key; None when it is in `certfile`.

    Raises:
        OSError: A file cannot be read, or does not hold what it should.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certfile, keyfile)
    context.set_alpn_protocols(["http/1.1"])
    return context
