"""How likely given tokens are: their log-probabilities, and that of the whole sequence.

The network returns log p of every token of a row, of which a mask says which count; the length may
differ between calls. With M the tokens that count, |M| of them, of every pass t

    S_t = Σ_{l in M} log p_tl             the sequence's log-probability

and over the passes, variances with ddof = 0,

    mean, variance               of S_t
    normalised_mean              1/T Σ_t S_t / |M|             D-TP
    normalised_variance          Var_t (S_t / |M|)             D-Var
    token_mean, token_std        of log p_tl, token by token; nan at padding

What is summed is each token's number and behind them S_t, as one output more. A tolerance bounds
the standard errors of all of them.

Dimensions: T samples, B rows, L tokens; K = L + 1.
Source: Fomicheva et al. 2020, arXiv:2005.10608 (D-TP and D-Var).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.calling.prediction import Prediction, SequenceScores
from dubito.engine.calling.sampling import Sampling
from dubito.engine.draws.strata import BLOCK
from dubito.engine.heads import mixture
from dubito.engine.heads.head import OutputHead, Shape
from dubito.engine.heads.scaling import Scaling
from dubito.engine.heads.several import AT_ONCE_ELEMENTS
from dubito.engine.summing.figures import QUIET, Draws
from dubito.engine.summing.forms import number_sums
from dubito.engine.summing.statistics import RunningSums

_STATE = 24  # numbers of float64 that the sums keep, at most, for each token


class SequenceOutputs(OutputHead):
    """Log-probabilities of tokens."""

    has_probabilities: ClassVar[bool] = False

    @property
    def is_curved(self) -> bool:
        return True

    def position_shape(self, output_shape: Callable[[], Shape]) -> Shape:
        return tuple(output_shape()[2:])

    def expected_output(self, rows: int, output_shape: Shape) -> Shape | None:
        if len(output_shape) != 3 or output_shape[2] < 1:
            return None
        return (rows, 2, output_shape[2])

    def sum_bytes(self, output_shape: Shape, *, is_lean: bool) -> int:
        return _STATE * 8 * (math.prod(output_shape[2:]) + 1)

    def before_link(self, raw: Tensor) -> Tensor:
        return tokens_and_mask(raw)[0]

    def parts(self, raw: Tensor, scaling: Scaling) -> Iterator[tuple[Tensor, Tensor]]:
        blocks = max(1, AT_ONCE_ELEMENTS // max(1, BLOCK * raw[:1].numel()))
        for part in torch.split(raw, BLOCK * blocks):
            value_TBL, mask_TBL = tokens_and_mask(part)
            yield _with_total(value_TBL), _with_total(mask_TBL)

    def sums(self, left: float | None, scaling: Scaling, device: torch.device) -> RunningSums:
        return number_sums(partial(self.parts, scaling=scaling), left, device)

    @QUIET
    def figures(self, sums: Sums, draws: Draws) -> Columns:
        mean_BK, variance_BK = sums["mean"], sums["squares"] / draws.count
        is_token_BL = sums["beside"][:, :-1] > draws.count / 2
        error_BK = draws.standard_error(sums, draws.ratio(sums))
        return {
            **_of_rows(mean_BK[:, -1], variance_BK[:, -1], is_token_BL),
            "standard_error": error_BK[:, -1],
            "token_mean": np.where(is_token_BL, mean_BK[:, :-1], np.nan),
            "token_std": np.where(is_token_BL, np.sqrt(variance_BK[:, :-1]), np.nan),
        }

    @QUIET
    def mixed(self, answers: Sequence[Prediction]) -> Columns:
        members = [answer for answer in answers if isinstance(answer, SequenceScores)]
        variance_B = mixture.variance(
            [answer.variance for answer in members], [answer.mean for answer in members]
        )
        each = [answer.token_mean for answer in members]
        variance_BL = mixture.variance([np.square(one.token_std) for one in members], each)
        shared, token_mean_BL = mixture.shared_columns(members), mixture.mean(each)
        is_token_BL = members[0].is_token
        return {
            **shared,
            **_of_rows(shared["mean"], variance_B, is_token_BL),
            "token_mean": token_mean_BL,
            "token_std": np.sqrt(variance_BL),
        }

    def prediction(self, columns: Columns, sampling: Sampling) -> SequenceScores:
        counts = ("num_samples_used", "num_tokens")
        others = {name: column for name, column in columns.items() if name not in counts}
        samples = others.pop("samples", None)
        if samples is not None and samples.ndim == 3:  # those of a mixture are of rows already
            samples = samples[..., -1]
        used_B, tokens_B = (columns[name].astype(np.int64) for name in counts)
        return SequenceScores(
            sampling=sampling,
            num_samples_used=used_B,
            num_tokens=tokens_B,
            samples=samples,
            is_token=others.pop("is_token").astype(bool),
            **others,
        )


def tokens_and_mask(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of every pass, 0 at padding, and 1 where there is a token.

    Shape (T, B, L) each, in float64, of declared outputs (T, B, 2, L).
    """
    raw = raw.double()
    is_token_TBL = raw[:, :, 1] > 0.5
    value_TBL = torch.where(is_token_TBL, raw[:, :, 0], torch.zeros_like(raw[:, :, 0]))
    return value_TBL, is_token_TBL.double()


def _with_total(value_TBL: Tensor) -> Tensor:
    """The tokens' numbers and behind them their sum, (T, B, K)."""
    return torch.cat([value_TBL, value_TBL.sum(-1, keepdim=True)], -1)


def _of_rows(mean_B: Column, variance_B: Column, is_token_BL: NDArray[np.bool_]) -> Columns:
    """The columns of whole sequences; nan per token where a row has none."""
    count_B = is_token_BL.sum(axis=1).astype(np.float64)
    return {
        "mean": mean_B,
        "variance": variance_B,
        "normalised_mean": mean_B / count_B,
        "normalised_variance": variance_B / count_B**2,
        "num_tokens": count_B,
        "is_token": is_token_BL.astype(np.float64),
    }
