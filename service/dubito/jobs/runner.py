"""The thread that takes jobs, keeps them, and ends them.

One job runs at a time. While it does, a second thread raises its beat; a job that was cancelled,
or that another server took over, stops at its next block. What has failed for reasons of the
server, such as a database that does not answer, is left for another try.
"""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime, timedelta

import structlog

from dubito.errors import DubitoError, UnavailableError
from dubito.jobs.desk import Desk
from dubito.jobs.lane import Lane, StoppedError
from dubito.jobs.scan import Searchers
from dubito.jobs.task import Task
from dubito.models.library import Library
from dubito.pools import Shelf
from dubito.registry import JobFact
from dubito.registry.jobs import JobStore
from dubito.serving.worker import Worker
from dubito.settings import Settings

_MAX_ATTEMPTS = 5  # in a row without a checkpoint
_TIDY_EVERY_S = 60.0
_BEATS_IN_A_LEASE = 4
_CLOSE_S = 30.0
_log = structlog.get_logger(__name__)


class Runner:
    """Runs the jobs of the database, those that no other server has.

    Args:
        desk: where jobs are asked for.
        library: the models.
        shelf: the pools.
        worker: owns the device.
        settings: times and bounds.
    """

    def __init__(
        self, desk: Desk, library: Library, shelf: Shelf, worker: Worker, settings: Settings
    ) -> None:
        self._desk = desk
        self._store: JobStore = desk.store
        self._library = library
        self._shelf = shelf
        self._worker = worker
        self._settings = settings
        self._owner = f"server-{secrets.token_hex(8)}"
        self._wake = threading.Event()
        self._ends = threading.Event()
        self._stopped = threading.Event()  # of the job that runs
        self._current: str | None = None
        self._seen: dict[str, tuple[int, float]] = {}
        self._tidied_s = -_TIDY_EVERY_S
        self._only: str | None = None
        self._searchers: Searchers | None = None
        self._thread = threading.Thread(target=self._run, name="dubito-jobs", daemon=True)
        desk.listen(self._hear)

    def start(self, *, only: str | None = None, searchers: Searchers | None = None) -> None:
        """Start the thread.

        Args:
            only: id of the one job that it shall take; None: all.
            searchers: who searches in the place of this server's device.
        """
        self._only, self._searchers = only, searchers
        self._thread.start()

    def close(self) -> None:
        """Leave the job that runs to another server, or to the next start, and end the thread."""
        self._ends.set()
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _hear(self, job: str) -> None:
        """A job was accepted or cancelled here."""
        if job == self._current:
            self._stopped.set()
        self._wake.set()

    def _run(self) -> None:
        is_told = False
        while not self._ends.is_set():
            try:
                self._tidy()
                fact = self._take()
                is_told = False
                if fact is not None:
                    self._do(fact)
                    continue
            except DubitoError as error:  # told once, however often it is tried
                if not is_told:
                    _log.warning("jobs wait", reason=str(error))
                is_told = True
            except Exception:  # a job must never end the loop
                _log.exception("jobs wait")
            self._wake.wait(self._settings.poll_ms / 1000)
            self._wake.clear()

    def _take(self) -> JobFact | None:
        """The oldest job that waits, or whose server has been silent for a lease."""
        now_s, lease_s = time.monotonic(), self._settings.job_lease_ms / 1000
        active = self._store.active()
        for job, state, beat in active:
            if state == "running" and self._seen.get(job, (None,))[0] != beat:
                self._seen[job] = beat, now_s
        self._seen = {job: self._seen[job] for job, _, _ in active if job in self._seen}
        for job, state, beat in active:
            is_open = state == "queued" or now_s - self._seen[job][1] > lease_s
            if is_open and self._only in (None, job):
                fact = self._store.take(job, state, beat, self._owner)
                if fact is not None:
                    return fact
        return None

    def _do(self, fact: JobFact) -> None:
        self._stopped = threading.Event()
        self._current = fact.id
        ended = threading.Event()
        keeper = threading.Thread(
            target=self._keep, args=(fact.id, self._stopped, ended), name="dubito-job-keeper"
        )
        keeper.start()
        try:
            self._attempt(fact)
        finally:
            ended.set()
            keeper.join()
            self._current = None

    def _attempt(self, fact: JobFact) -> None:
        log = _log.bind(job=fact.id, kind=fact.kind, model=fact.model, version=fact.version)
        if self._only is None:  # else the command line tells it
            log.info("job runs", done=fact.done, total=fact.total, attempt=fact.attempts)
        try:
            if fact.attempts > _MAX_ATTEMPTS:
                raise DubitoError(
                    f"{fact.attempts - 1} tries in a row ended before the first checkpoint"
                )
            task = Task(
                fact,
                self._owner,
                self._desk,
                self._library,
                self._shelf,
                self._settings,
                Lane(self._worker, self._stopped, self._searchers),
            )
            task.run()
        except StoppedError:
            self._leave(fact)
        except UnavailableError as error:
            log.warning("job waits", reason=str(error))
            if self._ends.is_set() or self._worker.is_draining:
                self._leave(fact)
            else:
                self._ends.wait(self._settings.poll_ms / 1000)
                self._store.release(fact.id, self._owner, counts=True)
        except DubitoError as error:
            if self._only is None:
                log.warning("job failed", reason=str(error))
            self._fail(fact, error.detail)
        except Exception:
            log.exception("job failed")
            self._fail(fact, "internal error: the log has the details under the job's id")
        else:
            if self._only is None:
                log.info("job ended")

    def _leave(self, fact: JobFact) -> None:
        """The job is not ours any more, or the server ends."""
        if self._store.release(fact.id, self._owner):
            return
        if self._store.get(fact.id).state == "cancelled":
            self._desk.clear(fact.id)

    def _fail(self, fact: JobFact, reason: str) -> None:
        if self._store.fail(fact.id, self._owner, reason):
            self._desk.clear(fact.id)

    def _keep(self, job: str, stopped: threading.Event, ended: threading.Event) -> None:
        """Raise the beat of a job until it has ended, or is not ours any more."""
        every_s = self._settings.job_lease_ms / 1000 / _BEATS_IN_A_LEASE
        while not ended.wait(every_s):
            try:
                if not self._store.beat(job, self._owner):
                    stopped.set()
                    return
            except DubitoError as error:
                _log.warning("the beat of a job is late", job=job, reason=str(error))

    def _tidy(self) -> None:
        """Forget jobs that were finished long ago."""
        if time.monotonic() - self._tidied_s < _TIDY_EVERY_S:
            return
        self._tidied_s = time.monotonic()
        retention = timedelta(milliseconds=self._settings.job_retention_ms)
        expired = self._store.expired(datetime.now(UTC) - retention)
        for job in expired:
            self._desk.clear(job)
        if expired:
            self._store.remove(expired)
