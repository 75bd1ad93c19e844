"""The certificate of the server, looked at before anything is loaded."""

from __future__ import annotations

import ssl

from dubito.errors import InputError
from dubito.settings import Settings


def check_tls(settings: Settings) -> None:
    """Refuse a certificate that cannot be served with.

    Raises:
        InputError: the certificate or its key is missing, or they do not belong together.
    """
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return
    if cert is None or key is None:
        missing = "DUBITO_TLS_CERT" if cert is None else "DUBITO_TLS_KEY"
        raise InputError(f"TLS: expected a certificate and its key, got no {missing}: set both")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"TLS: expected a certificate and its key in PEM, got {cert} and {key} "
            f"({error.strerror or error}): correct DUBITO_TLS_CERT and DUBITO_TLS_KEY"
        ) from error
