"""Whether the server lives, is ready, and what it has loaded."""

from __future__ import annotations

from dataclasses import dataclass

from dubito.answered import Health, HealthWorker
from dubito.models.pins import Pins
from dubito.serving.worker import Worker


@dataclass(frozen=True)
class Vitals:
    """The state of a server.

    Args:
        worker: owns the devices.
        pins: what shall be loaded.
        limit_s: age of the heartbeat at which the worker counts as dead.
    """

    worker: Worker
    pins: Pins
    limit_s: float

    def is_live(self) -> bool:
        """Whether the worker of every device beats, or ended and is being replaced."""
        return all(
            (state.is_running or state.is_lost) and state.heartbeat_age_s < self.limit_s
            for state in self.worker.states
        )

    def may_begin(self) -> bool:
        """Whether requests need not wait any more for what is pinned, loaded or not."""
        return self.is_live() and self.worker.is_running and self.pins.were_tried

    def health(self) -> Health:
        """The state of every worker and of every loaded version."""
        is_live, is_draining = self.is_live(), self.worker.is_draining
        return Health(
            is_live=is_live,
            is_ready=(
                is_live and self.worker.is_running and not is_draining and self.pins.are_loaded
            ),
            is_draining=is_draining,
            heartbeat_age_s=self.worker.heartbeat_age_s,
            lines=self.pins.lines(),
            workers=tuple(
                HealthWorker(state.device, state.is_running, state.heartbeat_age_s)
                for state in self.worker.states
            ),
        )
