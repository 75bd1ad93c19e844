"""What a route reaches for: the application and the settings of the app it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event

from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.types import Scope

from dubito.api.border.lag import LoopLag
from dubito.application import Application
from dubito.settings import Settings

_PREPARERS = 4


@dataclass(frozen=True)
class Access:
    """The parts of the service and the settings.

    Args:
        application: the parts.
        settings: of the app.
        is_ending: set once the server waits for its connections to close.
        decoders: threads that decode long bodies; more would wait for each other, and others for
            all of them.
        preparers: threads that read tables.
        lag: how late the event loop is.
        is_over: set once what is not answered yet gets a 503.
    """

    application: Application
    settings: Settings
    is_ending: Event = field(default_factory=Event)
    decoders: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    preparers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_PREPARERS))
    lag: LoopLag = field(default_factory=LoopLag)
    is_over: Event = field(default_factory=Event)


def access(request: Request) -> Access:
    """Return the parts and the settings of the app that a request came to."""
    return access_of(request.scope)


def access_of(scope: Scope) -> Access:
    """The parts and the settings, for what stands before the routes."""
    held: Access = scope["app"].state.access
    return held
