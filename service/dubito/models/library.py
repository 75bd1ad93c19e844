"""The models as requests meet them: versions, and what of them is on the device of this server.

What the registry alone can do is asked of it; it tells the library of every change.

An alias moves in three steps: the move is checked, the new version is loaded and warm, the move is
written down. So no request meets a version that is not ready, and one that cannot be loaded
leaves everything as it was.
"""

from __future__ import annotations

import io
import time
from collections.abc import Hashable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

from dubito import disk
from dubito.answered import VersionPage
from dubito.arrays import load
from dubito.asked import SamplingOptions
from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import FITTED, OF_A_CALL, Precision
from dubito.engine.findings import Findings
from dubito.engine.network import Network
from dubito.engine.replicas import load_on, replicas
from dubito.engine.summary import summary
from dubito.errors import ConflictError, DubitoError
from dubito.models.catalogue import Catalogue
from dubito.models.companions import Companions
from dubito.models.sampling import merge_sampling
from dubito.models.warming import warm_up
from dubito.names import ANONYMOUS, DEFAULT_ALIAS
from dubito.registry import AliasFact, CalibrationFact, Registry, VersionFact
from dubito.registry.facts import loaded_as
from dubito.registry.fits import FitFact, NewFit
from dubito.registry.following import Following
from dubito.registry.noting import Change
from dubito.registry.revisions import Expected
from dubito.settings import Settings

_LEFT_OVER_AFTER_S = 3600
_GONE = ("retire", "drop")  # changes after which a version answers no more


class AtHand(NamedTuple):
    """A version that answers: its engine, its active calibration, and what is kept with both."""

    version: VersionFact
    engine: Engine
    calibration: CalibrationFact | None
    kept: dict[Hashable, object]


class Library:
    """Versions, their calibrations, and their engines on this server.

    Args:
        registry: where they are kept.
        settings: the devices, and the bounds of what is loaded.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._findings = Findings(settings.findings_dir)
        disk.make(settings.incoming_dir)
        _clear_left_overs(settings.incoming_dir)
        self._unloaded: set[str] = set()  # names of what shall stay so until it is asked for
        self.companions = Companions()
        self.facts = Following(registry.changes, settings.poll_ms / 1000)
        self.catalogue = Catalogue(
            self._load, settings.max_loaded_versions, settings.max_loaded_bytes
        )
        registry.listen(self._hear)

    def incoming(self) -> AbstractContextManager[Path]:
        """A private file for a bundle that is on its way in; gone afterwards."""
        return disk.incoming(self._settings.incoming_dir)

    def register(self, model: str, path: Path, *, actor: str = ANONYMOUS) -> VersionFact:
        """Prove that a bundle loads and store it as the model's next version.

        Args:
            model: name of the model.
            path: the bundle; nobody may write to it meanwhile.
            actor: who uploads.

        Raises:
            BundleRefusedError: it cannot be read or run; nothing is stored.
        """
        settings = self._settings
        sampling = Sampling(
            settings.num_samples, settings.seed, draw=settings.draw, precision=settings.precision
        )
        defaults = {k: v for k, v in asdict(sampling).items() if k not in OF_A_CALL}
        if sampling.precision == "float32":
            del defaults["precision"]  # as of all versions that say none
        return self._registry.register(
            model,
            path,
            defaults=defaults,
            prove=lambda bundle: Engine.load(
                bundle,
                device=settings.used_devices[0],
                memory_budget_bytes=settings.memory_budget_bytes,
                proof_limit_s=settings.proof_timeout_ms / 1000,
                findings=self._findings,
                precision=settings.precision,
                max_deviation=settings.max_deviation,
            ),
            actor=actor,
        )

    def version(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionFact:
        """One version by its number or an alias."""
        read = partial(self._registry.version, model, reference)
        return self.facts.get(("version", model, reference), read)

    def at_hand(self, model: str, reference: str) -> AtHand | None:
        """A version that answers, its engine and its active calibration, from memory alone.

        Returns:
            None where one of them would have to be read or loaded, or the version is retired.
        """
        version = self.facts.known(("version", model, reference))
        if not isinstance(version, VersionFact) or version.retired_at is not None:
            return None
        held, number = self.catalogue.held(version), version.active_calibration
        if held is None:
            return None
        if number is None:
            return AtHand(version, held[0], None, held[1])
        fact = self.facts.known(_calibration_key(version, number))
        return (
            AtHand(version, held[0], fact, held[1]) if isinstance(fact, CalibrationFact) else None
        )

    def page(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionPage:
        """One version with its state and active calibration."""
        version = self.version(model, reference)
        state, reason = self.state(version)
        engine = self.catalogue.at_hand(version)
        passes = None if engine is None else engine.plans.known()
        plan = None if passes is None else summary(passes)
        deviation = None if engine is None else engine.deviation
        calibration = self.active_calibration(version)
        return VersionPage(version, state, reason, calibration, plan, deviation)

    def state(self, version: VersionFact) -> tuple[str, str | None]:
        """`retired`, or where its engine is on this server; and the reason, if there is one."""
        if version.retired_at is not None:
            return "retired", version.retired_reason
        return self.catalogue.state(version.loaded_as)

    def is_ready(self, version: VersionFact) -> bool:
        """Whether a version is loaded, or will be by its first request; not once it is unloaded."""
        state, _ = self.state(version)
        is_waiting = state == "available" and version.loaded_as not in self._unloaded
        return state == "loaded" or is_waiting

    def engine(self, version: VersionFact) -> Engine:
        """The engine of a version, loaded and warmed up if it is not yet.

        Raises:
            ConflictError: the version is retired.
            NotFoundError: it was deleted meanwhile.
            DubitoError: it cannot be loaded; the class says why.
        """
        self.check_answers(version)
        return self.catalogue.get(version)

    def check_answers(self, version: VersionFact) -> None:
        """Refuse a version that is retired.

        Raises:
            ConflictError: it is.
        """
        if version.retired_at is not None:
            raise ConflictError(
                f"version {version.number} of `{version.model}` is retired "
                f"({version.retired_reason}): use another one, or restore it"
            )

    def load(self, model: str, reference: str, *, actor: str = ANONYMOUS) -> VersionPage:
        """Bring a version to the device.

        Raises:
            DubitoError: as `engine`.
        """
        version = self.version(model, reference)
        self.engine(version)
        self._tell("load", version)
        self._registry.noting.add(actor, "load", version.model, version.number)
        return self.page(model, reference)

    def unload(self, model: str, reference: str, *, actor: str = ANONYMOUS) -> VersionPage:
        """Free what a version takes on the device; the next request loads it again.

        Raises:
            ConflictError: it is pinned.
        """
        version = self.version(model, reference)
        if self.catalogue.is_pinned(version.loaded_as):
            raise ConflictError(
                f"version {version.number} of `{model}`: expected one that is not pinned, got one "
                "that DUBITO_PINNED_MODELS names: take it out there, or move its alias"
            )
        self._drop(version.loaded_as)
        self._tell("unload", version)
        self._registry.noting.add(actor, "unload", version.model, version.number)
        return self.page(model, reference)

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        *,
        if_match: Expected | None = None,
        actor: str = ANONYMOUS,
    ) -> AliasFact:
        """Point an alias to a version, once it is warm here and where companions use the model.

        Raises:
            ConflictError: the version is retired.
            PreconditionFailedError: the alias has another revision.
            DubitoError: the version cannot be loaded; the alias stays where it is.
        """
        moved = self._registry.check_move(model, alias, version, if_match=if_match)
        self.engine(moved)
        self._tell("alias", moved)
        return self._registry.set_alias(model, alias, version, if_match=if_match, actor=actor)

    def follow(self, change: Change) -> None:
        """Do what a companion was asked, where it concerns this server.

        Raises:
            DubitoError: as `engine`.
        """
        if change.action in _GONE:
            self._forget(change.digest)
        elif change.action == "unload":
            name = self.version(change.model, str(change.version)).loaded_as
            if not self.catalogue.is_pinned(name):
                self._drop(name)
        elif change.action == "load" or self._answers_for(change.model):
            self.engine(self.version(change.model, str(change.version)))

    def active_calibration(self, version: VersionFact) -> CalibrationFact | None:
        """The active calibration of a version, None where none is."""
        number = version.active_calibration
        return None if number is None else self.calibration(version, number)

    def calibration(self, version: VersionFact, number: int) -> CalibrationFact:
        """One calibration of a version.

        Raises:
            NotFoundError: it does not exist.
        """
        read = partial(self._registry.calibration, version.model, str(version.number), number)
        fact = self.facts.get(_calibration_key(version, number), read)
        assert fact is not None  # a number was named
        return fact

    def bring_fit(self, version: VersionFact, number: int | None, network: Network) -> None:
        """Have a fit of a version on the device, where a sampling names one.

        Raises:
            NotFoundError: it does not exist.
        """
        if number is None:
            return
        (engine,) = network.members
        if engine.has_fit(number):
            return
        fact = self.fit(version, number)
        stored = load(io.BytesIO(self._registry.fits.content(fact.digest)))
        assert isinstance(stored, dict)  # as the job wrote it
        for replica in replicas(engine):
            replica.fits_of(fact.method).take_in(number, stored)

    def fit(self, version: VersionFact, number: int) -> FitFact:
        """One fit of a version.

        Raises:
            NotFoundError: it does not exist.
        """
        return self._registry.fits.get(version.model, str(version.number), number)

    def keep_fit(self, version: VersionFact, new: NewFit) -> FitFact:
        """Store a fit of a version, and make it active for its method."""
        return self._registry.fits.add(version.model, str(version.number), new)

    def _hear(self, change: Change) -> None:
        """Forget all facts, so that the next request sees what was changed."""
        self.facts.forget()
        if change.action in _GONE:
            self._forget(change.digest)
            self.companions.tell(change)

    def _forget(self, digest: str) -> None:
        """Free a bundle that is gone, in every precision."""
        for precision in get_args(Precision):
            self.catalogue.drop(loaded_as(digest, precision))

    def _answers_for(self, model: str) -> bool:
        return any(version.model == model for version in self.catalogue.loaded())

    def _drop(self, name: str) -> None:
        self._unloaded.add(name)
        self.catalogue.drop(name)

    def _tell(self, action: str, version: VersionFact) -> None:
        change = Change(action, version.model, version.number, version.digest)
        self.companions.tell(change)

    def _load(self, version: VersionFact) -> Engine:
        limit = self._settings.max_num_samples
        sampling = merge_sampling(SamplingOptions(), version.defaults, max_num_samples=limit)
        engine = load_on(
            self._settings.used_devices,
            self._bundle(version),
            defaults=replace(sampling, num_samples=max(2, sampling.num_samples)),
            memory_budget_bytes=self._settings.memory_budget_bytes,
            findings=self._findings,
            timing_limit_s=self._settings.timing_limit_ms / 1000,
            max_deviation=self._settings.max_deviation,
        )
        if sampling.method in FITTED:  # whose fit is brought by who asks
            sampling = replace(sampling, method=engine.manifest.default_method)
        for replica in replicas(engine):
            warm_up(replica, version, sampling, self._settings.warm_up_rows)
        self._unloaded.discard(version.loaded_as)
        return engine

    def _bundle(self, version: VersionFact) -> bytes:
        try:
            return self._registry.bundle(version.digest)
        except DubitoError:
            self._registry.version(version.model, str(version.number))  # deleted meanwhile: 404
            raise


def _calibration_key(version: VersionFact, number: int) -> tuple[object, ...]:
    return ("calibration", version.model, version.number, number)


def _clear_left_overs(folder: Path) -> None:
    """Remove what killed uploads left behind; younger files may still be on their way."""
    for path in folder.glob("*.dubito"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_OVER_AFTER_S:
                path.unlink()
