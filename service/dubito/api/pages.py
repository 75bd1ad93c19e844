"""Facts of the registry as JSON pages."""

from __future__ import annotations

from dubito.calibration.record import Calibration
from dubito.registry import CalibrationFact, ModelFact, VersionFact
from dubito.serving.application import Application
from dubito.serving.orders import VersionPage

Page = dict[str, object]


def model_page(fact: ModelFact, application: Application) -> Page:
    """A model with its versions and aliases."""
    return {
        "model": fact.name,
        "created_at": fact.created_at,
        "aliases": {
            alias.name: {"version": alias.version, "revision": alias.revision}
            for alias in fact.aliases
        },
        "versions": [
            _summary(version, application.is_loaded(version)) for version in fact.versions
        ],
    }


def version_page(page: VersionPage) -> Page:
    """All of a version."""
    fact = page.version
    manifest = dict(fact.manifest)
    return {
        "model": fact.model,
        **_summary(fact, page.is_loaded),
        "warnings": manifest.get("warnings", []),
        "notes": manifest.get("notes"),
        "sites": manifest.pop("sites", []),
        "manifest": manifest,
        "defaults": fact.defaults,
        "calibrations": fact.calibrations,
        "active_calibration": None
        if page.calibration is None
        else calibration_page(page.calibration),
    }


def calibration_page(fact: CalibrationFact) -> Page:
    """A calibration: its number, then what was fitted, as a reader wants it."""
    return {
        "model": fact.model,
        "version": fact.version,
        "calibration": fact.number,
        "created_at": fact.created_at,
        **Calibration.from_json(fact.document).summary(),
    }


def _summary(fact: VersionFact, is_loaded: bool) -> Page:
    return {
        "version": fact.number,
        "aliases": fact.aliases,
        "state": "loaded" if is_loaded else "stored",
        "task": fact.manifest.get("task"),
        "output": fact.manifest.get("output"),
        "digest": fact.digest,
        "size_bytes": fact.size_bytes,
        "created_at": fact.created_at,
    }
