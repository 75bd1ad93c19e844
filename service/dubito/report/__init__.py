"""The report: how good the figures are on rows with known truths, and how sure that is.

Flow: figures that were served, and truths → `Statistics`, one per figure → `figures` and their
bootstrap `intervals`; curves for the pictures → a page. A number that is not defined (one class
among the out-of-distribution labels, no interval before a calibration) is None, never NaN.

    statistics.py   a figure as a function of how often each row counts; resampling
    ranking.py      rows in order, with ties
    reliability.py  bins of confidence and the errors of calibration
    rejection.py    what leaving out uncertain rows gains
    crps.py         continuous ranked probability score of a mixture
    classes.py numbers.py strange.py   which figures a task has
    positions.py    those of rows with several labels or positions
    number_positions.py    those of rows with numbers at every position
    quantiles.py    those of quantiles
    curves.py       what the pictures need
    blocks.py       long arrays gone through with a check between blocks
    evaluation.py   figures, their intervals and curves
    likelihood.py   density of a mixture
    pictures.py words.py page.py   drawn, told, and as one HTML file

Dimensions: T samples, B rows, C classes, D outputs, N out-of-distribution rows.
"""

from dubito.report.blocks import blocks
from dubito.report.classes import classification_statistics, confusion
from dubito.report.crps import mixture_crps
from dubito.report.curves import Curves, class_curves, number_curves, score_counts
from dubito.report.evaluation import Evaluation, as_evaluation
from dubito.report.numbers import regression_statistics
from dubito.report.quantiles import quantile_curves, quantile_statistics
from dubito.report.reliability import (
    NUM_BINS,
    Bins,
    ReliabilityBin,
    adaptive_bins,
    expected_calibration_error,
    reliability_bins,
)
from dubito.report.statistics import (
    Check,
    Floats,
    Interval,
    Intervals,
    Report,
    Statistics,
    figures,
    intervals,
    no_check,
)
from dubito.report.strange import ood_statistics

__all__ = [
    "NUM_BINS",
    "Bins",
    "Check",
    "Curves",
    "Evaluation",
    "Floats",
    "Interval",
    "Intervals",
    "ReliabilityBin",
    "Report",
    "Statistics",
    "adaptive_bins",
    "as_evaluation",
    "blocks",
    "class_curves",
    "classification_statistics",
    "confusion",
    "expected_calibration_error",
    "figures",
    "intervals",
    "mixture_crps",
    "no_check",
    "number_curves",
    "ood_statistics",
    "quantile_curves",
    "quantile_statistics",
    "regression_statistics",
    "reliability_bins",
    "score_counts",
]
