"""Whether the server lives, is ready, and what it has loaded."""

from __future__ import annotations

from dataclasses import dataclass

from dubito.answered import Health
from dubito.models.pins import Pins
from dubito.serving.worker import Worker


@dataclass(frozen=True)
class Vitals:
    """The state of a server.

    Args:
        worker: owns the device.
        pins: what shall be loaded.
        limit_s: age of the heartbeat at which the worker counts as dead.
    """

    worker: Worker
    pins: Pins
    limit_s: float

    def is_live(self) -> bool:
        """Whether the device worker beats, or ended and is being replaced."""
        is_there = self.worker.is_running or self.worker.is_lost
        return is_there and self.worker.heartbeat_age_s < self.limit_s

    def health(self) -> Health:
        """The state of the worker and of every loaded version."""
        is_live, is_draining = self.is_live(), self.worker.is_draining
        return Health(
            is_live=is_live,
            is_ready=(
                is_live and self.worker.is_running and not is_draining and self.pins.are_loaded
            ),
            is_draining=is_draining,
            heartbeat_age_s=self.worker.heartbeat_age_s,
            lines=self.pins.lines(),
        )
