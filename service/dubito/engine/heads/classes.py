"""A class for each row: one distribution over C classes.

With method `moments` the outputs are taken as jointly Gaussian, z ~ N(m, Σ), and all that is said
of softmax(z / temperature) is an average over 256 fixed points z_n (`moments/outputs.py`):

    p̄ = 1/N Σ_n p_n,   predictive H[p̄],   expected 1/N Σ_n H[p_n],   mutual information the rest

No Monte Carlo error enters: `standard_error` is 0, the corrected mutual information the plain one.

Dimensions: T samples, N nodes, B rows, C classes.
Source: Daunizeau 2017, arXiv:1703.00091, for the softmax of a Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from dubito.engine.calling.columns import Columns, Sums
from dubito.engine.calling.prediction import Classification, Prediction
from dubito.engine.calling.sampling import Sampling
from dubito.engine.heads.answers import LEAN_COLUMNS, SPREAD_COLUMNS, answer, mixed_classes
from dubito.engine.heads.head import OutputHead, Shape
from dubito.engine.heads.logits import has_many_classes, logits, probabilities, to_sum
from dubito.engine.heads.scaling import Scaling, scaled
from dubito.engine.moments import OutputMoments
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.forms import (
    ClassPasses,
    class_columns,
    class_figures,
    class_sums,
    lean_class_sums,
)
from dubito.engine.summing.statistics import RunningSums


class ClassOutputs(OutputHead):
    """One distribution over the classes."""

    lean_columns: ClassVar[frozenset[str]] = LEAN_COLUMNS
    spread_columns: ClassVar[Mapping[str, str]] = SPREAD_COLUMNS

    @property
    def is_curved(self) -> bool:
        return has_many_classes(self.manifest)

    @property
    def moments(self) -> ClassMoments:
        return ClassMoments(self.manifest.output)

    def expected_output(self, rows: int, output_shape: Shape) -> Shape:
        is_binary = self.manifest.output == "sigmoid_logits"
        return (rows, 1 if is_binary else self.manifest.num_outputs)

    def logits(self, raw: Tensor) -> Tensor:
        """Numbers in float64 whose softmax over the last axis are the probabilities: (T, B, C)."""
        return logits(raw, self.manifest.output)

    def before_link(self, raw: Tensor) -> Tensor:
        return self.logits(raw)

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        yield probabilities(raw, self.manifest.output, scaling)

    def sums(self, left: float | None, scaling: Scaling, device: torch.device) -> RunningSums:
        return class_sums(self._passes(scaling), left, device)

    def columns_at_once(
        self, raw: Tensor, left: float | None, scaling: Scaling, *, is_lean: bool
    ) -> Columns | None:
        return class_columns(self._passes(scaling), raw, left, is_lean=is_lean)

    def lean_sums(self, scaling: Scaling, device: torch.device) -> RunningSums:
        return lean_class_sums(self._passes(scaling), device)

    def _passes(self, scaling: Scaling) -> ClassPasses:
        return ClassPasses(
            partial(to_sum, output=self.manifest.output, scaling=scaling),
            partial(self.parts, scaling=scaling),
        )

    def figures(self, sums: Sums, draws: Draws) -> Columns:
        return class_figures(sums, draws)

    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        return mixed_classes(answers)

    def prediction(self, columns: Columns, sampling: Sampling) -> Classification:
        return answer(columns, self.manifest, sampling)


@dataclass(frozen=True)
class ClassMoments:
    """What propagated moments say of classes.

    Args:
        output: what the network declares; log-probabilities and probabilities are normalised.
    """

    output: str

    def passes(self, moments: OutputMoments) -> Tensor:
        """Declared outputs at the nodes, (N, B, C)."""
        raw_NBC = moments.at_nodes()
        if self.output == "log_probs":
            return raw_NBC.log_softmax(-1)
        return raw_NBC.softmax(-1) if self.output == "probs" else raw_NBC

    def columns(
        self, moments: OutputMoments, scaling: Scaling, *, keep_nodes: bool
    ) -> dict[str, Tensor]:
        """The columns of a prediction; operators over classes are fast where N lies inside."""
        raw_BCN = self._logits(moments.nodes_inside()).float()
        z_BCN = scaled(raw_BCN, scaling, dim=1)
        norm_B1N = z_BCN.logsumexp(1, keepdim=True)
        probs_BCN = (z_BCN - norm_B1N).exp_()
        entropy_BN = norm_B1N[:, 0] - (probs_BCN * z_BCN).sum(1)
        mean_BC = probs_BCN.mean(-1).double()
        mean_BC = mean_BC / mean_BC.sum(-1, keepdim=True)
        expected_B = entropy_BN.mean(-1).double().clamp_min(0)
        # by concavity; rounding must not undo it
        predictive_B = torch.maximum(torch.special.entr(mean_BC).sum(-1), expected_B)
        mutual_B = predictive_B - expected_B
        share_BC = (z_BCN == z_BCN.amax(1, keepdim=True)).double().mean(-1)
        energy_BN = norm_B1N[:, 0] if z_BCN is raw_BCN else raw_BCN.logsumexp(1)
        return {
            "mean": mean_BC,
            "variance": (probs_BCN - mean_BC.float().unsqueeze(-1)).square_().mean(-1).double(),
            "standard_error": 0 * mean_BC,
            "num_samples_used": torch.ones(len(mean_BC)),
            "predictive_entropy": predictive_B,
            "expected_entropy": expected_B,
            "mutual_information": mutual_B,
            "mutual_information_corrected": mutual_B,
            "vote_share": share_BC,
            # where the network overflows nothing is known
            "variation_ratio": 1 - share_BC.amax(-1) + 0 * expected_B,
            "energy": -energy_BN.mean(-1).double(),
            "energy_spread": energy_BN.std(-1, correction=0).double(),
            "max_logit": raw_BCN.amax(1).mean(-1).double(),
            **({"samples": probs_BCN.permute(2, 0, 1).double()} if keep_nodes else {}),
        }

    def _logits(self, raw_BCN: Tensor) -> Tensor:
        if self.output == "sigmoid_logits":
            return torch.cat([torch.zeros_like(raw_BCN), raw_BCN], 1)
        return raw_BCN.log_softmax(1) if self.output in ("log_probs", "probs") else raw_BCN
