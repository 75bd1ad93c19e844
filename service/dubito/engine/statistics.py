"""What T passes say together, summed up while they stream.

Its job: take chunks of passes in order of t and keep sums that do not grow with T, in float64. The
clear reference for every figure is `dubito.measures`. The sums of some rows can be taken out and
go on alone, which is how rows that are done leave a batch.

Dimensions: T samples, B rows, C classes, D outputs.

    moments     mean and M2 = Σ (x - mean)²                      moments.py
    blocks      under a stratified draw: what its error needs    blocks.py
    entropies   Σ_t H[p_t] and p̄
    sizes       mean and M2 of log Σ_c exp(z_tc) and of max_c z_tc
    jackknife   Σ p over each of at most 64 groups of samples    jackknife.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from dubito.engine.blocks import Blocks, factor, factor_line
from dubito.engine.jackknife import MAX_GROUPS, Groups
from dubito.engine.moments import Moments


class Spread:
    """Mean, variance and standard error under the draw used.

    Args:
        left: what a stratified draw leaves, see `dubito.engine.blocks`; None for `iid`.
    """

    def __init__(self, left: float | None = None) -> None:
        self.moments = Moments()
        self.blocks = None if left is None else Blocks(left)

    def add(self, chunk_TBD: Tensor) -> None:
        """Take in the next samples, in order of t."""
        self.moments.add(chunk_TBD)
        if self.blocks is not None:
            self.blocks.add(chunk_TBD)

    def standard_error(self) -> Tensor:
        """Of the mean; 0 for one sample.

        iid: sqrt(M2 / (T - 1)) / sqrt(T); stratified: sqrt(M2 / T · q / (T - q))
        """
        count = self.moments.count
        if count < 2:
            return torch.zeros_like(self.moments.mean)
        if self.blocks is None:
            return (self.moments.squares / (count - 1) / count).sqrt()
        part_BD = factor(self.blocks.ratio(self.moments), count)
        return (self.moments.squares / count * part_BD / (count - part_BD)).sqrt()

    def take(self, rows: Tensor) -> Spread:
        """The same of some rows."""
        part = Spread()
        part.moments = self.moments.take(rows)
        part.blocks = None if self.blocks is None else self.blocks.take(rows)
        return part


class ClassificationSums:
    """Everything a classification reports, from streamed log-probabilities.

    Rows may have axes of positions before their classes; every figure but `energy`, `energy_spread`
    and `max_logit` is then one of a position.

    Args:
        left: what a stratified draw leaves; None for `iid`.
        groups: most sums that the jackknife keeps.
    """

    def __init__(self, left: float | None = None, groups: int = MAX_GROUPS) -> None:
        self.spread = Spread(left)
        self._groups = Groups(groups)
        self._entropy_B = torch.zeros(())
        self._votes_BC = torch.zeros(())
        self._sizes = Moments()

    def add(self, probs_TBC: Tensor, sizes_TB2: Tensor) -> None:
        """Take in the next samples, in order of t.

        Args:
            probs_TBC: of every pass; between rows and classes maybe positions.
            sizes_TB2: log Σ exp of its logits, and the largest of them.
        """
        self.spread.add(probs_TBC)
        self._groups.add(probs_TBC)
        self._entropy_B = self._entropy_B + torch.special.entr(probs_TBC).sum((0, -1))
        votes = torch.nn.functional.one_hot(probs_TBC.argmax(-1), probs_TBC.shape[-1])
        self._votes_BC = self._votes_BC + votes.sum(0)
        self._sizes.add(sizes_TB2)

    def measures(self) -> dict[str, Tensor]:
        """The columns of a classification, by their names in a reply."""
        moments = self.spread.moments
        expected_B = self._entropy_B / moments.count
        # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
        predictive_B = torch.maximum(torch.special.entr(moments.mean).sum(-1), expected_B)
        information_B = predictive_B - expected_B
        log_sum_B, largest_B = self._sizes.mean.unbind(-1)
        share_BC = self._votes_BC.double() / moments.count
        return {
            "mean": moments.mean,
            "variance": moments.variance(),
            "standard_error": self.spread.standard_error(),
            "predictive_entropy": predictive_B,
            "expected_entropy": expected_B,
            "mutual_information": information_B,
            "mutual_information_corrected": information_B + self._correction(predictive_B),
            "vote_share": share_BC,
            # a pass that overflowed votes for nothing
            "variation_ratio": 1.0 - share_BC.amax(-1) + 0 * expected_B,
            "energy": -log_sum_B,
            "energy_spread": self._sizes.variance()[:, 0].sqrt(),
            "max_logit": largest_B,
        }

    def take(self, rows: Tensor) -> ClassificationSums:
        """The same of some rows."""
        part = ClassificationSums()
        part.spread, part._groups = self.spread.take(rows), self._groups.take(rows)
        part._entropy_B, part._votes_BC = self._entropy_B[rows], self._votes_BC[rows]
        part._sizes = self._sizes.take(rows)
        return part

    def _correction(self, predictive_B: Tensor) -> Tensor:
        """The jackknife's, which takes groups for independent, scaled to the draw used.

        The bias of H[p̄] is about -1/2 Σ_c Var(p̄_c) / p̄_c, so the scale is the ratio of that sum
        under the draw to that of independent groups.
        """
        moments, blocks = self.spread.moments, self.spread.blocks
        correction_B = self._groups.correction(moments.mean, predictive_B)
        if blocks is None:
            return correction_B
        weight_BC = (moments.squares / moments.mean).masked_fill_(moments.mean == 0, 0.0)
        weight_B = weight_BC.sum(-1)
        weighted_B = (weight_BC * blocks.ratio(moments)).sum(-1)
        true_B, taken_B = (
            constant * weight_B + slope * weighted_B
            for constant, slope in map(factor_line, (moments.count, self._groups.size))
        )
        return torch.where(taken_B > 0, correction_B * true_B / taken_B, correction_B)


class RegressionSums:
    """Everything a regression reports, from streamed means and noise variances.

    Args:
        left: what a stratified draw leaves; None for `iid`.
    """

    def __init__(self, left: float | None = None) -> None:
        self.spread = Spread(left)
        self._noise_BD = torch.zeros(())

    def add(self, mean_TBD: Tensor, noise_TBD: Tensor) -> None:
        """Take in the next samples."""
        self.spread.add(mean_TBD)
        self._noise_BD = self._noise_BD + noise_TBD.sum(0)

    def measures(self) -> dict[str, Tensor]:
        """The columns of a regression, by their names in a reply."""
        moments = self.spread.moments
        epistemic_BD, aleatoric_BD = moments.variance(), self._noise_BD / moments.count
        return {
            "mean": moments.mean,
            "variance": epistemic_BD + aleatoric_BD,
            "epistemic_variance": epistemic_BD,
            "aleatoric_variance": aleatoric_BD,
            "standard_error": self.spread.standard_error(),
        }

    def take(self, rows: Tensor) -> RegressionSums:
        """The same of some rows."""
        part = RegressionSums()
        part.spread, part._noise_BD = self.spread.take(rows), self._noise_BD[rows]
        return part
