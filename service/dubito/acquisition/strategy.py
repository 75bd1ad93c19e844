"""What a strategy says of itself: what it is for, what it reads, and how it chooses.

Two kinds. A *pointwise* strategy gives every row a score of its own, so that a pool of any length
is looked at chunk by chunk; a *joint* one compares the candidates with each other and holds the
samples, features or inputs of all of them.

Dimensions: T samples, B rows of a chunk, N candidates, J scores of one row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dubito.acquisition.batches import geometry
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.draws import Words, uniforms
from dubito.acquisition.order import Acquisition
from dubito.acquisition.top import Scores
from dubito.engine import Prediction
from dubito.engine.calling.arguments import Check
from dubito.errors import InputError

Held = Literal["samples", "features", "centres", "points"]

ONE_CLASS = frozenset({"classification"})
SEVERAL_CLASSES = frozenset({"multilabel", "dense"})
CLASSES = ONE_CLASS | SEVERAL_CLASSES
NUMBERS = frozenset({"regression", "quantiles"})
NUMBERS_AT_POSITIONS = frozenset({"dense_regression"})
SEQUENCES = frozenset({"sequence"})


@dataclass(frozen=True, eq=False)
class Context:
    """What strategies know beside the rows.

    Args:
        acquisition: the options.
        target_scale: standard deviations that the target was standardised by; 1 where it was not.
        num_samples: T of kept samples, all members of an ensemble together.
        targets: prediction of the rows that `epig` cares about, with its samples.
        device: of the network.
    """

    acquisition: Acquisition
    target_scale: NDArray[np.float64]
    num_samples: int
    targets: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows that a joint strategy compares.

    Args:
        prediction: their columns, with the samples where the strategy needs them.
        scores: by which they were ranked.
        features: of the network; empty where the strategy needs none.
        centres: features of the excluded rows, likewise.
        points: the inputs as flat numbers, likewise.
    """

    prediction: Any
    scores: Scores
    features: NDArray[np.float64]
    centres: NDArray[np.float64]
    points: NDArray[np.float64]


@dataclass(frozen=True)
class Strategy(ABC):
    """How rows are chosen.

    Args:
        name: as in a request; strategies for different heads may share it.
        heads: kinds of output that it is for.
        options: those of `Acquisition` that it reads and others do not.
        needs_spread: whether one pass without sampling says nothing.
        needs_targets: whether rows to care about have to be given.
    """

    name: str
    heads: frozenset[str]
    options: frozenset[str] = field(default=frozenset(), kw_only=True)
    needs_spread: bool = field(default=True, kw_only=True)
    needs_targets: bool = field(default=False, kw_only=True)

    @property
    @abstractmethod
    def ranking(self) -> PointwiseStrategy:
        """The strategy that ranks rows in turn: itself, or the one that chooses the candidates."""

    @property
    @abstractmethod
    def keeps_samples(self) -> bool:
        """Whether rows are compared pass by pass."""

    @abstractmethod
    def with_options(self, acquisition: Acquisition) -> Strategy:
        """Return the strategy for a batch of k rows, as diverse as is asked.

        Raises:
            InputError: the strategy's batches are spread already.
        """


@dataclass(frozen=True)
class PointwiseStrategy(Strategy):
    """A score for every row by itself.

    Args:
        score: prediction (of the kind that its heads have) and words of B rows to their scores,
            (B,) or (J, B); None: chance.
        needs_samples: whether the prediction has to keep every pass.
        is_spread: whether a batch is spread over the pool already.
        scores_are_values: whether scores are predicted values, turned where small ones are good.
    """

    score: Callable[[Any, Words, Context], NDArray[np.float64]] | None
    needs_samples: bool = False
    is_spread: bool = False
    scores_are_values: bool = False

    @property
    def ranking(self) -> PointwiseStrategy:
        """The strategy itself."""
        return self

    @property
    def keeps_samples(self) -> bool:
        """Whether the prediction has to keep every pass."""
        return self.needs_samples

    @property
    def needs_prediction(self) -> bool:
        """Whether the scores ask anything of the network."""
        return self.score is not None

    def scores(
        self, prediction: Prediction | None, words_B: Words, context: Context
    ) -> NDArray[np.float64]:
        """Scores of B rows, (J, B): one keeper of the best for each of the J.

        Args:
            prediction: of the rows; None will do where no score needs one.
            words_B: of the rows.
            context: what is known beside them.
        """
        if self.score is None:
            return uniforms(words_B)[None]
        return np.atleast_2d(self.score(prediction, words_B, context))

    def with_options(self, acquisition: Acquisition) -> Strategy:
        """Return the strategy itself, or one with a batch that is spread by weighted k-means."""
        if acquisition.diversity is None:
            return self
        if self.is_spread:
            raise already_spread(self.name)

        def choose(candidates: Candidates, picks: Picks, context: Context, check: object) -> None:
            seed = context.acquisition.seed
            geometry.k_means(candidates.features, candidates.scores, picks, seed=seed)

        return JointStrategy(
            self.name,
            self.heads,
            choose,
            frozenset({"features"}),
            self,
            options=self.options,
            needs_spread=self.needs_spread,
            needs_targets=self.needs_targets,
        )


@dataclass(frozen=True)
class JointStrategy(Strategy):
    """A batch out of candidates that are compared with each other.

    Args:
        choose: fills the batch.
        holds: what of the candidates is held.
        ranked_by: chooses the candidates, where the pool has more rows than may be compared.
        is_ranking_for_one: whether a batch of one row is the best of the ranking.
    """

    choose: Callable[[Candidates, Picks, Context, Check | None], None]
    holds: frozenset[Held]
    ranked_by: PointwiseStrategy
    is_ranking_for_one: bool = False

    @property
    def ranking(self) -> PointwiseStrategy:
        """The strategy that chooses the candidates."""
        return self.ranked_by

    @property
    def keeps_samples(self) -> bool:
        """Whether candidates are compared, or ranked, pass by pass."""
        return "samples" in self.holds or self.ranked_by.keeps_samples

    def with_options(self, acquisition: Acquisition) -> Strategy:
        """Return the strategy itself, or its ranking where there is but one row to choose."""
        if self.is_ranking_for_one and acquisition.k == 1:
            return self.ranked_by.with_options(acquisition)
        if acquisition.diversity is not None:
            raise already_spread(self.name)
        return self


def kept_samples(prediction: Any) -> NDArray[np.float64]:
    """What every pass said, (T, ...), of a prediction that was asked to keep it."""
    samples: NDArray[np.float64] | None = prediction.samples
    assert samples is not None
    return samples


def already_spread(name: str) -> InputError:
    """The error for `diversity` where a batch is spread without it."""
    return InputError(
        f"`diversity` expects a strategy that scores rows alone, got `{name}`, whose batches"
        " are spread already: leave it out"
    )
