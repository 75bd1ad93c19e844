"""What the strategies of optimisation have in common: one value, to be made large or small."""

from __future__ import annotations

from functools import partial

import numpy as np

from dubito.acquisition.batches import penalisation
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.strategy import (
    Candidates,
    Context,
    JointStrategy,
    PointwiseStrategy,
)
from dubito.acquisition.top import Scores
from dubito.engine import Regression
from dubito.engine.calling.arguments import Check
from dubito.errors import InputError

OPTIONS = frozenset({"maximize", "incumbent"})
"""The incumbent is a fact of the search, which a loop may state whatever it tries."""


def one_output(prediction: Regression, context: Context) -> tuple[Scores, Scores]:
    """Mean, turned so that large is good, and epistemic deviation of the only output.

    Raises:
        InputError: there are several outputs.
    """
    if prediction.mean.shape[1] != 1:
        raise InputError(
            f"`{context.acquisition.strategy}` expects a network with one output, got"
            f" {prediction.mean.shape[1]}: export one that predicts the value alone"
        )
    sign = 1.0 if context.acquisition.maximize else -1.0
    return sign * prediction.mean[:, 0], np.sqrt(prediction.epistemic_variance[:, 0])


def incumbent(context: Context) -> float:
    """The best value so far, turned so that large is good.

    Raises:
        InputError: it was not sent.
    """
    acquisition = context.acquisition
    if acquisition.incumbent is None:
        raise InputError(
            f"`{acquisition.strategy}` expects `incumbent`, the best value so far, got none:"
            " send it in target units"
        )
    return acquisition.incumbent if acquisition.maximize else -acquisition.incumbent


def penalised(strategy: PointwiseStrategy, *, is_log: bool) -> JointStrategy:
    """Return the strategy in batches, where a chosen row takes its neighbours out of the running.

    Args:
        strategy: of rows alone.
        is_log: whether its scores are logarithms.
    """
    return JointStrategy(
        strategy.name,
        strategy.heads,
        partial(_choose, is_log),
        frozenset({"points"}),
        strategy,
        is_ranking_for_one=True,
        options=strategy.options,
    )


def _choose(
    is_log: bool, candidates: Candidates, picks: Picks, context: Context, check: Check | None
) -> None:
    mean_N, std_N = one_output(candidates.prediction, context)
    penalisation.choose(
        candidates.scores,
        mean_N,
        std_N,
        candidates.points,
        picks,
        incumbent=None if context.acquisition.incumbent is None else incumbent(context),
        is_log=is_log,
        check=check,
    )
