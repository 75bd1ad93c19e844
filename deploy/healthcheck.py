"""Whether the server of this container is ready: exit code 0, else 1 and the reason."""

import os
import ssl
import sys
import urllib.request

LIMIT_S = 4


def main() -> None:
    """Ask `/health/ready` on loopback, over TLS where the server has a certificate."""
    port = os.environ.get("DUBITO_PORT", "8000")
    scheme = "https" if os.environ.get("DUBITO_TLS_CERT") else "http"
    context = ssl.create_default_context()
    context.check_hostname = False  # the certificate is for the name that others call it by
    context.verify_mode = ssl.CERT_NONE
    try:
        url = f"{scheme}://127.0.0.1:{port}/health/ready"
        urllib.request.urlopen(url, timeout=LIMIT_S, context=context).close()
    except OSError as error:
        sys.exit(f"not ready: {error}")


if __name__ == "__main__":
    main()
