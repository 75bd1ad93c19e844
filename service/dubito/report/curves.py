"""What a picture of the report needs, in so few numbers that a record can keep them.

Flow: columns and truths → `class_curves` or `number_curves` → `Curves`, kept with the calibration
and drawn by `pictures`.

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows, P points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dubito.report.rejection import risk_coverage, sparsification
from dubito.report.reliability import Bins, adaptive_bins, reliability_bins
from dubito.report.statistics import Floats

_NUM_POINTS = 60
_NUM_SCORE_BINS = 30
_NUM_PIT_BINS = 20

Points = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A curve by its points; `x` ascends."""

    x: Points
    y: Points


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """How many rows have an out-of-distribution score in each bin.

    The first and the last bin hold what lies beyond them too. Edges are equally far apart, or by
    equal factors where `is_log`.
    """

    name: str
    edges: Points
    is_log: bool
    counts: tuple[int, ...]
    ood_counts: tuple[int, ...] | None
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Curves:
    """The pictures of one report; what a task does not have is None or empty.

    Args:
        scores: out-of-distribution scores.
        bins: equal-width reliability bins.
        adaptive_bins: bins of equally many rows.
        risk_coverage: error rate (y) of the share of rows (x) that are most confident.
        coverage: share of targets (y) inside the central interval of the mixture at a level (x);
            of quantiles, at or below the one of that level.
        pit: rows of all outputs in 20 equal-width bins of F(y) over [0, 1].
        sparsification: RMSE over that of all rows (y) once a share of them (x), those of the
            largest variance, is left out.
        oracle: the same, leaving out those of the largest error.
    """

    scores: ScoreCounts | None = None
    bins: Bins = ()
    adaptive_bins: Bins = ()
    risk_coverage: Line | None = None
    coverage: Line | None = None
    pit: tuple[int, ...] = ()
    sparsification: Line | None = None
    oracle: Line | None = None


def class_curves(mean_BC: Floats, label_B: NDArray[np.int64], scores: ScoreCounts | None) -> Curves:
    """Return the curves of a classification."""
    risk_B = risk_coverage(mean_BC, label_B)
    rank_P = ranks(len(risk_B))
    return Curves(
        scores=scores,
        bins=reliability_bins(mean_BC, label_B),
        adaptive_bins=adaptive_bins(mean_BC, label_B),
        risk_coverage=line_of(rank_P / len(risk_B), risk_B[rank_P - 1]),
    )


def number_curves(
    mean_TBD: Floats, variance_TBD: Floats, target_BD: Floats, scores: ScoreCounts | None
) -> Curves:
    """The curves of a regression; of the mixture only where every component has a variance."""
    total_BD = mean_TBD.var(axis=0) + np.broadcast_to(variance_TBD, mean_TBD.shape).mean(axis=0)
    curves = mixture_curves(mean_TBD, variance_TBD, target_BD)
    return replace(
        left_out_curves(curves, total_BD, mean_TBD.mean(axis=0) - target_BD), scores=scores
    )


def left_out_curves(curves: Curves, variance_BD: Floats, error_BD: Floats) -> Curves:
    """With the sparsification of rows by their variance; without, where all errors are 0."""
    by_variance_B, by_error_B = sparsification(variance_BD, error_BD)
    rank_P = ranks(len(error_BD))[::-1]
    left_out_P = 1.0 - rank_P / len(error_BD)
    if not np.isfinite(by_variance_B).all():
        return curves
    sparse = line_of(left_out_P, by_variance_B[rank_P - 1])
    oracle = line_of(left_out_P, by_error_B[rank_P - 1])
    return replace(curves, sparsification=sparse, oracle=oracle)


def mixture_curves(mean_TBD: Floats, variance_TBD: Floats, target_BD: Floats) -> Curves:
    """How often quantiles and intervals of the mixture are met, where it has a density."""
    if not (variance_TBD > 0).all():
        return Curves()
    pit_BD = pit(mean_TBD, variance_TBD, target_BD)
    level_P = np.arange(0, 41) / 40
    # y lies in the central interval at a level where F(y) is within half the level of 1/2.
    inside_P = (2 * np.abs(pit_BD.ravel() - 0.5) <= level_P[:, None]).mean(axis=1)
    counts, _ = np.histogram(pit_BD, bins=_NUM_PIT_BINS, range=(0.0, 1.0))
    return Curves(coverage=line_of(level_P, inside_P), pit=tuple(counts.tolist()))


def pit(mean_TBD: Floats, variance_TBD: Floats, target_BD: Floats) -> Floats:
    """F(y) of each target under its mixture, in [0, 1], shape (B, D); uniform where that is right.

    F(y) = 1/T Σ_t Φ((y - m_t) / σ_t)

    Source: Dawid 1984, JRSS A 147:278-292; Gneiting et al. 2007, JRSS B 69:243-268.
    """
    below_BD: Floats = ndtr((target_BD - mean_TBD) / np.sqrt(variance_TBD)).mean(axis=0)
    return np.clip(below_BD, 0.0, 1.0)


def score_counts(
    name: str, score_B: Floats, ood_score_N: Floats | None, threshold: float | None
) -> ScoreCounts | None:
    """The scores in bins that show both kinds of rows and the threshold; None if not finite."""
    scores = [score_B, *(() if ood_score_N is None else (ood_score_N,))]
    shown = np.r_[tuple(scores)]
    if len(score_B) == 0 or not np.isfinite(shown).all():
        return None
    marks = [] if threshold is None else [threshold]
    low = min(*np.quantile(score_B, [0.005]), *marks, *(part.min() for part in scores if part.size))
    high = max([*marks, *(np.quantile(part, 0.98) for part in scores if part.size)])
    low_most = float(np.quantile(score_B, 0.05))
    is_log = bool(low_most > 0 and high > 100 * low_most)
    if is_log:
        edges = np.geomspace(max(float(low), low_most / 10), high, _NUM_SCORE_BINS + 1)
    else:
        edges = np.linspace(low, high if high > low else low + 1.0, _NUM_SCORE_BINS + 1)
    counts, *strange = (_counted(part, edges) for part in scores)
    return ScoreCounts(
        name=name,
        edges=tuple(edges.tolist()),
        is_log=is_log,
        counts=counts,
        ood_counts=strange[0] if strange else None,
        threshold=threshold,
    )


def _counted(score: Floats, edges: Floats) -> tuple[int, ...]:
    index_B = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(edges) - 2)
    return tuple(np.bincount(index_B, minlength=len(edges) - 1).tolist())


def ranks(num_rows: int) -> NDArray[np.int64]:
    """Return at most 60 of the ranks 1..B, the first and the last among them."""
    rank_P = np.unique(np.linspace(1, num_rows, min(_NUM_POINTS, num_rows)).round())
    return rank_P.astype(np.int64)


def line_of(x_P: Floats, y_P: Floats) -> Line:
    """Return the curve through the points."""
    return Line(tuple(x_P.tolist()), tuple(y_P.tolist()))
