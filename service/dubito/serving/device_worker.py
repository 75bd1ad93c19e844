"""One thread that owns a device, beats while it lives, and is replaced where it ends.

Flow: batch after batch of the schedule → a little wait where nothing may run → and so on, until
what waits is done and no more will come. Whatever ends the thread otherwise turns away what runs
on its device, and another thread takes its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from dubito.engine.replicas import at_device
from dubito.errors import UnavailableError
from dubito.serving.turns.job import Clock
from dubito.serving.turns.schedule import Schedule

RESTART_S = 1.0
"""After so long what a thread left behind may be asked again."""

_IDLE_BEAT_S = 0.5
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class WorkerState:
    """How a device's thread is.

    Args:
        device: as torch names it.
        is_running: whether the thread lives and takes work.
        is_lost: whether it ended and another one has yet to take its place.
        heartbeat_age_s: since it last showed that it lives.
    """

    device: str
    is_running: bool
    is_lost: bool
    heartbeat_age_s: float


class DeviceWorker:
    """The thread of one device.

    Args:
        device: as torch names it.
        clock: seconds.
        schedule_of: from what is called often while the thread works to what it does.
        is_draining: whether no more work will come.
        is_alone: whether no other thread takes from the queue.
    """

    def __init__(
        self,
        device: str,
        clock: Clock,
        schedule_of: Callable[[Callable[[], None]], Schedule],
        *,
        is_draining: Callable[[], bool],
        is_alone: Callable[[], bool],
    ) -> None:
        self._device = device
        self._clock = clock
        self._is_draining = is_draining
        self._is_alone = is_alone
        self._is_lost = False
        self._beat_s = clock()
        self.schedule = schedule_of(self._beat)
        self._thread = self._new_thread()

    def start(self) -> None:
        """Start the thread."""
        self._beat()
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, where it was started."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def state(self) -> WorkerState:
        """How the thread is now."""
        is_running = self._thread.is_alive() and not self._is_lost
        age_s = self._clock() - self._beat_s
        return WorkerState(self._device, is_running, self._is_lost, age_s)

    @property
    def is_lost(self) -> bool:
        """Whether the thread ended and another one has yet to take its place."""
        return self._is_lost

    def _new_thread(self) -> threading.Thread:
        name = f"dubito-worker-{self.schedule.number}"
        return threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        self._beat()
        self._is_lost = False
        try:
            with at_device(self.schedule.number):
                while self.schedule.run_next() or self._waits():
                    pass
        except BaseException:
            self._is_lost = True
            waiting = len(self.schedule.queue)
            _log.exception("device worker ended", device=self._device, waiting=waiting)
            self._replace()

    def _replace(self) -> None:
        """Turn away what the thread leaves behind, and let another one take its place."""
        error = UnavailableError(
            "the device's worker ended before the answer was there, and another takes its place: "
            "send the request again",
            retry_after_s=RESTART_S,
        )
        self.schedule.turn_away(error, is_alone=self._is_alone())
        with self.schedule.changed:
            if not self._is_draining():
                self._thread = self._new_thread()
                self._thread.start()

    def _waits(self) -> bool:
        """Wait a little for work; false where none will come any more."""
        with self.schedule.changed:
            self._beat()
            wait_s = self.schedule.ripens_in_s()
            if self._is_draining():
                return bool(self.schedule.queue)
            if wait_s > 0:
                self.schedule.changed.wait(min(wait_s, _IDLE_BEAT_S))
        return True

    def _beat(self) -> None:
        self._beat_s = self._clock()
