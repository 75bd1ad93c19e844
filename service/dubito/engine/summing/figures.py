"""What the sums of T passes say.

Its job: turn sums, once they are on the host, into the columns of a prediction. The numbers are few
by then and the time goes by the number of calls, which are cheapest in numpy. The clear reference
for every figure is `tests/measures.py`.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from dubito.engine.calling.columns import Column, Sums
from dubito.engine.summing.blocks import factor, factor_line, ratio

QUIET = np.errstate(divide="ignore", invalid="ignore", over="ignore")
"""Rows whose samples are all equal divide 0 by 0; those of a network that overflows are nan."""
_EQUAL = 1e-14  # samples nearer to each other than this, relative to their mean, are equal


@dataclass(frozen=True)
class Draws:
    """What sums are of.

    Args:
        count: samples, T.
        left: what a stratified draw leaves, a; None for `iid`.
        blocks: whole blocks of 16 among them.
        group_size: samples of each of the jackknife's groups but the last.
    """

    count: int
    left: float | None
    blocks: int
    group_size: int = 1

    @QUIET
    def ratio(self, sums: Sums) -> Column | None:
        """Return R of every output under a stratified draw (`dubito.engine.summing.blocks`)."""
        if self.left is None:
            return None
        return ratio(sums, sums["squares"], left=self.left, blocks=self.blocks, count=self.count)

    def standard_error(self, sums: Sums, ratio_BD: Column | None) -> Column:
        """Return the standard error of the mean; 0 for one sample.

        iid: sqrt(M2 / (T - 1)) / sqrt(T); stratified: sqrt(M2 / T · q / (T - q))
        """
        count, squares_BD = self.count, sums["squares"]
        if count < 2:
            return 0 * squares_BD  # nan where the pass overflowed
        if ratio_BD is None:
            return np.sqrt(squares_BD / ((count - 1) * count))
        part_BD = factor(ratio_BD, count)
        error_BD = np.sqrt(squares_BD * part_BD / ((count - part_BD) * count))
        return error_BD

    @QUIET
    def is_within(self, sums: Sums, tolerance: float) -> NDArray[np.bool_]:
        """Whether a row varies, and the standard error of none of its outputs is above; (B,)."""
        rows = len(sums["mean"])
        varies_BD = sums["squares"] > self.count * np.square(_EQUAL * sums["mean"])
        is_small_BD = self.standard_error(sums, self.ratio(sums)) <= tolerance
        varies_B = np.any(varies_BD.reshape(rows, -1), axis=1)
        within_B: NDArray[np.bool_] = varies_B & np.all(is_small_BD.reshape(rows, -1), axis=1)
        return within_B


@QUIET
def classification(sums: Sums, draws: Draws) -> dict[str, Column]:
    """The columns of a classification, by their names in a reply.

    Args:
        sums: as `ClassificationSums` names them.
        draws: that they are of.
    """
    count, ratio_BC = draws.count, draws.ratio(sums)
    mean_BC = sums["mean"] / sums["mean"].sum(-1, keepdims=True)
    expected_B = sums["entropy"] / count
    varies_B = (sums["squares"] != 0).any(-1)
    # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
    entropy_B = np.where(varies_B, entr(mean_BC).sum(-1), expected_B)
    predictive_B = np.maximum(entropy_B, expected_B)
    information_B = predictive_B - expected_B
    share_BC = sums["votes"] / count
    added_B = np.where(varies_B, sums["jackknife"], 0.0)
    if ratio_BC is not None:
        added_B = _scaled(added_B, sums, ratio_BC, draws)
    return {
        "mean": mean_BC,
        "variance": sums["squares"] / count,
        "standard_error": draws.standard_error(sums, ratio_BC),
        "predictive_entropy": predictive_B,
        "expected_entropy": expected_B,
        "mutual_information": information_B,
        "mutual_information_corrected": information_B + added_B,
        "vote_share": share_BC,
        # a pass that overflowed votes for nothing
        "variation_ratio": 1.0 - share_BC.max(-1) + 0 * expected_B,
        "energy": -sums["sizes"][:, 0],
        "energy_spread": np.sqrt(sums["size_squares"][:, 0] / count),
        "max_logit": sums["sizes"][:, 1],
    }


@QUIET
def regression(sums: Sums, draws: Draws) -> dict[str, Column]:
    """The columns of a regression, by their names in a reply.

    Args:
        sums: as `RegressionSums` names them.
        draws: that they are of.
    """
    epistemic_BD, aleatoric_BD = sums["squares"] / draws.count, sums["beside"] / draws.count
    return {
        "mean": sums["mean"],
        "variance": epistemic_BD + aleatoric_BD,
        "epistemic_variance": epistemic_BD,
        "aleatoric_variance": aleatoric_BD,
        "standard_error": draws.standard_error(sums, draws.ratio(sums)),
    }


def _scaled(added_B: Column, sums: Sums, ratio_BC: Column, draws: Draws) -> Column:
    """The jackknife's correction, which takes groups for independent, for a stratified draw.

    The bias of H[p̄] is about -1/2 Σ_c Var(p̄_c) / p̄_c, so the scale is the ratio of that sum
    under the draw to that of independent groups.
    """
    mean_BC, squares_BC = sums["mean"], sums["squares"]
    weight_BC = np.divide(squares_BC, mean_BC, out=np.zeros_like(mean_BC), where=mean_BC != 0)
    weight_B, weighted_B = weight_BC.sum(-1), (weight_BC * ratio_BC).sum(-1)
    true_B, taken_B = (
        constant * weight_B + slope * weighted_B
        for constant, slope in map(factor_line, (draws.count, draws.group_size))
    )
    scale_B = np.divide(true_B, taken_B, out=np.ones_like(taken_B), where=taken_B > 0)
    scaled_B: Column = added_B * scale_B
    return scaled_B
