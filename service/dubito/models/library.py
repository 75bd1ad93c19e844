"""The models: what the registry holds, and what of it is on the device of this server.

An alias moves in three steps: the move is checked, the new version is loaded and warm, the move is
written down. So no request meets a version that is not ready, and one that cannot be loaded
leaves everything as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from dubito import disk
from dubito.asked import SamplingOrder, VersionPage
from dubito.calibration.record import Calibration
from dubito.engine import Engine, Sampling
from dubito.errors import ConflictError, DubitoError
from dubito.models.catalogue import Catalogue
from dubito.models.warming import warm_up
from dubito.registry import (
    AliasFact,
    AuditFact,
    CalibrationFact,
    ModelFact,
    Registry,
    VersionFact,
)
from dubito.registry.following import Following
from dubito.registry.names import ANONYMOUS, DEFAULT_ALIAS
from dubito.registry.revisions import Expected
from dubito.serving.sampling import merge_sampling
from dubito.settings import Settings

_LEFT_OVER_AFTER_S = 3600


class Library:
    """Models, versions, aliases and calibrations, and the engines of this server.

    Args:
        registry: where they are kept.
        settings: the device, and the bounds of what is loaded.
    """

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        disk.make(settings.incoming_dir)
        _clear_left_overs(settings.incoming_dir)
        self.facts = Following(registry.changes, settings.poll_ms / 1000)
        self.catalogue = Catalogue(
            self._load, settings.max_loaded_versions, settings.max_loaded_bytes
        )

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
        sampling = Sampling(settings.num_samples, settings.seed, draw=settings.draw)
        with self._changing():
            return self._registry.register(
                model,
                path,
                defaults=asdict(sampling),
                prove=lambda bundle: Engine.load(
                    bundle,
                    device=settings.device,
                    memory_budget_bytes=settings.memory_budget_bytes,
                    proof_limit_s=settings.proof_timeout_ms / 1000,
                ),
                actor=actor,
            )

    def models(self) -> tuple[ModelFact, ...]:
        """All models."""
        return self._registry.models()

    def model(self, name: str) -> ModelFact:
        """One model."""
        return self._registry.model(name)

    def version(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionFact:
        """One version by its number or an alias."""
        read = partial(self._registry.version, model, reference)
        return self.facts.get(("version", model, reference), read)

    def alias(self, model: str, alias: str) -> AliasFact:
        """Where an alias points.

        Raises:
            NotFoundError: no such model or alias.
        """
        return self._registry.alias(model, alias)

    def page(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionPage:
        """One version with its state and active calibration."""
        version = self.version(model, reference)
        state, reason = self.state(version)
        return VersionPage(version, state, reason, self.active_calibration(version))

    def state(self, version: VersionFact) -> tuple[str, str | None]:
        """`retired`, or where its engine is on this server; and the reason, if there is one."""
        if version.retired_at is not None:
            return "retired", version.retired_reason
        return self.catalogue.state(version.digest)

    def engine(self, version: VersionFact) -> Engine:
        """The engine of a version, loaded and warmed up if it is not yet.

        Raises:
            ConflictError: the version is retired.
            NotFoundError: it was deleted meanwhile.
            DubitoError: it cannot be loaded; the class says why.
        """
        if version.retired_at is not None:
            raise ConflictError(
                f"version {version.number} of `{version.model}` is retired "
                f"({version.retired_reason}): use another one, or restore it"
            )
        return self.catalogue.get(version)

    def load(self, model: str, reference: str) -> VersionPage:
        """Bring a version to the device.

        Raises:
            DubitoError: as `engine`.
        """
        self.engine(self.version(model, reference))
        return self.page(model, reference)

    def unload(self, model: str, reference: str) -> VersionPage:
        """Free what a version takes on the device; the next request loads it again.

        Raises:
            ConflictError: it is pinned.
        """
        version = self.version(model, reference)
        if self.catalogue.is_pinned(version.digest):
            raise ConflictError(
                f"version {version.number} of `{model}`: expected one that is not pinned, got one "
                "that DUBITO_PINNED_MODELS names: take it out there, or move its alias"
            )
        self.catalogue.drop(version.digest)
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
        """Point an alias to a version, once it is loaded and warm here.

        Raises:
            ConflictError: the version is retired.
            PreconditionFailedError: the alias has another revision.
            DubitoError: the version cannot be loaded; the alias stays where it is.
        """
        self.engine(self._registry.check_move(model, alias, version, if_match=if_match))
        with self._changing():
            return self._registry.set_alias(model, alias, version, if_match=if_match, actor=actor)

    def delete_alias(
        self,
        model: str,
        alias: str,
        *,
        if_match: Expected | None = None,
        actor: str = ANONYMOUS,
    ) -> None:
        """Delete an alias other than `default`."""
        with self._changing():
            self._registry.delete_alias(model, alias, if_match=if_match, actor=actor)

    def retire(
        self, model: str, reference: str, reason: str, *, actor: str = ANONYMOUS
    ) -> VersionPage:
        """Let a version that no alias names answer no requests any more."""
        with self._changing():
            version = self._registry.retire(model, reference, reason, actor=actor)
        self.catalogue.drop(version.digest)
        return self.page(model, str(version.number))

    def restore(self, model: str, reference: str, *, actor: str = ANONYMOUS) -> VersionPage:
        """Take a retirement back."""
        with self._changing():
            version = self._registry.restore(model, reference, actor=actor)
        return self.page(model, str(version.number))

    def delete_version(self, model: str, reference: str, *, actor: str = ANONYMOUS) -> None:
        """Delete a version that no alias names."""
        with self._changing():
            gone = self._registry.delete_version(model, reference, actor=actor)
        if gone is not None:
            self.catalogue.drop(gone)

    def active_calibration(self, version: VersionFact) -> CalibrationFact | None:
        """The active calibration of a version, None where none is."""
        number = version.active_calibration
        return None if number is None else self.calibration(version, number)

    def calibration(self, version: VersionFact, number: int) -> CalibrationFact:
        """One calibration of a version.

        Raises:
            NotFoundError: it does not exist.
        """
        key = ("calibration", version.model, version.number, number)
        read = partial(self._registry.calibration, version.model, str(version.number), number)
        fact = self.facts.get(key, read)
        assert fact is not None  # a number was named
        return fact

    def add_calibration(
        self, version: VersionFact, record: Calibration, *, actor: str = ANONYMOUS
    ) -> CalibrationFact:
        """Keep a calibration and make it active, unless its fit is worse than none."""
        with self._changing():
            return self._registry.add_calibration(
                version.model,
                str(version.number),
                record.to_json(),
                is_active=record.is_worth_using,
                actor=actor,
            )

    def set_active_calibration(
        self, model: str, reference: str, number: int | None, *, actor: str = ANONYMOUS
    ) -> CalibrationFact | None:
        """Make another calibration the active one, or none."""
        with self._changing():
            return self._registry.set_active_calibration(model, reference, number, actor=actor)

    def audit(self, model: str | None = None) -> tuple[AuditFact, ...]:
        """The last changes, the newest first; of one model, or of all.

        Raises:
            NotFoundError: no such model.
        """
        if model is not None:
            self.model(model)
        return self._registry.audit(model)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What is changed inside is seen by the next request here."""
        try:
            yield
        finally:
            self.facts.forget()

    def _load(self, version: VersionFact) -> Engine:
        limit = self._settings.max_num_samples
        sampling = merge_sampling(SamplingOrder(), version.defaults, max_num_samples=limit)
        engine = Engine.load(
            self._bundle(version),
            device=self._settings.device,
            num_samples=sampling.num_samples,
            seed=sampling.seed,
            masks=sampling.masks,
            draw=sampling.draw,
            memory_budget_bytes=self._settings.memory_budget_bytes,
        )
        warm_up(engine, version, sampling, self._settings.warm_up_rows)
        return engine

    def _bundle(self, version: VersionFact) -> bytes:
        try:
            return self._registry.bundle(version.digest)
        except DubitoError:
            self._registry.version(version.model, str(version.number))  # deleted meanwhile: 404
            raise


def _clear_left_overs(folder: Path) -> None:
    """Remove what killed uploads left behind; younger files may still be on their way."""
    for path in folder.glob("*.dubito"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_OVER_AFTER_S:
                path.unlink()
