"""The TLS of `requests` for a socket: its ciphers, its authorities; see `http_transport`."""

import ssl
from functools import lru_cache
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context


@lru_cache(maxsize=16)
def tls_context(verify: str, client_certificate: tuple[str, str]) -> ssl.SSLContext:
    """Returns what `requests` would use; reading the authorities takes some milliseconds.

    Args:
        verify: File or folder of the authorities; those of `certifi` when empty.
        client_certificate: File of the client's certificate and of its key, each empty where there is none.

    Raises:
        OSError: When a file cannot be read, or is none of a certificate or of a key.
    """
    context = create_urllib3_context()
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    authorities = verify or DEFAULT_CA_BUNDLE_PATH
    if Path(authorities).is_dir():
        context.load_verify_locations(capath=authorities)
    else:
        context.load_verify_locations(cafile=authorities)
    certificate, key = client_certificate
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context
