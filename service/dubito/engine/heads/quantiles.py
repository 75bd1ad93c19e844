"""Q quantiles of each of D numbers of a row, in target units.

    quantiles            1/T Σ_t q_t, level by level, then sorted
    mean                 the level .5 as the passes have it, averaged and not sorted
    epistemic variance   of the passes' level .5
    aleatoric variance   of the normal through the outermost pair of `quantiles`

Averages of levels may cross, as the passes' own may. Sorted, they are no farther from the true
quantile function. `mean` is left as it is, so that its error and its variance are those of what was
averaged; where no averages cross it is the quantile of level .5.

Dimensions: T samples, B rows, D outputs, Q quantiles.
Source: Lichtendahl, Grushka-Cockayne and Winkler 2013, Management Science 59:1594-1611 (averages of
quantiles); Chernozhukov, Fernández-Val and Galichon 2010, arXiv:0704.3649 (sorted quantiles).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.calling.prediction import Prediction, Regression, in_order
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads import mixture
from dubito.engine.heads.head import OutputHead, Shape
from dubito.engine.heads.scaling import Scaling
from dubito.engine.kernels.constants import constant
from dubito.engine.summing.figures import QUIET, Draws
from dubito.engine.summing.forms import number_sums
from dubito.engine.summing.statistics import RunningSums
from dubito_nn import Manifest

Levels = tuple[float, ...]


def levels_of(manifest: Manifest) -> Levels:
    """Return the levels of the Q quantiles, ascending, .5 among them."""
    assert manifest.quantile_levels is not None
    return manifest.quantile_levels


def median_and_quantiles(raw: Tensor, manifest: Manifest) -> tuple[Tensor, Tensor]:
    """Return the level .5 of every pass, (T, B, D), and all its levels, (T, B, D, Q).

    In target units and float64: a + b·q, with the target's mean a and standard deviation b.
    """
    quantile_TBDQ = raw.double()
    if manifest.target_scale is not None:
        shift, factor = (constant(part, quantile_TBDQ)[:, None] for part in manifest.target_scale)
        quantile_TBDQ = shift + factor * quantile_TBDQ
    return quantile_TBDQ[..., levels_of(manifest).index(0.5)], quantile_TBDQ


@QUIET
def aleatoric_variance(quantile_BDQ: Column, levels: Levels) -> Column:
    """Return the variance of the normal that has the two outermost quantiles, (B, D).

    σ² = ((q_Q - q_1) / (z_Q - z_1))²,  z = Φ⁻¹(level)

    Args:
        quantile_BDQ: quantiles in ascending order.
        levels: their levels.

    Source: Wan, Wang, Liu and Tong 2014, arXiv:1407.8038 (of quartiles; any pair will do).
    """
    width_BD = quantile_BDQ[..., -1] - quantile_BDQ[..., 0]
    variance_BD: Column = np.square(width_BD / (ndtri(levels[-1]) - ndtri(levels[0])))
    return variance_BD


class QuantileOutputs(OutputHead):
    """Quantiles in target units; `samples` are the passes' level .5."""

    has_probabilities: ClassVar[bool] = False

    @property
    def is_curved(self) -> bool:
        return False

    @property
    def per_position(self) -> int:
        return self.manifest.num_outputs * len(levels_of(self.manifest))

    def expected_output(self, rows: int, output_shape: Shape) -> Shape:
        return (rows, self.manifest.num_outputs, len(levels_of(self.manifest)))

    def before_link(self, raw: Tensor) -> Tensor:
        return median_and_quantiles(raw, self.manifest)[0]

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        yield median_and_quantiles(raw, self.manifest)

    def sums(self, left: float | None, scaling: Scaling, device: torch.device) -> RunningSums:
        return number_sums(partial(self.parts, scaling=scaling), left, device)

    @QUIET
    def figures(self, sums: Sums, draws: Draws) -> Columns:
        return {
            "mean": sums["mean"],
            "standard_error": draws.standard_error(sums, draws.ratio(sums)),
            **self._variances(sums["squares"] / draws.count, sums["beside"] / draws.count),
        }

    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        members = [answer for answer in answers if isinstance(answer, Regression)]
        epistemic_BD = mixture.variance(
            [answer.epistemic_variance for answer in members], [answer.mean for answer in members]
        )
        levels = [answer.levels for answer in members if answer.levels is not None]
        shared = mixture.shared_columns(members)
        return shared | self._variances(epistemic_BD, mixture.mean(levels))

    def prediction(self, columns: Columns, sampling: Sampling) -> Regression:
        others = {name: column for name, column in columns.items() if name != "num_samples_used"}
        used_B = columns["num_samples_used"].astype(np.int64)
        return Regression(sampling=sampling, num_samples_used=used_B, positions=None, **others)

    def _variances(self, epistemic_BD: Column, level_BDQ: Column) -> Columns:
        """Return the parts of the variance, and what the second is made of."""
        own_BD = aleatoric_variance(in_order(level_BDQ), levels_of(self.manifest))
        return {
            "variance": epistemic_BD + own_BD,
            "epistemic_variance": epistemic_BD,
            "aleatoric_variance": own_BD,
            "levels": level_BDQ,
        }
