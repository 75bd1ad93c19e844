"""D numbers of a row in target units, with noise variances of their own or without.

With method `moments` mean and variance are closed; the noise of a log-variance output is that of a
log-normal, E e^s = exp(E s + Var s / 2).

Dimensions: T samples, B rows, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dubito.engine.calling.columns import Columns, Sums
from dubito.engine.calling.prediction import Prediction, Regression
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads import mixture
from dubito.engine.heads.head import OutputHead, Shape
from dubito.engine.heads.scaling import Scaling
from dubito.engine.kernels.constants import constant
from dubito.engine.moments import OutputMoments
from dubito.engine.summing.figures import Draws, regression
from dubito.engine.summing.forms import number_columns, number_sums
from dubito.engine.summing.statistics import RunningSums
from dubito_nn import Manifest

_PAIR = "mean_and_log_variance"


def mean_and_variance(raw: Tensor, manifest: Manifest) -> tuple[Tensor, Tensor]:
    """Mean and noise variance of every pass in target units, each (T, B, D), in float64.

    μ = a + b·m and σ² = b²·exp(s), with the target's mean a and standard deviation b, for a pair
    (m, s) of shape (T, B, 2, D); a head without s has no noise of its own.
    """
    raw = raw.double()
    paired = manifest.output == _PAIR
    mean_TBD = raw[:, :, 0] if paired else raw
    noise_TBD = raw[:, :, 1].exp() if paired else torch.zeros_like(raw)
    if manifest.target_scale is not None:
        shift, factor = (constant(part, mean_TBD) for part in manifest.target_scale)
        mean_TBD, noise_TBD = shift + factor * mean_TBD, factor.square() * noise_TBD
    return mean_TBD, noise_TBD


def log_variance(raw: Tensor, manifest: Manifest) -> Tensor | None:
    """Logarithm of the noise variance of every pass, (T, B, D) in float64; None for a head without.

    log σ² = s + 2 log b: finite where the variance itself underflows or overflows.
    """
    if manifest.output != _PAIR:
        return None
    own_TBD = raw[:, :, 1].double()
    if manifest.target_scale is None:
        return own_TBD
    return own_TBD + 2 * constant(manifest.target_scale[1], own_TBD).log()


class NumberOutputs(OutputHead):
    """Numbers in target units."""

    sample_names: ClassVar[tuple[str, ...]] = ("samples", "noise_samples")
    has_probabilities: ClassVar[bool] = False

    @property
    def is_curved(self) -> bool:
        return False

    @property
    def moments(self) -> NumberMoments | None:
        return NumberMoments(self.manifest)

    def expected_output(self, rows: int, output_shape: Shape) -> Shape | None:
        pair = (2,) if self.manifest.output == _PAIR else ()
        return (rows, *pair, self.manifest.num_outputs)

    def before_link(self, raw: Tensor) -> Tensor:
        return mean_and_variance(raw, self.manifest)[0]

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        yield mean_and_variance(raw, self.manifest)

    def sums(self, left: float | None, scaling: Scaling, device: torch.device) -> RunningSums:
        return number_sums(partial(self.parts, scaling=scaling), left, device)

    def columns_at_once(
        self, raw: Tensor, left: float | None, scaling: Scaling, *, is_lean: bool
    ) -> Columns | None:
        return number_columns(partial(self.parts, scaling=scaling), raw, left)

    def figures(self, sums: Sums, draws: Draws) -> Columns:
        return regression(sums, draws)

    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        members = [answer for answer in answers if isinstance(answer, Regression)]
        epistemic_BD = mixture.variance(
            [answer.epistemic_variance for answer in members], [answer.mean for answer in members]
        )
        aleatoric_BD = mixture.mean([answer.aleatoric_variance for answer in members])
        return {
            **mixture.shared_columns(members),
            "variance": epistemic_BD + aleatoric_BD,
            "epistemic_variance": epistemic_BD,
            "aleatoric_variance": aleatoric_BD,
            **mixture.joined("noise_samples", [answer.noise_samples for answer in members]),
        }

    def prediction(self, columns: Columns, sampling: Sampling) -> Regression:
        others = {name: column for name, column in columns.items() if name != "num_samples_used"}
        used_B = columns["num_samples_used"].astype(np.int64)
        return Regression(sampling=sampling, num_samples_used=used_B, positions=None, **others)


@dataclass(frozen=True)
class NumberMoments:
    """What propagated moments say of numbers."""

    manifest: Manifest

    def passes(self, moments: OutputMoments) -> Tensor:
        """Declared outputs at the nodes, (N, B, ...)."""
        return moments.at_nodes()

    def columns(
        self, moments: OutputMoments, scaling: Scaling, *, keep_nodes: bool
    ) -> dict[str, Tensor]:
        """The columns of a prediction."""
        mean, variance = moments.mean.double(), moments.variance.double()
        noise = torch.zeros_like(mean)
        if self.manifest.output == _PAIR:
            noise = (mean[:, 1] + variance[:, 1] / 2).exp()
            mean, variance = mean[:, 0], variance[:, 0]
        if self.manifest.target_scale is not None:
            shift, factor = (constant(part, mean) for part in self.manifest.target_scale)
            mean, square = shift + factor * mean, factor.square()
            variance, noise = square * variance, square * noise
        nodes = {}
        if keep_nodes:
            samples, noises = mean_and_variance(self.passes(moments), self.manifest)
            nodes = {"samples": samples, "noise_samples": noises}
        return {
            "mean": mean,
            "variance": variance + noise,
            "epistemic_variance": variance,
            "aleatoric_variance": noise,
            "standard_error": 0 * mean,
            "num_samples_used": torch.ones(len(mean)),
            **nodes,
        }
