"""What T passes say together, summed up while they stream.

Its job: take chunks of passes in order of t and keep sums that do not grow with T, in float64. The
clear reference for every figure is `dubito.measures`.

Dimensions: T samples, B rows, C classes, D outputs, G groups of samples for the jackknife.

    moments     mean and M2 = Σ (x - mean)², merged by Chan's rule; never E[x²] - E[x]²
    entropies   Σ_t H[p_t] and p̄
    jackknife   Σ p over each of at most 64 groups of consecutive samples

Source: Chan, Golub, LeVeque 1983; Busing, Meijer, Van der Leeden 1999 (unequal groups).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_GROUPS = 64


class Moments:
    """Running mean and sum of squared deviations over the first axis."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, chunk_TBD: Tensor) -> None:
        """Take in some samples."""
        count = len(chunk_TBD)
        mean = chunk_TBD.mean(0)
        squares = (chunk_TBD - mean).square().sum(0)
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def variance(self) -> Tensor:
        """M2 / T, so that a decomposition into parts adds up."""
        return self.squares / self.count

    def standard_error(self) -> Tensor:
        """sqrt(M2 / (T - 1)) / sqrt(T), of the mean of independent draws; 0 for one sample."""
        return (self.squares / max(1, self.count - 1) / self.count).sqrt()


class ClassificationSums:
    """Everything a classification reports, from streamed log-probabilities.

    Args:
        num_samples: T, known beforehand, which sets the size of the groups.
    """

    def __init__(self, num_samples: int) -> None:
        self.probs = Moments()
        self._group_size = math.ceil(num_samples / MAX_GROUPS)
        self._groups: list[Tensor] = []
        self._sizes: list[int] = []
        self._entropy_B = torch.zeros(())
        self._votes_BC = torch.zeros(())
        self._energy_B = torch.zeros(())

    def add(self, log_probs_TBC: Tensor, logits_TBC: Tensor) -> None:
        """Take in the next samples, in order of t."""
        probs_TBC = log_probs_TBC.exp()
        start = self.probs.count
        self.probs.add(probs_TBC)
        self._entropy_B = self._entropy_B + torch.special.entr(probs_TBC).sum(-1).sum(0)
        votes = torch.nn.functional.one_hot(probs_TBC.argmax(-1), probs_TBC.shape[-1])
        self._votes_BC = self._votes_BC + votes.sum(0)
        self._energy_B = self._energy_B - logits_TBC.logsumexp(-1).sum(0)
        for offset in range(len(probs_TBC)):
            if (start + offset) % self._group_size == 0:
                self._groups.append(torch.zeros_like(probs_TBC[0]))
                self._sizes.append(0)
            self._groups[-1] = self._groups[-1] + probs_TBC[offset]
            self._sizes[-1] += 1

    def measures(self) -> dict[str, Tensor]:
        """The columns of a classification, by their names in a reply."""
        count = self.probs.count
        mean_BC = self.probs.mean
        expected_B = self._entropy_B / count
        # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
        predictive_B = torch.maximum(torch.special.entr(mean_BC).sum(-1), expected_B)
        return {
            "mean": mean_BC,
            "variance": self.probs.variance(),
            "standard_error": self.probs.standard_error(),
            "predictive_entropy": predictive_B,
            "expected_entropy": expected_B,
            "mutual_information": predictive_B - expected_B,
            "mutual_information_corrected": self._corrected(predictive_B, expected_B),
            "vote_share": self._votes_BC.double() / count,
            # a pass that overflowed votes for nothing
            "variation_ratio": (1 - self._votes_BC.amax(-1) / count) + 0 * expected_B,
            "energy": self._energy_B / count,
        }

    def _corrected(self, predictive_B: Tensor, expected_B: Tensor) -> Tensor:
        """G·H - Σ_j (1 - m_j/T)·H_(j) - mean H[p_t], not below the plain figure."""
        plain_B, count = predictive_B - expected_B, self.probs.count
        if count < 2:
            return plain_B
        total_BC = self.probs.mean * count
        corrected_B = len(self._groups) * predictive_B
        for group_BC, size in zip(self._groups, self._sizes, strict=True):
            without_BC = ((total_BC - group_BC) / (count - size)).clamp_min(0)
            share = 1 - size / count
            corrected_B = corrected_B - share * torch.special.entr(without_BC).sum(-1)
        return torch.maximum(corrected_B - expected_B, plain_B)


class RegressionSums:
    """Everything a regression reports, from streamed means and noise variances."""

    def __init__(self) -> None:
        self.means = Moments()
        self._noise_BD = torch.zeros(())

    def add(self, mean_TBD: Tensor, noise_TBD: Tensor) -> None:
        """Take in the next samples."""
        self.means.add(mean_TBD)
        self._noise_BD = self._noise_BD + noise_TBD.sum(0)

    def measures(self) -> dict[str, Tensor]:
        """The columns of a regression, by their names in a reply."""
        epistemic_BD, aleatoric_BD = self.means.variance(), self._noise_BD / self.means.count
        return {
            "mean": self.means.mean,
            "variance": epistemic_BD + aleatoric_BD,
            "epistemic_variance": epistemic_BD,
            "aleatoric_variance": aleatoric_BD,
            "standard_error": self.means.standard_error(),
        }
