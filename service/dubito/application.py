"""The parts of the service: made, started and closed here, free of HTTP.

What the parts are for is in their own modules; routes and commands use them as attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dubito.calibration.cache import Calibrations
from dubito.gauges import Gauges
from dubito.jobs import Desk, Runner
from dubito.keys import Keyring
from dubito.models.library import Library
from dubito.models.opening import open_database, open_objects
from dubito.models.pins import Pins
from dubito.monitoring.monitor import Monitoring
from dubito.pools import Shelf
from dubito.registry import Registry
from dubito.registry.jobs import JobStore
from dubito.registry.keys import KeyStore
from dubito.registry.pools import PoolStore
from dubito.serving.admission import Admission
from dubito.serving.asking import Asking
from dubito.serving.inferences import Inferences
from dubito.serving.vitals import Vitals
from dubito.serving.worker import Worker
from dubito.settings import Settings
from dubito.telemetry import Telemetry
from dubito.telemetry.starting import start_tracing


class Application:
    """All parts of one process.

    Args:
        settings: where the state lies, and the bounds.

    Attributes:
        registry: what is known and kept of models.
        library: versions, and which of them are loaded.
        keys: who may ask what.
        monitoring: what is kept of predictions, their outcomes, and the alarms.
        worker: the queue, and the threads that own the devices.
        admission: time and a place in its queue, before a body is read.
        ask: predictions, calibrations, evaluations and selections.
        inferences: how many there were, and how long they took.
        vitals: whether the server lives, and is ready.
        pools: stored rows.
        jobs: long work, asked for.
        runner: long work, done.
        telemetry: what happened, for a collector.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        database, objects = open_database(settings), open_objects(settings)
        calibrations = Calibrations()
        self.telemetry = Telemetry(settings.max_batch_rows)
        self._is_traced = settings.tracing
        self._drain_s = settings.drain_timeout_ms / 1000
        self.registry = Registry(database, objects)
        self.library = Library(self.registry, settings)
        self.keys = Keyring(KeyStore(database), self.library.facts, settings)
        self.monitoring = Monitoring(self.registry, self.library, calibrations, settings)
        self._pins = Pins(self.library, settings.pinned_models)
        self.worker = Worker(
            settings.max_queued_work,
            max_wait_s=settings.max_queue_ms / 1000,
            weights=settings.shares,
            delay_s=settings.max_batch_delay_ms / 1000,
            devices=settings.used_devices,
        )
        self.admission = Admission(self.worker, settings.max_pending_bytes)
        self.ask = Asking(
            self.registry,
            self.library,
            calibrations,
            self.monitoring,
            self.worker,
            self.telemetry,
            settings,
        )
        self.inferences = Inferences()
        self.vitals = Vitals(self.worker, self._pins, settings.heartbeat_limit_ms / 1000)
        self.pools = Shelf(PoolStore(database, objects), settings)
        self.jobs = Desk(JobStore(database), objects, self.library, self.pools, settings)
        self.runner = Runner(self.jobs, self.library, self.pools, self.worker, settings)
        self.telemetry.registry.register(Gauges(self))

    def start(self) -> None:
        """Start the workers of the devices."""
        self.worker.start()

    def serve(self) -> None:
        """Start as a server: follow what others change, and keep loaded what is pinned."""
        if self._is_traced:
            self.telemetry.tracing = start_tracing()
        self.library.facts.start()
        self.monitoring.start()
        self.start()
        self._pins.start()
        self.runner.start()

    def close(self) -> None:
        """Finish what waits, leave the jobs for later, then close everything."""
        self.runner.close()
        self.worker.close(self._drain_s)
        self.monitoring.close()
        self._pins.close()
        self.library.facts.close()
        self.registry.close()
        if self.telemetry.tracing is not None:
            self.telemetry.tracing.close()

    @contextmanager
    def running(self) -> Iterator[Application]:
        """Started on entry, closed on exit."""
        self.start()
        try:
            yield self
        finally:
            self.close()
