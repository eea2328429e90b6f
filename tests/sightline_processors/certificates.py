"""Certificates for loopback, made by `openssl` for one run of the tests."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """Files of one authority, a server's certificate for 127.0.0.1 and a client's.

    Attributes:
        authority: What both sides trust.
        server: Certificate and key of the server.
        client: Certificate and key of the client.
    """

    authority: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]

    def context(self, *, asks_client: bool = False) -> ssl.SSLContext:
        """Returns what the server speaks TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        if asks_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


def make_certificates(folder: Path) -> Certificates:
    """Makes the files; takes a tenth of a second."""
    authority, authority_key = folder / "authority.pem", folder / "authority.key"
    _openssl(
        "req", "-x509", *_NEW_KEY, "-keyout", authority_key, "-out", authority,
        "-subj", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    pairs = []
    for name in ("server", "client"):
        certificate, key, request = (folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        pairs.append((certificate, key))
    return Certificates(authority, pairs[0], pairs[1])


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
