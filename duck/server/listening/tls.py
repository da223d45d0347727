"""TLS contexts of a server, created from certificate files."""

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ..errors import ServingError

__all__ = ["CertificateError", "Certificates", "checked_context"]


class CertificateError(ServingError):
    """Certificate files cannot be used."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of a server's TLS; a call reads them and creates a context.

    Attributes:
        certfile: A PEM file with the certificate and its intermediate certificates.
        keyfile: A PEM file with the private key; None if it is in `certfile`.
        password: The password of an encrypted key.
        password_file: A file with the password in its first line.
        ca_certs: A PEM file with the authorities of client certificates, which are then required; None for no client
            certificates.
    """

    certfile: str
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    ca_certs: str | None = None

    def __call__(self) -> ssl.SSLContext:
        """Creates the context of a server.

        Raises:
            CertificateError: A file cannot be read, or has other content.
        """
        for path in filter(None, (self.certfile, self.keyfile, self.ca_certs, self.password_file)):
            if os.path.isdir(path) or not os.access(path, os.R_OK):
                raise CertificateError(f"cannot read {path}; check the path and its permissions")
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        except OSError as error:
            raise CertificateError(
                f"SSLKEYLOGFILE={error.filename}: {error.strerror}; correct it, or unset it"
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        with _expecting("a certificate and its own key", self.certfile, self.keyfile):
            context.load_cert_chain(self.certfile, self.keyfile, self._password())
        if self.ca_certs is not None:
            with _expecting("certificates of authorities", self.ca_certs):
                context.load_verify_locations(self.ca_certs)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _password(self) -> str | bytes | Callable[[], NoReturn]:
        if self.password_file is not None:
            return next(iter(Path(self.password_file).read_bytes().splitlines()), b"")
        return _no_password if self.password is None else self.password


def checked_context(context: Any) -> ssl.SSLContext:
    """Returns a TLS context from the application.

    A function without its `return` would serve without TLS, and a context for clients would fail each connection.

    Raises:
        TypeError, ValueError: It is no context, or one for clients.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext, or for run a function that returns one, not {context!r}")
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("ssl is for clients: make a context by ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)")
    return context


@contextlib.contextmanager
def _expecting(content: str, *files: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: the password is too long
        names = " with ".join(filter(None, files))
        raise CertificateError(f"cannot use {names}: {error.args[-1]}; give {content}, as PEM") from error


def _no_password() -> NoReturn:
    """Rejects a password request, because OpenSSL would ask at the terminal and block."""
    raise OSError("the key is encrypted, and needs a password")
