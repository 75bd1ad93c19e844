"""Facts of the registry as JSON pages."""

from __future__ import annotations

from dataclasses import asdict

from dubito.answered import HealthLine, VersionPage
from dubito.calibration.record import Calibration
from dubito.models.library import Library
from dubito.monitoring.drifts import DriftFact
from dubito.monitoring.monitor import MonitoringPage
from dubito.registry import (
    AliasFact,
    AuditFact,
    CalibrationFact,
    JobFact,
    ModelFact,
    PoolFact,
    VersionFact,
)
from dubito.registry.monitoring import Added

Page = dict[str, object]


def model_page(fact: ModelFact, library: Library) -> Page:
    """A model with its versions and aliases."""
    return {
        "model": fact.name,
        "created_at": fact.created_at,
        "aliases": {
            alias.name: {"version": alias.version, "revision": alias.revision}
            for alias in fact.aliases
        },
        "versions": [_summary(version, *library.state(version)) for version in fact.versions],
    }


def version_page(page: VersionPage) -> Page:
    """All of a version."""
    fact = page.version
    manifest = dict(fact.manifest)
    active = None if page.calibration is None else calibration_page(page.calibration)
    if active is not None:
        active.pop("curves")  # as many numbers as all the rest; its own page has them
    return {
        "model": fact.model,
        **_summary(fact, page.state, page.reason),
        "torch_version": manifest.get("torch_version"),
        "warnings": manifest.get("warnings", []),
        "notes": manifest.get("notes"),
        "sites": manifest.pop("sites", []),
        "manifest": manifest,
        "defaults": fact.defaults,
        "calibrations": fact.calibrations,
        "active_calibration": active,
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


def alias_page(fact: AliasFact) -> Page:
    """An alias."""
    return {
        "model": fact.model,
        "alias": fact.name,
        "version": fact.version,
        "revision": fact.revision,
    }


def audit_page(facts: tuple[AuditFact, ...]) -> Page:
    """Changes, the newest first."""
    return {
        "changes": [
            {
                "at": fact.at,
                "actor": fact.actor,
                "action": fact.action,
                "model": fact.model,
                "version": fact.version,
                "details": fact.details,
            }
            for fact in facts
        ]
    }


def health_line(line: HealthLine) -> Page:
    """A loaded version, or a pinned model."""
    return {
        "model": line.model,
        "version": line.version,
        "state": line.state,
        "reason": line.reason,
        "pinned": line.is_pinned,
        "samples_vary": line.varies,
    }


def _summary(fact: VersionFact, state: str, reason: str | None) -> Page:
    return {
        "version": fact.number,
        "aliases": fact.aliases,
        "state": state,
        "reason": reason,
        "task": fact.manifest.get("task"),
        "output": fact.manifest.get("output"),
        "digest": fact.digest,
        "size_bytes": fact.size_bytes,
        "created_at": fact.created_at,
        "uploader": fact.uploader,
    }


def pool_page(fact: PoolFact) -> Page:
    """A stored pool."""
    return {
        "pool": fact.name,
        "num_rows": fact.num_rows,
        "format": fact.format,
        "columns": [
            {"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in fact.columns
        ],
        "sha256": fact.digest,
        "size_bytes": fact.size_bytes,
        "address": fact.source,
        "uploader": fact.uploader,
        "created_at": fact.created_at,
    }


def job_page(fact: JobFact) -> Page:
    """A job: what was asked, and how far it is."""
    return {
        "job": fact.id,
        "kind": fact.kind,
        "state": fact.state,
        "reason": fact.reason,
        "model": fact.model,
        "version": fact.version,
        "pool": fact.pool,
        "done": fact.done,
        "total": fact.total,
        "rate_per_s": None if fact.rate is None else round(fact.rate, 1),
        "remaining_s": None if fact.remaining_s is None else round(fact.remaining_s, 1),
        "warnings": list(fact.warnings),
        "actor": fact.actor,
        "created_at": fact.created_at,
        "started_at": fact.started_at,
        "finished_at": fact.finished_at,
        "result": None if fact.result is None else f"/v1/jobs/{fact.id}/result",
    }


def feedback_page(model: str, added: tuple[Added, ...]) -> Page:
    """What a feedback has stored, per calibration that answered the request."""
    return {
        "model": model,
        "stored": [
            {
                "version": one.calibration.version,
                "calibration": one.calibration.number,
                "new": one.num_new,
                "known": one.num_known,
            }
            for one in added
        ],
    }


def monitoring_page(page: MonitoringPage) -> Page:
    """How things stand with a version under its active calibration."""
    counts = page.counts
    return {
        "model": page.version.model,
        "version": page.version.number,
        "calibration": None if page.calibration is None else page.calibration.number,
        "alarms": page.alarms,
        "drift": None if page.drift is None else _drift(page.drift),
        "outcomes": None if page.calibration is None else _outcomes(page),
        "predictions": {
            "waiting": counts.num_waiting,
            "written": counts.num_written,
            "dropped": counts.num_dropped,
        },
    }


def _drift(fact: DriftFact) -> Page:
    state = fact.state
    return {
        "score": fact.score,
        "since": fact.since,
        "rows": state.num_scores,
        "rows_repeated": fact.num_repeated,
        "rows_not_finite": state.num_skipped,
        "martingale": state.martingale,
        "largest": state.largest,
        "level": state.level,
        "alarm_since": fact.alarm_since,
        "alarm_after_rows": state.alarm_after,
    }


def _outcomes(page: MonitoringPage) -> Page:
    found, watch = page.figures, page.watch
    calibration = None if page.calibration is None else page.calibration.document
    return {
        "rows": page.num_outcomes,
        "window": 0 if found is None else found.num_outcomes,
        "promised_coverage": None if calibration is None else calibration["coverage"],
        "coverage": [] if found is None else [asdict(rate) for rate in found.coverage],
        "promised_flag_rate": None if calibration is None else calibration["alpha"],
        "flag_rate": None if found is None else asdict(found.flag_rate),
        "accuracy": None if found is None else found.accuracy,
        "ece": None if found is None else found.ece,
        "windows_judged": 0 if watch is None else watch.flags.index - 1,
    }
