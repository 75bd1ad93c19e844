"""What a route reaches for: the application and the settings of the app it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from dubito.serving.application import Application
from dubito.settings import Settings


@dataclass(frozen=True)
class Access:
    """The facade and the settings."""

    application: Application
    settings: Settings


def access(request: Request) -> Access:
    """What the app of a request was made with."""
    found: Access = request.app.state.access
    return found
