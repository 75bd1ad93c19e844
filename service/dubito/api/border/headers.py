"""One header of a request, looked up as it was sent: most requests have few, and none of most."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of a name.

    Args:
        scope: of the request.
        name: in lower case.

    Returns:
        None where there is none.
    """
    for other, value in scope["headers"]:
        if other == name:
            text: str = value.decode("latin-1")
            return text
    return None


def header_list(scope: Scope, name: bytes) -> str:
    """All headers of a name as one, joined by commas; empty where there is none."""
    headers = scope["headers"]
    return ",".join([value.decode("latin-1") for other, value in headers if other == name])
