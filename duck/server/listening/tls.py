"""TLS contexts of a server, created from certificate files."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

__all__ = ["Certificates", "server_context"]


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of a server's TLS; a call reads them and creates a context.

    Attributes:
        certfile, keyfile, password, ca_certs: The arguments of `server_context`.
        password_file: A file with the password in its first line.
    """

    certfile: str
    keyfile: str | None = None
    password: str | None = None
    password_file: str | None = None
    ca_certs: str | None = None

    @property
    def files(self) -> list[str]:
        """The paths of all files."""
        return [path for path in (self.certfile, self.keyfile, self.ca_certs, self.password_file) if path]

    def __call__(self) -> ssl.SSLContext:
        password: str | bytes | None = self.password
        if self.password_file is not None:
            password = next(iter(Path(self.password_file).read_bytes().splitlines()), b"")
        return server_context(self.certfile, self.keyfile, password, self.ca_certs)


def server_context(
    certfile: str,
    keyfile: str | None = None,
    password: str | bytes | None = None,
    ca_certs: str | None = None,
) -> ssl.SSLContext:
    """Creates the context of a server.

    Args:
        certfile: A PEM file with the certificate and its intermediate certificates.
        keyfile: A PEM file with the private key; None if it is in `certfile`.
        password: The password of an encrypted key; a `str` stands for its UTF-8.
        ca_certs: A PEM file with the authorities of client certificates, which are then required; None for no client
            certificates.

    Raises:
        OSError: A file cannot be read, or has other content.
        ValueError: The password is too long.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certfile, keyfile, _no_password if password is None else password)
    context.set_alpn_protocols(["http/1.1"])
    if ca_certs is not None:
        context.load_verify_locations(ca_certs)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> NoReturn:
    """Rejects a password request, because OpenSSL would ask at the terminal and block."""
    raise OSError("the key is encrypted, and needs a password")
