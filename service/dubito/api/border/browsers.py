"""Pages in browsers: which may ask, and what they may do with replies.

A page of another origin may ask where DUBITO_CORS_ORIGINS names it. A server that asks for no key
refuses what other pages send without being asked, such as a form: the browser sits on the machine
that the server trusts.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import Scope

from dubito.api.border.headers import header
from dubito.errors import ForbiddenError
from dubito.settings import Settings

_INLINE = "'self' 'unsafe-inline'"  # the page of documentation
_POLICY = (
    f"default-src 'self'; script-src {_INLINE}; style-src {_INLINE}; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_YEAR_S = 365 * 24 * 3600


def security_headers(settings: Settings) -> list[tuple[str, str]]:
    """Return the headers of every reply."""
    headers = [
        ("content-security-policy", _POLICY),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ]
    if settings.tls_cert is not None:
        headers.append(("strict-transport-security", f"max-age={_YEAR_S}"))
    return headers


def let_pages_ask(app: FastAPI, settings: Settings) -> None:
    """Let pages of the origins of the settings ask from a browser; they send a key as all do."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                *("Authorization", "Content-Encoding", "If-Match", "If-None-Match"),
                *("Inference-Header-Content-Length", "X-Request-Id", "X-Request-Timeout-Ms"),
                "X-Unobserved",
            ],
            expose_headers=[
                *("ETag", "Inference-Header-Content-Length", "Location", "Retry-After"),
                "X-Request-Id",
            ],
        )


def check_origin(scope: Scope, settings: Settings) -> None:
    """Refuse what a page of another origin sends to a server that asks for no key.

    Raises:
        ForbiddenError: the origin is not the server's, nor one of the settings.
    """
    origin = header(scope, b"origin")
    if origin is None or origin in settings.cors_origins:
        return
    if urlsplit(origin).netloc != (header(scope, b"host") or ""):
        raise ForbiddenError(
            f"origin: expected a page of this server, got {origin[:80]!r}: name it in "
            "DUBITO_CORS_ORIGINS if it may ask"
        )
