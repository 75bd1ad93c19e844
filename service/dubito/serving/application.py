"""The facade: everything that routes and the command line do, free of HTTP.

Flow of a prediction: order → sampling and bounds → version → engine → inputs checked → a place in
the queue → the worker runs the engine → columns with the calibration → reply.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from dubito.calibration.record import Calibration
from dubito.engine import Engine, Inputs, Sampling
from dubito.errors import InputError
from dubito.registry import AliasFact, CalibrationFact, ModelFact, Registry, VersionFact
from dubito.registry.names import DEFAULT_ALIAS
from dubito.serving.budget import Budget
from dubito.serving.calibrating import Passes, check_sampling, fit, read_truths
from dubito.serving.catalogue import Catalogue
from dubito.serving.members import (
    Predictor,
    count_networks,
    find_members,
    num_values,
    predictor,
)
from dubito.serving.orders import (
    CalibrateOrder,
    CalibrateReply,
    Health,
    PredictOrder,
    PredictReply,
    VersionPage,
)
from dubito.serving.outputs import build_outputs, check_outputs
from dubito.serving.sampling import merge_sampling
from dubito.serving.worker import Check, Job, Reservation, Worker
from dubito.settings import Settings

_LEFT_OVER_AFTER_S = 3600


@dataclass(frozen=True)
class _Head:
    """What a prediction was made with."""

    version: VersionFact
    members: tuple[int, ...] | None
    sampling: Sampling
    fact: CalibrationFact | None


class Application:
    """Registry, loaded engines and the device worker behind one door.

    Args:
        settings: where the state lies, and the bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        settings.incoming_dir.mkdir(exist_ok=True)
        _clear_left_overs(settings.incoming_dir)
        self._registry = Registry(settings.database_url, settings.objects_dir)
        self._catalogue = Catalogue(self._load, settings.max_loaded_versions)
        self._worker = Worker(settings.max_queued_work)
        self._bodies = Budget("bytes of bodies", settings.max_pending_bytes)

    def start(self) -> None:
        """Start the device worker."""
        self._worker.start()

    def close(self) -> None:
        """Finish what waits, then close everything."""
        self._worker.close(self._settings.drain_timeout_ms / 1000)
        self._registry.close()

    @contextmanager
    def running(self) -> Iterator[Application]:
        """Started on entry, closed on exit."""
        self.start()
        try:
            yield self
        finally:
            self.close()

    @property
    def worker(self) -> Worker:
        """The thread that owns the device."""
        return self._worker

    def reserve(self) -> Reservation:
        """A first place in the queue, before a body is read; it grows when its size is known.

        Raises:
            QueueFullError: nothing is free.
            UnavailableError: the server drains.
        """
        return self._worker.reserve(1)

    @contextmanager
    def admitted(self, body_bytes: int) -> Iterator[Reservation]:
        """A place for a request, and room for its body, both given back at the end.

        Args:
            body_bytes: length of the body, or the limit where it does not say.

        Raises:
            QueueFullError: nothing is free.
            UnavailableError: the server drains.
        """
        place = self.reserve()
        try:
            with self._bodies.holding(body_bytes):
                yield place
        finally:
            place.release()

    def predict(
        self,
        order: PredictOrder,
        *,
        reservation: Reservation | None = None,
        deadline_s: float | None = None,
    ) -> Job[PredictReply]:
        """Check a prediction and queue it.

        Args:
            order: what is asked.
            reservation: a place that the caller holds; it is given back in every case.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            DubitoError: of the class that names the reason.
        """
        with self._place(reservation) as place:
            version = self._registry.version(order.model, order.version)
            sampling = self._sampling(order, version)
            _check_share("coverage", order.coverage)
            members = find_members(self._registry, order.model, order.sampling.members)
            engine = predictor(self._catalogue, version, members)
            check_outputs(order.outputs, engine.manifest.task, sampling)
            inputs, rows = self._read(engine, order.inputs)
            if order.outputs and "samples" in order.outputs:
                limit = self._settings.max_sample_values
                self._check_values(num_values(rows, engine, sampling), limit)
            place.resize(rows * sampling.passes * count_networks(engine))
            fact = self._active(version) if order.calibration == "active" else None
            head = _Head(version, tuple(one.number for one in members) or None, sampling, fact)

            def task(check: Check) -> PredictReply:
                return self._run_predict(order, head, engine, inputs, check)

            return self._worker.submit(place, task, deadline_s=deadline_s)

    def calibrate(
        self,
        order: CalibrateOrder,
        *,
        reservation: Reservation | None = None,
        deadline_s: float | None = None,
    ) -> Job[CalibrateReply]:
        """Check labelled rows and queue the fit; its result is stored and made active.

        Args:
            order: what is asked.
            reservation: a place that the caller holds; it is given back in every case.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            DubitoError: of the class that names the reason.
        """
        with self._place(reservation) as place:
            version = self._registry.version(order.model, order.version)
            sampling = self._sampling(order, version)
            check_sampling(sampling)
            _check_share("alpha", order.alpha)
            _check_share("coverage", order.coverage)
            engine = self._catalogue.get(version.digest)
            inputs, rows = self._read(engine, order.inputs)
            truths = read_truths(order, engine.manifest, rows)
            ood_inputs: dict[str, Tensor] | None = None
            if order.ood_inputs is not None:
                ood_inputs, ood_rows = self._read(engine, order.ood_inputs)
                rows += ood_rows
            limit = self._settings.max_calibration_values
            self._check_values(num_values(rows, engine, sampling), limit)
            place.resize(rows * sampling.passes)

            def task(check: Check) -> CalibrateReply:
                taken = Passes.take(engine, inputs, ood_inputs, sampling, check)
                document = fit(taken, truths, order, sampling).to_json()
                check()
                fact = self._registry.add_calibration(version.model, str(version.number), document)
                return CalibrateReply(version.model, version.number, fact.number, document)

            return self._worker.submit(place, task, deadline_s=deadline_s)

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A private file for a bundle that is on its way in; gone afterwards."""
        handle, name = tempfile.mkstemp(dir=self._settings.incoming_dir, suffix=".dubito")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def register(self, model: str, path: Path) -> VersionFact:
        """Prove that a bundle loads and store it as the model's next version.

        Args:
            model: name of the model.
            path: the bundle; nobody may write to it meanwhile.

        Raises:
            BundleRefusedError: it cannot be read or run; nothing is stored.
        """
        settings = self._settings
        sampling = Sampling(settings.num_samples, settings.seed, draw=settings.draw)
        return self._registry.register(
            model,
            path,
            defaults=asdict(sampling),
            prove=lambda bundle: Engine.load(bundle, device=settings.device),
        )

    def models(self) -> tuple[ModelFact, ...]:
        """All models."""
        return self._registry.models()

    def model(self, name: str) -> ModelFact:
        """One model."""
        return self._registry.model(name)

    def version(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionPage:
        """One version with its state and active calibration."""
        return self._page(self._registry.version(model, reference))

    def is_loaded(self, version: VersionFact) -> bool:
        """Whether a version is on the device."""
        return self._catalogue.is_loaded(version.digest)

    def set_alias(
        self, model: str, alias: str, version: int, *, if_match: frozenset[int] | None = None
    ) -> AliasFact:
        """Point an alias to a version."""
        return self._registry.set_alias(model, alias, version, if_match=if_match)

    def delete_version(self, model: str, reference: str) -> None:
        """Delete a version that no alias names."""
        digest = self._registry.version(model, reference).digest
        self._registry.delete_version(model, reference)
        self._catalogue.drop(digest)

    def calibration(self, model: str, reference: str = DEFAULT_ALIAS) -> CalibrationFact | None:
        """The active calibration of a version."""
        return self._registry.calibration(model, reference)

    def set_active_calibration(
        self, model: str, reference: str, number: int | None
    ) -> CalibrationFact | None:
        """Make another calibration the active one, or none."""
        return self._registry.set_active_calibration(model, reference, number)

    def is_live(self) -> bool:
        """Whether the device worker beats."""
        limit_s = self._settings.heartbeat_limit_ms / 1000
        return self._worker.is_running and self._worker.heartbeat_age_s < limit_s

    def health(self) -> Health:
        """The state of the worker and of every loaded version."""
        loaded = tuple(
            self._page(version)
            for model in self._registry.models()
            for version in model.versions
            if self._catalogue.is_loaded(version.digest)
        )
        is_live, is_draining = self.is_live(), self._worker.is_draining
        return Health(
            is_live=is_live,
            is_ready=is_live and not is_draining,
            is_draining=is_draining,
            heartbeat_age_s=self._worker.heartbeat_age_s,
            loaded=loaded,
        )

    def _load(self, digest: str) -> Engine:
        return Engine.load(
            self._registry.bundle(digest),
            device=self._settings.device,
            memory_budget_bytes=self._settings.memory_budget_bytes,
        )

    def _run_predict(
        self,
        order: PredictOrder,
        head: _Head,
        engine: Predictor,
        inputs: dict[str, Tensor],
        check: Check,
    ) -> PredictReply:
        version, sampling, fact = head.version, head.sampling, head.fact
        calibration = None if fact is None else Calibration.from_json(fact.document)
        values = num_values(len(next(iter(inputs.values()))), engine, sampling)
        built = build_outputs(
            order,
            engine,
            inputs,
            sampling,
            calibration,
            check,
            may_keep_samples=values <= self._settings.max_sample_values,
        )
        if built.varies is not None:
            self._catalogue.note_variation(version.digest, built.varies)
        return PredictReply(
            model=version.model,
            version=version.number,
            members=head.members,
            sampling=sampling,
            calibration=fact.number if fact is not None and built.calibration is not None else None,
            warnings=built.warnings,
            outputs=built.outputs,
        )

    @contextmanager
    def _place(self, reservation: Reservation | None) -> Iterator[Reservation]:
        """A place that is given back if what follows fails; else the worker does it."""
        place = self.reserve() if reservation is None else reservation
        try:
            yield place
        except BaseException:
            place.release()
            raise

    def _page(self, version: VersionFact) -> VersionPage:
        return VersionPage(
            version=version,
            is_loaded=self._catalogue.is_loaded(version.digest),
            varies=self._catalogue.varies(version.digest),
            calibration=self._active(version),
        )

    def _active(self, version: VersionFact) -> CalibrationFact | None:
        if version.active_calibration is None:
            return None
        return self._registry.calibration(
            version.model, str(version.number), version.active_calibration
        )

    def _sampling(self, order: PredictOrder | CalibrateOrder, version: VersionFact) -> Sampling:
        return merge_sampling(
            order.sampling, version.defaults, max_num_samples=self._settings.max_num_samples
        )

    def _read(self, engine: Predictor, given: Inputs) -> tuple[dict[str, Tensor], int]:
        for rows in given.values() if isinstance(given, Mapping) else [given]:
            if isinstance(rows, Sequence):  # counted before millions of lists become an array
                self._check_rows(len(rows))
        inputs = engine.read_inputs(given)
        num_rows = len(next(iter(inputs.values())))
        self._check_rows(num_rows)
        return inputs, num_rows

    def _check_rows(self, rows: int) -> None:
        if rows > self._settings.max_rows:
            raise InputError(
                f"`inputs` expects at most {self._settings.max_rows} rows, got {rows}: "
                "send them in several requests"
            )

    def _check_values(self, values: int, limit: int) -> None:
        if values > limit:
            raise InputError(
                f"passes x rows x outputs: expected at most {limit} numbers, got {values}: "
                "send fewer rows or ask for fewer samples"
            )


def _clear_left_overs(folder: Path) -> None:
    """Remove what killed uploads left behind; younger files may still be on their way."""
    for path in folder.glob("*.dubito"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_OVER_AFTER_S:
                path.unlink()


def _check_share(name: str, value: float | None) -> None:
    if value is not None and not 0.0 < value < 1.0:
        raise InputError(f"`{name}` expects a number between 0 and 1, got {value}: such as 0.9")
