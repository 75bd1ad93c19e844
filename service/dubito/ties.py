"""When two figures are the same: the one tolerance of everything that compares.

A row's figures move in their last digits with the rows that stand beside it, since another number
of rows blocks the same float32 products otherwise. Where rows repeat (categories, one-hot vectors,
tokens, whole numbers), a served score and the held-out scores of the same row are equal but for
that; compared exactly, the whole group of them falls on one side or the other by chance, and a
promise is lost. So no figure is compared as it is, but as the least or the most that it may have
been, and a tie falls on the side that keeps the promise:

    set         held          score of the class <= raised(threshold)
    p-value     as strange    #{held-out scores >= lowered(score)}, so that it is not flagged
    share       accepted      uncertainty <= raised(threshold)
    risk        reviewed      accepted where uncertainty <= lowered(threshold)
    interval    inside        its ends lie further out by the tolerance of what they are made of

Fit and serving use the same lines. How far figures move was measured in float32 over perceptrons,
convolutions, encoders and LSTMs, with logits of up to 200, alone and among up to 1,000 rows
(`benchmarks/evidence/ties.py`):

    probabilities, entropies, uncertainties    2e-5 of themselves, also where they are 1e-10: their
                                               relative error is the absolute one of the logits
    mutual information                         2e-5, and 1e-9 nats where the passes hardly differ
    energies, logits                           3e-7 of the largest logit, which may be far from 0
                                               where the score is not
    distances of features                      2.5e-6, and 1e-6 where they are differences

Where scores do not repeat the tolerance costs next to nothing: of scores spread over their own size
it ties 3 in 100,000.

Dimensions: B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
N = TypeVar("N", float, Floats)

RELATIVE = 3e-5
LEAST = 1e-12
"""Of probabilities and what is made of them: the rounding of float64 sums near 1."""

LEAST_OF: Mapping[str, float] = {
    "mutual_information": 1e-7,  # nats
    "energy": 1e-5,  # nats
    "energy_spread": 1e-5,
    "max_logit": 1e-5,
    "epistemic_variance": 1e-6,  # noise variances
    "knn": 1e-6,  # of 2
    "mahalanobis": 1e-5,  # squared deviations
    "relative_mahalanobis": 1e-5,
    "gaussian_density": 1e-5,  # nats
    "outside": 1e-5,  # squared length
    "profile": 1e-5,  # squared deviations
    "transitions": 1e-5,  # squared deviations
    "combined": 1e-6,  # nats
    "overall": 1e-6,  # nats
}
"""By how much a score may be off however near it is to 0; `LEAST` for the others."""

_MEAN = 2.0**-22  # two units in the last place of float32


def least_of(score: str) -> float:
    """By how much a score of that name may be off, however near it is to 0."""
    return LEAST_OF.get(score, LEAST)


def margin(middle: Floats, half: Floats) -> Floats:
    """By how much the end of an interval may be off, in target units.

    Args:
        middle: a mean or a quantile.
        half: what is added to it or taken off, at least 0.
    """
    return RELATIVE * half + _MEAN * np.abs(middle)


def lowered(value: N, least: float = LEAST) -> N:
    """The least that figures may have been; rises with them, infinity stays."""
    low: N = value * (1 - RELATIVE * np.sign(value)) - least
    return low


def raised(value: N, least: float = LEAST) -> N:
    """The most that figures may have been; rises with them, infinity stays."""
    high: N = value * (1 + RELATIVE * np.sign(value)) + least
    return high


def starts(ascending: Floats, least: float = LEAST) -> NDArray[np.int64]:
    """Where each group of tied figures begins: as far as their tolerance meets that of its first.

    Groups are no chains, so that many figures close together do not all become one.
    """
    beyond = np.searchsorted(lowered(ascending, least), raised(ascending, least), side="right")
    first, index = [], 0
    while index < len(beyond):
        first.append(index)
        index = max(int(beyond[index]), index + 1)  # nan meets nothing
    return np.array(first, dtype=np.int64)


def merged(value: Floats, least: float = LEAST) -> Floats:
    """Figures of one axis, each as the least of those that it is tied with."""
    order = np.argsort(value, kind="stable")
    ascending = value[order]
    start = starts(ascending, least)
    tied = np.empty_like(value)
    tied[order] = np.repeat(ascending[start], np.diff(np.r_[start, len(value)]))
    return tied


def settled(value_B: Floats, ascending: Floats, least: float = LEAST) -> Floats:
    """Figures, each as the first of some ascending ones that it ties with; else as it is."""
    index_B = np.searchsorted(raised(ascending, least), lowered(value_B, least))
    first_B = np.append(ascending, np.inf)[index_B]
    return np.where(lowered(first_B, least) <= raised(value_B, least), first_B, value_B)


def plateaus(value: Floats, least: float = LEAST) -> Floats:
    """Ascending figures, none tied with another, each as the least and the most it may have been.

    What is drawn through them as a line, one height for either, moves with no rounding.
    """
    return np.stack([lowered(value, least), raised(value, least)], axis=-1).ravel()


def falling(mean_BC: Floats) -> NDArray[np.int64]:
    """Classes of each row by falling probability, tied ones by their number; shape (B, C)."""
    order_BC = np.argsort(-mean_BC, axis=-1, kind="stable")
    sorted_BC = np.take_along_axis(mean_BC, order_BC, axis=-1)
    is_less_BC = raised(sorted_BC[..., 1:]) < lowered(sorted_BC[..., :-1])
    group_BC = np.zeros(mean_BC.shape, np.int64)
    np.put_along_axis(group_BC, order_BC[..., 1:], is_less_BC.cumsum(axis=-1), axis=-1)
    return np.argsort(group_BC, axis=-1, kind="stable")


def most_probable(mean_BC: Floats) -> NDArray[np.int64]:
    """The class of largest probability, of tied ones the first; the first where one is nan."""
    least_B1 = lowered(lowered(mean_BC.max(axis=-1, keepdims=True)))
    class_B: NDArray[np.int64] = (mean_BC >= least_B1).argmax(axis=-1)
    return class_B
