"""The strategies by name: which task they are for, what they read, and how they choose.

Two kinds. A *pointwise* strategy gives every row a score of its own, so that a pool of any length
is looked at chunk by chunk; a *joint* one compares the candidates with each other and holds the
samples, features or inputs of all of them.

Dimensions: T samples, B rows of a chunk, N candidates, D outputs, J scores of one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dubito.acquisition.batches import batchbald, gaussian, geometry, penalisation
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.draws import Words, uniforms, words
from dubito.acquisition.options import check_options
from dubito.acquisition.order import Acquisition
from dubito.acquisition.scores import classification, epig, optimisation, regression
from dubito.acquisition.top import Scores
from dubito.engine import Classification, Prediction, Regression
from dubito.errors import InputError

Check = Callable[[], None]
Need = Literal["samples", "features", "points"]


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
    targets: Prediction | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows that a joint strategy compares.

    Args:
        prediction: their columns, with the samples where the strategy needs them.
        scores: by which they were ranked.
        features: of the network.
        centres: features of the excluded rows.
        points: the inputs as flat numbers.
    """

    prediction: Prediction
    scores: Scores
    features: NDArray[np.float64] | None = None
    centres: NDArray[np.float64] | None = None
    points: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class PointwiseStrategy:
    """A score for every row by itself.

    Args:
        name: as in a request.
        tasks: that it is for.
        score: prediction and words of B rows to their scores, (B,) or (J, B); None: chance.
        needs_samples: whether the prediction has to keep every pass.
        needs_targets: whether rows to care about have to be given.
        needs_spread: whether one pass without sampling says nothing.
    """

    name: str
    tasks: tuple[str, ...]
    score: Callable[[Prediction, Words, Context], NDArray[np.float64]] | None
    needs_samples: bool = False
    needs_targets: bool = False
    needs_spread: bool = True

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
        assert prediction is not None
        return np.atleast_2d(self.score(prediction, words_B, context))


@dataclass(frozen=True)
class JointStrategy:
    """A batch out of candidates that are compared with each other.

    Args:
        name: as in a request.
        tasks: that it is for.
        choose: fills the batch.
        needs: what of the candidates is held.
        ranked_by: chooses the candidates, where the pool has more rows than may be compared.
        needs_spread: whether one pass without sampling says nothing.
    """

    name: str
    tasks: tuple[str, ...]
    choose: Callable[[Candidates, Picks, Context, Check | None], None]
    needs: frozenset[Need]
    ranked_by: PointwiseStrategy
    needs_spread: bool = True


Strategy = PointwiseStrategy | JointStrategy
_CLASSES, _NUMBERS = ("classification",), ("regression",)
_BOTH = (*_CLASSES, *_NUMBERS)


def find(acquisition: Acquisition, task: str) -> Strategy:
    """The strategy that is asked for.

    Raises:
        InputError: there is none of that name, it is not for that task, or an option is not for it.
    """
    name = acquisition.strategy
    mine = _ALL[task]
    if name not in mine:
        others = [other for other, named in _ALL.items() if name in named]
        known = f"one of a {task}: {', '.join(mine)}"
        got = f"`{name[:40]}`" + (f", which is for a {others[0]}" if others else "")
        raise InputError(f"`strategy` expects {known}; got {got}: choose one of them")
    found = mine[name]
    check_options(acquisition, task)
    if acquisition.per_class is not None and task != "classification":
        raise InputError(
            f"`per_class` expects a classification with one class per row, got a {task}: leave it"
            " out"
        )
    if isinstance(found, JointStrategy) and name in _ALONE and acquisition.k == 1:
        found = found.ranked_by  # a batch of one has no neighbours to penalise
    if acquisition.diversity is None:
        return found
    if not isinstance(found, PointwiseStrategy) or name == "thompson":
        raise InputError(
            f"`diversity` expects a strategy that scores rows alone, got `{name}`, whose batches"
            " are spread already: leave it out"
        )
    return JointStrategy(name, found.tasks, _diverse, frozenset({"features"}), found)


def names(task: str) -> tuple[str, ...]:
    """Names of the strategies for a task."""
    return tuple(_ALL[task])


def _class(prediction: Prediction) -> Classification:
    assert isinstance(prediction, Classification)
    return prediction


def _number(prediction: Prediction) -> Regression:
    assert isinstance(prediction, Regression)
    return prediction


def _samples(prediction: Prediction) -> torch.Tensor:
    assert prediction.samples is not None
    return torch.from_numpy(prediction.samples)


def _noise(prediction: Prediction, context: Context) -> NDArray[np.float64]:
    aleatoric_BD = _number(prediction).aleatoric_variance
    return regression.noise(aleatoric_BD, context.acquisition.noise_variance, context.target_scale)


def _one_output(prediction: Prediction, context: Context) -> tuple[Scores, Scores]:
    """Mean, turned so that large is good, and deviation of the only output."""
    found = _number(prediction)
    if found.mean.shape[1] != 1:
        raise InputError(
            f"`{context.acquisition.strategy}` expects a network with one output, got"
            f" {found.mean.shape[1]}: export one that predicts the value alone"
        )
    sign = 1.0 if context.acquisition.maximize else -1.0
    return sign * found.mean[:, 0], np.sqrt(found.epistemic_variance[:, 0])


def _incumbent(context: Context) -> float:
    acquisition = context.acquisition
    if acquisition.incumbent is None:
        raise InputError(
            f"`{acquisition.strategy}` expects `incumbent`, the best value so far, got none:"
            " send it in target units"
        )
    return acquisition.incumbent if acquisition.maximize else -acquisition.incumbent


def _power_bald(prediction: Prediction, words_B: Words, context: Context) -> Scores:
    beta = context.acquisition.beta
    information_B = _class(prediction).mutual_information
    return classification.power_bald(information_B, words_B, 1.0 if beta is None else beta)


def _bald(prediction: Prediction, words_B: Words, context: Context) -> Scores:
    if isinstance(prediction, Classification):
        return prediction.mutual_information
    return regression.bald(prediction.epistemic_variance, _noise(prediction, context))


def _epig(prediction: Prediction, words_B: Words, context: Context) -> Scores:
    targets = context.targets
    assert targets is not None
    if isinstance(prediction, Classification):
        found = epig.classification(_samples(prediction), _samples(targets))
    else:
        noises = [torch.from_numpy(_noise(one, context).copy()) for one in (prediction, targets)]
        found = epig.regression(_samples(prediction), noises[0], _samples(targets), noises[1])
    return found.numpy()


def _improvement(prediction: Prediction, words_B: Words, context: Context) -> Scores:
    mean_B, std_B = _one_output(prediction, context)
    xi = context.acquisition.xi
    return optimisation.log_expected_improvement(mean_B, std_B, _incumbent(context), xi)


def _probability(prediction: Prediction, words_B: Words, context: Context) -> Scores:
    mean_B, std_B = _one_output(prediction, context)
    xi = context.acquisition.xi
    return optimisation.log_probability_of_improvement(mean_B, std_B, _incumbent(context), xi)


def _bound(prediction: Prediction, words_B: Words, context: Context) -> Scores:
    beta = context.acquisition.beta
    mean_B, std_B = _one_output(prediction, context)
    return optimisation.upper_confidence_bound(mean_B, std_B, 4.0 if beta is None else beta)


def _thompson(prediction: Prediction, words_B: Words, context: Context) -> NDArray[np.float64]:
    """Values at each ω that some candidate maximises, (J, B)."""
    _one_output(prediction, context)
    acquisition = context.acquisition
    sign = 1.0 if acquisition.maximize else -1.0
    words_T = words(acquisition.seed, np.arange(context.num_samples))
    used_J = optimisation.thompson_order(words_T, min(acquisition.k, context.num_samples))
    assert prediction.samples is not None
    return sign * prediction.samples[used_J, :, 0]


def _batchbald(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    probs_TNC = batchbald.placed(_samples(candidates.prediction), context.device)
    batchbald.choose(probs_TNC, picks, seed=context.acquisition.seed, check=check)


def _joint_gaussian(
    candidates: Candidates, picks: Picks, context: Context, check: Check | None
) -> None:
    prediction = candidates.prediction
    noise_ND = torch.from_numpy(_noise(prediction, context).copy())
    gaussian.choose(_samples(prediction), noise_ND, picks, check=check)


def _core_set(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    assert candidates.features is not None
    assert candidates.centres is not None
    geometry.core_set(candidates.features, candidates.centres, picks, check)


def _badge(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    assert candidates.features is not None
    mean_NC, seed = candidates.prediction.mean, context.acquisition.seed
    geometry.badge(mean_NC, candidates.features, picks, seed=seed, check=check)


def _diverse(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    assert candidates.features is not None
    seed = context.acquisition.seed
    geometry.k_means(candidates.features, candidates.scores, picks, seed=seed)


def _penalised(candidates: Candidates, picks: Picks, context: Context, check: Check | None) -> None:
    assert candidates.points is not None
    acquisition = context.acquisition
    mean_N, std_N = _one_output(candidates.prediction, context)
    penalisation.choose(
        candidates.scores,
        mean_N,
        std_N,
        candidates.points,
        picks,
        incumbent=None if acquisition.incumbent is None else _incumbent(context),
        is_log=acquisition.strategy != "upper_confidence_bound",
        check=check,
    )


_RANDOM = PointwiseStrategy("random", _BOTH, None, needs_spread=False)
_BALD = PointwiseStrategy("bald", _BOTH, _bald)
_EPIG = PointwiseStrategy("epig", _BOTH, _epig, needs_samples=True, needs_targets=True)
_ALONE_OF_CLASSES = (
    PointwiseStrategy(
        "entropy",
        _CLASSES,
        lambda prediction, words_B, context: _class(prediction).predictive_entropy,
        needs_spread=False,
    ),
    PointwiseStrategy(
        "margin",
        _CLASSES,
        lambda prediction, words_B, context: classification.margin(prediction.mean),
        needs_spread=False,
    ),
    PointwiseStrategy(
        "least_confidence",
        _CLASSES,
        lambda prediction, words_B, context: classification.least_confidence(prediction.mean),
        needs_spread=False,
    ),
    PointwiseStrategy(
        "variation_ratio",
        _CLASSES,
        lambda prediction, words_B, context: _class(prediction).variation_ratio,
    ),
    PointwiseStrategy(
        "mean_std",
        _CLASSES,
        lambda prediction, words_B, context: classification.mean_std(prediction.variance),
    ),
    PointwiseStrategy("power_bald", _CLASSES, _power_bald),
)
_VARIANCE = PointwiseStrategy(
    "variance",
    _NUMBERS,
    lambda prediction, words_B, context: regression.variance(prediction.variance),
)
_OPTIMISING = (
    PointwiseStrategy("expected_improvement", _NUMBERS, _improvement),
    PointwiseStrategy("probability_of_improvement", _NUMBERS, _probability),
    PointwiseStrategy("upper_confidence_bound", _NUMBERS, _bound),
)
_THOMPSON = PointwiseStrategy("thompson", _NUMBERS, _thompson, needs_samples=True)
_ALONE = tuple(strategy.name for strategy in _OPTIMISING)
_SAMPLES: frozenset[Need] = frozenset({"samples"})
_FEATURES: frozenset[Need] = frozenset({"features"})
_POINTS: frozenset[Need] = frozenset({"points"})
_JOINT = (
    JointStrategy("batchbald", _CLASSES, _batchbald, _SAMPLES, _BALD),
    JointStrategy("batchbald", _NUMBERS, _joint_gaussian, _SAMPLES, _BALD),
    JointStrategy("coreset", _BOTH, _core_set, _FEATURES, _BALD, needs_spread=False),
    JointStrategy("badge", _CLASSES, _badge, _FEATURES, _BALD, needs_spread=False),
    *(JointStrategy(one.name, _NUMBERS, _penalised, _POINTS, one) for one in _OPTIMISING),
)
_EVERY: tuple[Strategy, ...] = (
    *_ALONE_OF_CLASSES,
    _VARIANCE,
    _BALD,
    *_JOINT,
    _EPIG,
    _THOMPSON,
    _RANDOM,
)
_BY_ROW = ("entropy", "variation_ratio", "bald", "power_bald", "random", "coreset")
_ALL: dict[str, dict[str, Strategy]] = {
    task: {strategy.name: strategy for strategy in _EVERY if task in strategy.tasks}
    for task in _BOTH
}
# several distributions per row: what reads one figure of a row, or its features
_ALL |= {
    head: {name: _ALL["classification"][name] for name in _BY_ROW}
    for head in ("multilabel", "dense")
}
