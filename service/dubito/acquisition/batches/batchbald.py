"""BatchBALD: the batch whose labels together say most about ω, chosen greedily.

    MI(y_1..y_k; ω) = H(y_1..y_k) - Σ_i E_t H(y_i | ω_t)

Its job, step by step: add the row with the largest gain, given the rows S that are there.

    gain_n = E_{y_S} H(y_n | y_S) - E_t H(y_n | ω_t)
    p(y_n | y_S) = Σ_t w_t(y_S) p_t(y_n),  w_t(y_S) = Π_{i in S} p_t(y_i) / Σ_t' Π p_t'(y_i)

*Configurations* are the outcomes y_S of the labels so far. All C^|S| of them are kept, with their
probabilities, while they are at most `configurations`; then as many are drawn, in equal numbers
from every ω_t, and extended by a label at every further step. The gain is a mean of entropies of
proper distributions, so that a certain row has a gain of 0 and no logarithm of 0 is ever taken.

Gains only fall while S grows (the information is submodular), so an old gain is an upper bound of
the present one: rows are looked at in order of their bounds, until no bound is above the best gain.
That is exact while configurations are; on drawn ones it holds up to their noise.

Dimensions: T samples, N candidates, C classes, M configurations.

Source: Kirsch, van Amersfoort and Gal 2019, arXiv:1906.08158; Minoux 1978, "Accelerated greedy
algorithms for maximizing submodular set functions".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.top import descending
from dubito.engine.calling.arguments import Check

CONFIGURATIONS = 10_000
_TABLE_BYTES = 32 * 2**20  # of one table of configurations x outcomes
_FIRST_LOOK = 32  # rows at the beginning of a step; doubled while bounds remain
_ROUNDING = 1e-9  # nats that a bound may be below its gain by rounding


@dataclass(eq=False)
class Configurations:
    """Outcomes of the labels of the rows that are in the batch.

    Args:
        most: how many are kept at once.
        generator: draws them, once they are more than that.
        weights: their probabilities; equal once they are drawn.
        posteriors: weights of the ω_t, given each of them; every row adds up to 1.
        origins: the ω_t from which each was drawn; None while all of them are kept.
    """

    most: int
    generator: torch.Generator
    weights: Tensor
    posteriors: Tensor
    origins: Tensor | None = None
    _rows: list[Tensor] = field(default_factory=list)

    @classmethod
    def none(cls, num_samples: int, most: int, seed: int, like: Tensor) -> Configurations:
        """The one outcome of no labels at all."""
        generator = torch.Generator().manual_seed(seed)
        uniform_1T = like.new_full((1, num_samples), 1 / num_samples)
        return cls(most, generator, torch.ones_like(uniform_1T[:, 0]), uniform_1T)

    def add(self, probs_TC: Tensor) -> None:
        """Take in the label of one more row."""
        self._rows.append(probs_TC)
        if self.origins is not None:
            self._extend(probs_TC)
        elif len(self.weights) * probs_TC.shape[1] <= self.most:
            self._multiply(probs_TC)
        else:
            self._draw()

    def _multiply(self, probs_TC: Tensor) -> None:
        """Every outcome with every label; outcomes without probability are left out."""
        joint_MTC = self.posteriors[:, :, None] * probs_TC
        joint_OT = joint_MTC.transpose(1, 2).flatten(0, 1)
        share_O = joint_OT.sum(1)
        weight_O = (self.weights[:, None] * share_O.view(len(self.weights), -1)).flatten()
        is_possible_O = (weight_O > 0) & (share_O > 0)
        self.weights = weight_O[is_possible_O]
        self.posteriors = joint_OT[is_possible_O] / share_O[is_possible_O, None]

    def _draw(self) -> None:
        """Outcomes of all labels so far, in equal numbers from every ω_t."""
        num_samples = self.posteriors.shape[1]
        each = max(1, self.most // num_samples)
        device = self.posteriors.device
        self.origins = torch.arange(num_samples, device=device).repeat_interleave(each)
        count = len(self.origins)
        self.weights = self.weights.new_full((count,), 1 / count)
        self.posteriors = self.posteriors.new_full((count, num_samples), 1 / num_samples)
        for probs_TC in self._rows:
            self._extend(probs_TC)

    def _extend(self, probs_TC: Tensor) -> None:
        """One more label to every outcome, drawn from the ω_t that drew the others."""
        assert self.origins is not None
        cumulative_TC = probs_TC.cumsum(1)
        total_M1 = cumulative_TC[self.origins, -1:]
        uniform_M = torch.rand(len(self.origins), generator=self.generator, dtype=torch.float64)
        point_M1 = uniform_M.to(probs_TC.device)[:, None] * total_M1
        label_M = (cumulative_TC[self.origins] <= point_M1).sum(1).clamp_max(probs_TC.shape[1] - 1)
        joint_MT = self.posteriors * probs_TC[:, label_M].T
        self.posteriors = joint_MT / joint_MT.sum(1, keepdim=True)

    def conditional_entropy(self, probs_TNC: Tensor) -> Tensor:
        """Entropy of each row's label where the labels of the batch are known, on average; (N,).

        E_{y_S} H(y_n | y_S)
        """
        num_samples, rows, classes = probs_TNC.shape
        flat_TO = probs_TNC.reshape(num_samples, -1)
        entropy_N = flat_TO.new_zeros(rows)
        at_once = max(1, _TABLE_BYTES // (flat_TO.element_size() * rows * classes))
        for first in range(0, len(self.weights), at_once):
            piece = slice(first, first + at_once)
            table_mO = self.posteriors[piece] @ flat_TO
            torch.special.entr(table_mO, out=table_mO)
            entropy_N += (self.weights[piece] @ table_mO).view(rows, classes).sum(1)
        return entropy_N


def choose(
    probs_TNC: Tensor,
    picks: Picks,
    *,
    seed: int = 0,
    configurations: int = CONFIGURATIONS,
    check: Check | None = None,
) -> None:
    """Fill a batch; its scores are the gains, which add up to the mutual information of the batch.

    Args:
        probs_TNC: probabilities of every pass over the candidates, with the same ω_t for all rows.
        picks: the batch, still empty.
        seed: of drawn configurations.
        configurations: most outcomes that are kept or drawn at once.
        check: called between tables; whatever it raises ends the choosing.

    Raises:
        InputError: fewer rows than k can be chosen.
    """
    probs_TNC = probs_TNC.contiguous()
    expected_N = torch.special.entr(probs_TNC).sum(-1).mean(0)
    known = Configurations.none(len(probs_TNC), configurations, seed, probs_TNC)
    bound_N = (torch.special.entr(probs_TNC.mean(0)).sum(-1) - expected_N).cpu().numpy().copy()
    while not picks.is_full:
        if picks.rows:
            known.add(probs_TNC[:, picks.rows[-1]])
            gain_N = _look(known, probs_TNC, expected_N, bound_N, picks, check)
        else:
            gain_N = bound_N
        row = picks.best(gain_N)
        picks.take(row, gain_N[row])


def placed(probs_TNC: Tensor, device: torch.device) -> Tensor:
    """The probabilities on a GPU where there is room, four times theirs; else where they are.

    Args:
        probs_TNC: on the CPU.
        device: of the network.
    """
    if device.type != "cuda":
        return probs_TNC
    free, _ = torch.cuda.mem_get_info(device)
    return probs_TNC.to(device) if free > 4 * (probs_TNC.nbytes + _TABLE_BYTES) else probs_TNC


def _look(
    known: Configurations,
    probs_TNC: Tensor,
    expected_N: Tensor,
    bound_N: np.ndarray[tuple[int], np.dtype[np.float64]],
    picks: Picks,
    check: Check | None,
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Gains of the rows that may be the best; -inf for the others. Bounds are brought down."""
    order = descending(bound_N, picks.words)
    order = order[picks.is_open[order] & np.isfinite(bound_N[order])]
    gain_N = np.full(len(bound_N), -np.inf)
    best, start, size = -np.inf, 0, _FIRST_LOOK
    while start < len(order) and bound_N[order[start]] >= best - _ROUNDING:
        if check is not None:
            check()
        row_n = order[start : start + size]
        index_n = torch.from_numpy(row_n.copy()).to(probs_TNC.device)
        entropy_n = known.conditional_entropy(probs_TNC[:, index_n])
        gain_N[row_n] = bound_N[row_n] = (entropy_n - expected_N[index_n]).cpu().numpy()
        best = max(best, gain_N[row_n].max())
        start += size
        size *= 2
    return gain_N
