"""What stands at the moment a collector asks: the queue, what is loaded, jobs, live calibration.

All of it is read then, so that requests pay nothing for it; what the database does not tell in two
seconds is left out. Labels are those of loaded versions, of which there are few, and of states.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dubito.errors import DubitoError
from dubito.monitoring.monitor import MonitoringPage

if TYPE_CHECKING:
    from dubito.application import Application

_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
_VERSION = ["model", "version"]
_PATIENCE_S = 2.0  # less than a collector's


class Gauges(Collector):
    """Series that are read when they are asked for.

    Args:
        application: whose parts are looked at.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._asked: Future[list[Metric]] | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry would else collect all to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The series; those of the database are left out while it does not answer."""
        yield from self._server()
        yield from self._device()
        with suppress(TimeoutError):
            yield from self._asked_now().result(_PATIENCE_S)

    def _asked_now(self) -> Future[list[Metric]]:
        """The series of the database, which a thread reads; one that still waits is waited for."""
        with self._lock:
            if self._asked is None or self._asked.done():
                asked = self._asked = Future()
                threading.Thread(target=self._ask, args=(asked,), daemon=True).start()
            return self._asked

    def _ask(self, asked: Future[list[Metric]]) -> None:
        found: list[Metric] = []
        try:
            for series in (self._jobs, self._live):
                with suppress(DubitoError):
                    found.extend(series())
            asked.set_result(found)
        except BaseException as error:
            asked.set_exception(error)

    def _server(self) -> Iterator[Metric]:
        application = self._application
        worker, health = application.worker, application.vitals.health()
        yield _gauge("dubito_ready", "Whether the server is ready.", health.is_ready)
        yield _gauge(
            "dubito_worker_heartbeat_age_seconds",
            "Time since the workers of all devices have shown that they live.",
            worker.heartbeat_age_s,
        )
        running = sum(state.is_running for state in worker.states)
        yield _gauge("dubito_running_devices", "Devices whose workers take work.", running)
        yield _gauge(
            "dubito_queue_rows", "Rows of predictions that wait for a device.", worker.queued_rows
        )
        yield _gauge(
            "dubito_queue_wait_seconds",
            "Time until all that waits or is computed is done.",
            worker.entrance.ahead_s(),
        )
        yield _gauge(
            "dubito_queue_work",
            "Rows x samples of all requests that wait or are computed.",
            worker.queued_work,
        )
        yield _gauge(
            "dubito_pending_bytes", "Bytes of bodies held now.", application.admission.held_bytes
        )
        counts = application.monitoring.counts
        rows = CounterMetricFamily(
            "dubito_monitoring_rows", "Rows of predictions for monitoring.", labels=["outcome"]
        )
        rows.add_metric(["written"], counts.num_written)
        rows.add_metric(["dropped"], counts.num_dropped)
        yield rows

    def _device(self) -> Iterator[Metric]:
        catalogue = self._application.library.catalogue
        loaded = catalogue.loaded()
        yield _gauge("dubito_loaded_versions", "Versions on the device.", len(loaded))
        yield _gauge("dubito_loaded_bytes", "Bytes of their weights.", catalogue.held_bytes)
        varies = GaugeMetricFamily(
            "dubito_samples_vary",
            "Whether the passes of the last Monte Carlo prediction differed.",
            labels=_VERSION,
        )
        for version in loaded:
            is_varied = catalogue.varies(version.loaded_as)
            if is_varied is not None:
                varies.add_metric([version.model, str(version.number)], is_varied)
        yield varies
        memory = GaugeMetricFamily(
            "dubito_device_memory_bytes",
            "Memory of GPUs that torch holds; for a CPU there is process_resident_memory_bytes.",
            labels=["device"],
        )
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            for index in range(torch.cuda.device_count()):
                memory.add_metric([f"cuda:{index}"], torch.cuda.memory_reserved(index))
        yield memory

    def _jobs(self) -> Iterator[Metric]:
        counts = self._application.jobs.store.counts()
        jobs = GaugeMetricFamily(
            "dubito_jobs", "Jobs of all servers on this database.", labels=["state"]
        )
        for state in _STATES:
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs

    def _live(self) -> Iterator[Metric]:
        """How the loaded versions stand with what their calibrations promised."""
        families = {
            name: GaugeMetricFamily(f"dubito_{name}", text, labels=[*_VERSION, *more])
            for name, text, *more in (
                ("live_outcomes", "True outcomes that the live figures are of."),
                (
                    "live_coverage_ratio",
                    "Share of sets or intervals that held the truth, the least.",
                ),
                ("promised_coverage_ratio", "Coverage that the calibration promised."),
                ("live_flag_ratio", "Share of these rows that were flagged."),
                ("promised_flag_ratio", "False-alarm rate that the calibration promised."),
                ("drift_martingale", "Capital of the bet that inputs look as they did."),
                ("drift_alarm_level", "Capital at which the drift alarm rings."),
                ("alarm", "Whether an alarm of monitoring is up.", "alarm"),
            )
        }
        for version in self._application.library.catalogue.loaded():
            page = self._application.monitoring.page(
                version.model, str(version.number), patience_s=0.0
            )
            for name, label, value in _figures(page):
                labels = [version.model, str(version.number), *label]
                families[name].add_metric(labels, value)
        yield from families.values()


def _figures(page: MonitoringPage) -> Iterator[tuple[str, list[str], float]]:
    """Names of series, further labels, and values."""
    if page.calibration is None:
        return
    promised = page.calibration.document
    coverage, alpha = promised["coverage"], promised["alpha"]
    assert isinstance(coverage, float)
    assert isinstance(alpha, float)
    yield "promised_coverage_ratio", [], coverage
    yield "promised_flag_ratio", [], alpha
    for alarm in ("coverage", "flag_rate", "drift"):
        yield "alarm", [alarm], alarm in page.alarms
    if page.figures is not None:
        yield "live_outcomes", [], page.figures.num_outcomes
        yield "live_coverage_ratio", [], min(rate.observed for rate in page.figures.coverage)
        yield "live_flag_ratio", [], page.figures.flag_rate.observed
    if page.drift is not None:
        yield "drift_martingale", [], page.drift.state.martingale
        yield "drift_alarm_level", [], page.drift.state.level


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
