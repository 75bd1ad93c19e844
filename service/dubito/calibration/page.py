"""The page of a calibration: its report, before and after."""

from __future__ import annotations

from dubito.calibration.promised import sentences
from dubito.calibration.record import Calibration
from dubito.engine.calling.sampling import shown_sites
from dubito.errors import InputError
from dubito.report import Evaluation
from dubito.report.page import Page


def page_of(calibration: Calibration, title: str) -> Page:
    """The page of a calibration, before and after.

    Raises:
        InputError: an earlier build made it, and kept no curves.
    """
    if not calibration.curves:
        raise InputError(
            "a report expects a calibration of this build, got one that kept no curves: "
            "calibrate the version again"
        )
    sampling, reports = calibration.sampling, calibration.report
    parts = ", ".join(f"{name} {count}" for name, count in calibration.splits.items())
    facts = {
        "labelled rows": f"{calibration.num_rows} ({parts})",
        "passes": f"{sampling.num_samples}, method {sampling.method}, draw {sampling.draw},"
        f" masks {sampling.masks}, seed {sampling.seed}, sites {shown_sites(sampling.sites)}",
        "coverage asked": f"{calibration.coverage:g}",
        "false alarms allowed": f"{calibration.alpha:g}",
    }
    if calibration.made_rows is not None:
        made = calibration.made_rows.items()
        facts["made rows flagged"] = ", ".join(f"{kind} {share:.0%}" for kind, share in made)
    told = sentences(calibration)
    if told:
        facts["verdict"] = told[0]
    fitted = calibration.head.stored()
    for name in ("temperature", "noise_variance", "variance_scale"):
        value = fitted.get(name)
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            facts[name.replace("_", " ")] = ", ".join(f"{number:.4g}" for number in values[:8])
    return Page(
        title=title,
        facts=facts,
        reports={
            name: Evaluation(report, reports.intervals[name], calibration.curves[name])
            for name, report in (("before", reports.before), ("after", reports.after))
        },
        coverage=calibration.coverage,
        alpha=calibration.alpha,
        warnings=calibration.warnings,
        promises=told[1:],
    )
