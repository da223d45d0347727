"""The TLS side of a server, from certificate files."""

import ssl
from typing import NoReturn

__all__ = ["server_context"]


def server_context(
    certfile: str,
    keyfile: str | None = None,
    password: str | None = None,
    ca_certs: str | None = None,
) -> ssl.SSLContext:
    """Make the context for a server.

    Args:
        certfile: A PEM file with the certificate, and those between it and the root.
        keyfile: A PEM file with the private key; None when it is in `certfile`.
        password: That of the key, if it is encrypted.
        ca_certs: A PEM file with the authorities that clients must have a certificate of; None when they need none.

    Raises:
        OSError: A file cannot be read, or does not hold what it should.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certfile, keyfile, _no_password if password is None else password)
    context.set_alpn_protocols(["http/1.1"])
    if ca_certs is not None:
        context.load_verify_locations(ca_certs)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> NoReturn:
    """OpenSSL would ask at the terminal, and wait there."""
    raise OSError("the key is encrypted, and needs a password")
