"""Models, versions, aliases, their changes, and health."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Literal, Self

from pydantic import Field

from dubito.answered import VersionPage
from dubito.api.pages.base import Document, JsonPage
from dubito.api.pages.calibrations import RecordPage, calibration_page
from dubito.engine.calling.sampling import Precision
from dubito.models.library import Library
from dubito.registry import AliasFact, AuditFact, ModelFact, VersionFact


class AliasPage(JsonPage):
    """An alias."""

    model: str = Field(description="Name of the model.")
    alias: str = Field(description="Name of the alias.")
    version: int = Field(description="Number of the version that it points to.")
    revision: int = Field(description="Grows by one with every move; the `ETag` holds it.")

    @classmethod
    def of_alias(cls, fact: AliasFact) -> Self:
        """The page of an alias."""
        return cls.of(fact, alias=fact.name)


class AliasEntry(JsonPage):
    """Where an alias of a model points."""

    version: int = Field(description="Number of the version that it points to.")
    revision: int = Field(description="Grows by one with every move; `If-Match` takes it.")


class VersionEntry(JsonPage):
    """A version among those of its model."""

    version: int = Field(description="Number of the version.")
    aliases: list[str] = Field(description="Aliases that point to it.")
    state: Literal["available", "loading", "loaded", "failed", "retired"] = Field(
        description="Where its network is on this server, or that the version is retired."
    )
    reason: str | None = Field(description="Why it failed, or why it is retired.")
    task: str | None = Field(description="`classification` or `regression`.")
    output: str | None = Field(description="What the network's output means, such as `logits`.")
    digest: str = Field(description="SHA-256 of the bundle, in hexadecimal.")
    size_bytes: int = Field(description="Size of the bundle in bytes.")
    created_at: datetime = Field(description="When it was uploaded.")
    uploader: str = Field(description="Name of the key that it was uploaded with.")

    @classmethod
    def of_version(cls, fact: VersionFact, state: str, reason: str | None) -> Self:
        """The entry of a version, with its state on this server."""
        task, output = fact.manifest.get("task"), fact.manifest.get("output")
        return cls.of(
            fact, version=fact.number, state=state, reason=reason, task=task, output=output
        )


class ModelPage(JsonPage):
    """A model with its versions and aliases."""

    model: str = Field(description="Name of the model.")
    created_at: datetime = Field(description="When its first version was uploaded.")
    aliases: dict[str, AliasEntry] = Field(description="Aliases by name.")
    versions: list[VersionEntry] = Field(description="Versions by number.")

    @classmethod
    def of_model(cls, fact: ModelFact, library: Library) -> Self:
        """The page of a model, with the states of its versions on this server."""
        return cls(
            model=fact.name,
            created_at=fact.created_at,
            aliases={alias.name: AliasEntry.of(alias) for alias in fact.aliases},
            versions=[
                VersionEntry.of_version(version, *library.state(version))
                for version in fact.versions
            ],
        )


class ModelsPage(JsonPage):
    """All models."""

    models: list[ModelPage] = Field(description="Models by name.")


class UploadedPage(JsonPage):
    """What an upload has become."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the new version.")


class PlanPartEntry(JsonPage):
    """The operators of a plan that run equally often."""

    name: Literal["static", "prefix", "masks", "suffix"] = Field(description="Name of the part.")
    runs: str = Field(description="How often it runs.")
    operators: int = Field(description="Number of its operators.")
    alive_bytes: int | None = Field(
        description="Bytes of values alive at once: of a row, in the suffix of a row and sample."
    )


class PlanFormEntry(JsonPage):
    """A form that may take the place of dense masks."""

    name: str = Field(description="Name of the form.")
    nodes: tuple[str, str] = Field(description="First and last node that it takes the place of.")
    from_rows: int | None = Field(description="Rows from which it is used; null: never.")


class PlanEntry(JsonPage):
    """How often each part of the network runs."""

    parts: list[PlanPartEntry] = Field(description="Parts in the order in which they run.")
    forms: list[PlanFormEntry] = Field(description="Forms that were compared with dense masks.")


class VersionDetailsPage(VersionEntry):
    """All that is known of a version."""

    model: str = Field(description="Name of the model.")
    torch_version: str | None = Field(description="Version of torch that exported the bundle.")
    warnings: list[str] = Field(description="What the export could not settle.")
    notes: str | None = Field(description="What its author wrote about it.")
    sites: list[Document] = Field(description="The random operations of the network, in order.")
    manifest: Document = Field(description="What else the bundle says of itself.")
    defaults: Document = Field(description="Sampling choices of requests that make none.")
    calibrations: list[int] = Field(description="Numbers of its calibrations.")
    active_calibration: RecordPage | None = Field(
        description="The active calibration, or null where there is none."
    )
    precision: Precision = Field(description="Precision of its passes.")
    deviation: dict[str, float] | None = Field(
        description="Largest differences of figures of made-up rows from those in float32, by the "
        "figure's name; null in float32, and where it is not loaded."
    )
    plan: PlanEntry | None = Field(
        description="How often each part of the network runs; null where it is not loaded."
    )


def version_page(page: VersionPage) -> dict[str, object]:
    """All of a version, as `VersionDetailsPage` says; its documents as they are stored."""
    fact = page.version
    manifest = dict(fact.manifest)
    active = None if page.calibration is None else calibration_page(page.calibration)
    if active is not None:
        active.pop("curves")  # as many numbers as all the rest; its own page has them
    return {
        "model": fact.model,
        **VersionEntry.of_version(fact, page.state, page.reason).model_dump(),
        "torch_version": manifest.get("torch_version"),
        "warnings": manifest.get("warnings", []),
        "notes": manifest.get("notes"),
        "sites": manifest.pop("sites", []),
        "manifest": manifest,
        "defaults": fact.defaults,
        "calibrations": fact.calibrations,
        "active_calibration": active,
        "precision": fact.precision,
        "deviation": None if page.deviation is None else page.deviation.figures,
        "plan": None if page.plan is None else asdict(page.plan),
    }


class ChangeEntry(JsonPage):
    """One change of a model."""

    at: datetime = Field(description="When it was made.")
    actor: str = Field(description="Name of the key that it was made with.")
    action: str = Field(description="What was done.")
    model: str = Field(description="Name of the model.")
    version: int | None = Field(description="Number of the version, where it concerns one.")
    details: Document = Field(description="What else is known of the change.")


class ChangesPage(JsonPage):
    """Changes of a model, the newest first."""

    changes: list[ChangeEntry] = Field(description="At most 1000 changes.")

    @classmethod
    def of_changes(cls, facts: tuple[AuditFact, ...]) -> Self:
        """The page of some changes."""
        return cls(changes=[ChangeEntry.of(fact) for fact in facts])


class LivePage(JsonPage):
    """Whether the server works."""

    live: bool = Field(description="Whether the event loop and the worker of every device beat.")


class HealthEntry(JsonPage):
    """A version that is loaded, or a pinned model whether it is or not."""

    model: str = Field(description="Name of the model.")
    version: int | None = Field(description="Null where a pinned model does not exist.")
    state: Literal["available", "loading", "loaded", "failed", "retired", "missing"] = Field(
        description="Where its network is on this server."
    )
    reason: str | None = Field(description="Why it failed or is missing.")
    pinned: bool = Field(description="Whether the server is not ready without it.")
    samples_vary: bool | None = Field(
        description="Whether the samples of its last Monte Carlo prediction differed; null before."
    )
    precision: Precision | None = Field(
        description="Precision of its passes; null where a pinned model does not exist."
    )


class DeviceEntry(JsonPage):
    """A device, and the worker that owns it."""

    device: str = Field(description="As torch names it.")
    running: bool = Field(description="Whether its worker takes work.")
    heartbeat_age_ms: float = Field(
        description="Time since its worker last showed that it lives, in milliseconds."
    )


class ReadyPage(JsonPage):
    """Whether predictions are taken."""

    ready: bool = Field(description="Whether all pinned models are loaded and requests are taken.")
    live: bool = Field(description="Whether the event loop and the worker of every device beat.")
    draining: bool = Field(description="Whether the server ends and takes no more requests.")
    models: list[HealthEntry] = Field(description="Loaded versions and pinned models.")
    devices: list[DeviceEntry] = Field(description="The devices, in the order of the setting.")
