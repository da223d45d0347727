"""A certificate for localhost, and a client's context that trusts it."""

import ssl
from pathlib import Path
from typing import NamedTuple

__all__ = ["Tls", "make"]


class Tls(NamedTuple):
    """The contexts of both ends, and the files of the server.

    Attributes:
        server: A context with the certificate.
        client: A context that trusts its authority.
        certfile: The certificate, as PEM.
        keyfile: The key, as PEM without a password.
        cafile: The certificate of the authority, as PEM.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    certfile: str
    keyfile: str
    cafile: str

    @property
    def options(self) -> tuple[str, ...]:
        """The options for `duck serve`, or for the command of uvicorn."""
        return ("--ssl-certfile", self.certfile, "--ssl-keyfile", self.keyfile)


def make(folder: Path) -> Tls:
    """Issues a certificate by an authority of its own, with its files in a folder."""
    import trustme  # benchmarks do without

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", "::1")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return Tls(server, client, str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "ca.pem"))
