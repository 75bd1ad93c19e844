"""A calibration of classes before it has a policy and a report: what all its fits share."""

from __future__ import annotations

from collections.abc import Sequence

from dubito.calibration.flags.flagging import Flag
from dubito.calibration.promises.conformal import ConformalScores
from dubito.calibration.promises.positions import Positions
from dubito.calibration.promises.sets import LAC, SetRule
from dubito.calibration.record import Calibration, Reports
from dubito.calibration.terms import Terms
from dubito.engine.heads.scaling import Scaling


def without_report(
    fitted: tuple[ConformalScores, Scaling, Flag],
    terms: Terms,
    *,
    splits: dict[str, int],
    num_rows: int,
    absent: Sequence[str],
    set_rule: SetRule = LAC,
    positions: Positions | None = None,
) -> Calibration:
    """The calibration of classes that fits make up, before a policy and a report.

    Args:
        fitted: scores of the sets, scaling and flag.
        terms: what the caller asks.
        splits: rows of each part.
        num_rows: of all.
        absent: warnings of classes that no row has.
        set_rule: of one class per row.
        positions: of several labels or positions per row.
    """
    held_out, scaling, flag = fitted
    return Calibration(
        task="classification",
        sampling=terms.sampling,
        alpha=terms.alpha,
        coverage=terms.coverage,
        temperature=scaling if isinstance(scaling, float) else 1.0,
        noise_variance=None,
        variance_scale=None,
        ood=flag.detector,
        ood_reference=None,
        conformal=held_out,
        splits=splits,
        report=Reports({}, {}),
        bins=(),
        num_rows=num_rows,
        warnings=(*absent, *flag.warnings),
        ood_fitted=flag.fitted,
        scaling=terms.choices.scaling,
        class_map=None if isinstance(scaling, float) else scaling,
        set_rule=set_rule,
        positions=positions,
    )
