"""Tracing where it is asked for; OpenTelemetry is looked for, and imported, only then."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito.telemetry.tracing import Tracing

_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_tracing(is_wanted: bool) -> None:
    """See that traces can be made where they are wanted.

    Raises:
        InputError: OpenTelemetry is not installed.
    """
    if is_wanted and not all(map(_is_there, _NEEDED)):
        raise InputError(
            "DUBITO_TRACING: expected OpenTelemetry and its exporter to be installed, found one "
            "missing: pip install 'dubito[otel]', or leave the setting out"
        )


def start_tracing() -> Tracing:
    """Make traces from now on."""
    from dubito.telemetry.tracing import Tracing

    return Tracing()


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
