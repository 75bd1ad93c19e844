"""The device worker's lane behind all requests, as a job uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from typing import TYPE_CHECKING, TypeVar

from dubito.serving.worker import Check, Job, Worker

if TYPE_CHECKING:
    from dubito.jobs.scan import Searchers

T = TypeVar("T")

_LOOK_S = 0.1  # time between two looks at whether the job was stopped


class StoppedError(Exception):
    """The job was cancelled, or is not this server's any more, or the server ends."""


class Lane:
    """The way of a job to the device; its tasks end when the job is stopped.

    Args:
        worker: owns the device.
        stopped: set when the job shall end.
        searchers: who searches in the device's place; None: the device does.
    """

    def __init__(
        self, worker: Worker, stopped: threading.Event, searchers: Searchers | None = None
    ) -> None:
        self._worker = worker
        self._stopped = stopped
        self.searchers = searchers

    def submit(self, task: Callable[[Check], T]) -> Job[T]:
        """Queue a task behind all requests.

        Raises:
            UnavailableError: the worker drains.
        """
        return self._worker.submit_behind(task)

    def result(self, job: Job[T]) -> T:
        """Wait for a task and return what it returns.

        Raises:
            StoppedError: the job was stopped.
            DubitoError: whatever the task raised.
        """
        while not wait([job.future], timeout=_LOOK_S).done:
            if self._stopped.is_set():
                job.abandon()
                raise StoppedError
        try:
            return job.future.result()
        except CancelledError as error:
            raise StoppedError from error

    def run(self, task: Callable[[Check], T]) -> T:
        """Queue a task and wait for what it returns; raises as `submit` and `result`."""
        return self.result(self.submit(task))

    def check(self) -> None:
        """End work outside the device.

        Raises:
            StoppedError: the job was stopped.
        """
        if self._stopped.is_set():
            raise StoppedError
