"""What a connection may take, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from dubito.settings import Settings


@dataclass(frozen=True)
class ConnectionLimits:
    """The bounds of every connection.

    Args:
        connections: how many there may be.
        headers: of one request, with its trailers.
        header_bytes: of the request line and the headers together.
        header_s: time for them.
        transfer_s: longest pause of a body, or of who reads a reply.
        rate: bytes per second that a body or a reply may not stay behind.
        drain_s: time for what was accepted when the server ends.
    """

    connections: int
    headers: int
    header_bytes: int
    header_s: float
    transfer_s: float
    rate: int
    drain_s: float

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """The bounds that the settings name."""
        return cls(
            connections=settings.max_connections,
            headers=settings.max_headers,
            header_bytes=settings.max_header_bytes,
            header_s=settings.header_timeout_ms / 1000,
            transfer_s=settings.transfer_timeout_ms / 1000,
            rate=settings.min_transfer_rate,
            drain_s=settings.drain_timeout_ms / 1000,
        )
