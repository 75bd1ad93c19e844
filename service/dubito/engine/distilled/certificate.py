"""How far a head and the passes that it stands for agree, on rows that it has not learned from.

Of held-out rows as they came, and of each kind of copies of them (`made`):

    spearman               rank correlation of the mutual information, or of the epistemic variance
    error_of_mean          mean over rows of the largest difference among probabilities, or numbers
    error_of_epistemic     mean absolute difference of the mutual information, or deviation
    error_of_expected      the same of the expected entropy, or of the deviation of the noise
    unlike                 share of rows that are as strange as 5 % of usual rows are
    auroc, auroc_passes    of telling copies from the rows by what is epistemic, by head and passes
    nll, nll_passes        of the true values, where they are given

`bounds` holds the largest of each error over all kinds: what to expect at most on other rows, as
long as they are no stranger than the copies.

Dimensions: B rows, C classes, D numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.distilled.lessons import Lessons
from dubito.ranks import auroc, rank_correlation

NUM_SAMPLES = 256
UNLIKE = 0.05
HELD_OUT = "held_out"
Floats: TypeAlias = NDArray[np.float64]
Figures: TypeAlias = dict[str, float]
_ERRORS = ("error_of_mean", "error_of_epistemic", "error_of_expected")
_DIFFERENCES = ("auroc", "nll")


@dataclass(frozen=True, eq=False)
class Compared:
    """What a head and the passes say of the same rows.

    Args:
        said: by the head.
        known: by the passes.
        p_value: how many usual rows are as strange to the head, (B,).
    """

    said: Lessons
    known: Lessons
    p_value: Tensor


@dataclass(frozen=True)
class Certificate:
    """The agreement of a head with its passes.

    Args:
        num_rows: that were held out.
        kinds: figures of the held-out rows, and of each kind of copies.
    """

    num_rows: int
    kinds: Mapping[str, Figures]

    @property
    def bounds(self) -> Figures:
        """The largest error of each kind over all rows."""
        found = {name: [one[name] for one in self.kinds.values()] for name in _ERRORS}
        for name in _DIFFERENCES:
            passes = f"{name}_passes"
            found[name] = [
                abs(one[name] - one[passes]) for one in self.kinds.values() if passes in one
            ]
        return {
            (f"{name}_difference" if name in _DIFFERENCES else name): max(some)
            for name, some in found.items()
            if some
        }

    def to_json(self) -> dict[str, object]:
        """Return the certificate as plain values."""
        kinds = {name: dict(figures) for name, figures in self.kinds.items()}
        return {
            "num_samples": NUM_SAMPLES,
            "num_rows": self.num_rows,
            **kinds,
            "bounds": self.bounds,
        }


def certify(
    compared: Mapping[str, Compared], truths: Tensor | None, factor: Tensor | None
) -> Certificate:
    """The agreement of a head with its passes.

    Args:
        compared: by kind, `held_out` among them; rows in the same order.
        truths: class of each held-out row, (B,), or numbers as the network gives them, (B, D).
        factor: of numbers, from the network's units to the target's, (D,); None: of classes.
    """
    usual = compared[HELD_OUT]
    kinds = {}
    for name, one in compared.items():
        figures = _agreement(one, factor)
        if name != HELD_OUT:
            for key, which in (("auroc", "said"), ("auroc_passes", "known")):
                near, far = (_epistemic(getattr(some, which), factor) for some in (usual, one))
                figures[key] = auroc(near, far) or 0.0
        if truths is not None and (factor is None or bool((one.known.aleatoric > 0).all())):
            for key, lessons in (("nll", one.said), ("nll_passes", one.known)):
                figures[key] = _nll(lessons, truths, factor)
        kinds[name] = figures
    return Certificate(len(usual.known), kinds)


def _agreement(one: Compared, factor: Tensor | None) -> Figures:
    said, known = one.said, one.known
    mean = (said.mean - known.mean).abs().double()
    epistemic, expected = (
        tuple(getattr(some, name).double() for some in (said, known))
        for name in ("epistemic", "aleatoric")
    )
    if factor is not None:
        mean = mean * factor
        epistemic, expected = (
            tuple(value.sqrt() * factor for value in pair) for pair in (epistemic, expected)
        )
    ranked = (_epistemic(some, factor) for some in (said, known))
    return {
        "spearman": rank_correlation(*ranked) or 0.0,
        "error_of_mean": float(mean.amax(-1).mean()),
        "error_of_epistemic": float((epistemic[0] - epistemic[1]).abs().mean()),
        "error_of_expected": float((expected[0] - expected[1]).abs().mean()),
        "unlike": float((one.p_value <= UNLIKE).double().mean()),
    }


def _epistemic(lessons: Lessons, factor: Tensor | None) -> Floats:
    """What is epistemic of each row: of several numbers the sum, in target units."""
    epistemic = lessons.epistemic.double()
    if factor is not None:
        epistemic = epistemic * factor**2
    total: Floats = epistemic.sum(-1).numpy()
    return total


def _nll(lessons: Lessons, truths: Tensor, factor: Tensor | None) -> float:
    if factor is None:
        own = lessons.mean.double().gather(1, truths.long()[:, None])
        return -float(own.clamp_min(1e-12).log().mean())
    variance = (lessons.epistemic + lessons.aleatoric).double() * factor**2
    squared = ((truths - lessons.mean.double()) * factor).square()
    terms = squared / variance + variance.log() + math.log(2 * math.pi)
    return 0.5 * float(torch.mean(terms))
