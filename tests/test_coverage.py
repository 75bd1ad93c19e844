"""Coverage over 1,000 random splits of real rows, for every kind of set and of interval.

One small network is trained on some rows of scikit-learn's digits, one on some of its diabetes;
the others are sampled once, and then only dealt out anew: n held out, the rest asked about. Given
the rows, every split is as likely as any other, so the coverage on average over all splits is
k/(n+1) exactly where no scores tie, which lies in [1-α, 1-α + 1/(n+1)]. The mean of 1,000 may
miss that by 4.5 of its own standard errors: by chance in 1 of 100,000 tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dubito import ties
from dubito.calibration.choices import ScalingName, SetsName
from dubito.calibration.promises import draws, intervals, sets
from dubito.calibration.promises.conformal import ConformalScores, order
from dubito.calibration.promises.sets import SetRule
from dubito.calibration.scaling.noise import fit_noise
from dubito.calibration.scaling.scaling import fit_scaling, mean_probabilities
from dubito.engine import Engine, Sampling
from dubito.engine.heads.numbers import mean_and_variance
from dubito.recipes.demo import DIABETES, DIGITS, DatasetRows, Recipe, Splits
from dubito_nn.networks import MLP, Standardise

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]
ALPHAS = (0.05, 0.1, 0.2)
SPLITS = 1000
SAMPLING = Sampling(num_samples=16)


def small(rows: DatasetRows) -> nn.Module:
    return MLP(rows.inputs.shape[1], (32,), 10)


def small_with_noise(rows: DatasetRows) -> nn.Module:
    network = MLP(rows.inputs.shape[1], (32,), 1, heteroscedastic=True)
    return nn.Sequential(Standardise(torch.from_numpy(rows.inputs)), network)


def dealt(recipe: Recipe, num_train: int) -> tuple[Splits, DatasetRows]:
    """The recipe's rows with few of them to train on, and all the others."""
    own = recipe.splits()
    parts = (own.train, own.calibration, own.test)
    inputs = np.concatenate([part.inputs for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    first = DatasetRows(inputs[:num_train], targets[:num_train])
    return replace(own, train=first), DatasetRows(inputs[num_train:], targets[num_train:])


@dataclass(frozen=True)
class Classified:
    """Passes over rows of the digits, the first 200 to fit a scaling on."""

    logits: Floats
    labels: NDArray[np.int64]
    uniform: Floats


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Classified:
    splits, rest = dealt(DIGITS, 200)
    recipe = replace(DIGITS, splits=lambda: splits, build=small, augment=None, epochs=20)
    engine = Engine.load(recipe.export_to(tmp_path_factory.mktemp("digits") / "small.dubito"))
    logits_TBC = engine.sample(rest.inputs, sampling=SAMPLING).double().numpy()
    uniform_B = draws.by_content({"x": rest.inputs}, 0)
    return Classified(logits_TBC, rest.targets.astype(np.int64), uniform_B)


def permutations(num_rows: int, seed: int) -> NDArray[np.int64]:
    """One order of the rows for each split, shape (splits, rows)."""
    in_order = np.tile(np.arange(num_rows), (SPLITS, 1))
    return np.random.default_rng(seed).permuted(in_order, axis=1)


def coverages(of_label_B: Floats, num_rows: int, seed: int) -> tuple[Floats, Floats]:
    """Of each split and α: share of the asked rows that are covered, and the threshold."""
    score_SB = of_label_B[permutations(len(of_label_B), seed)]
    held_out = ConformalScores.of(list(score_SB[:, :num_rows]))  # a column for each split
    threshold_SA = np.stack([held_out.thresholds(1 - alpha) for alpha in ALPHAS], axis=1)
    is_covered_SBA = score_SB[:, num_rows:, None] <= threshold_SA[:, None]
    return is_covered_SBA.mean(axis=1), threshold_SA


def check(covered_SA: Floats, num_rows: int) -> None:
    """Of each split and α: the mean over the splits lies where it is promised."""
    for alpha, covered_S in zip(ALPHAS, covered_SA.T, strict=True):
        error = 4.5 * covered_S.std() / np.sqrt(len(covered_S))
        assert covered_S.mean() >= 1 - alpha - error
        assert covered_S.mean() <= 1 - alpha + 1 / (num_rows + 1) + error


def ruled(
    digits: Classified, scaling: ScalingName, kind: SetsName
) -> tuple[SetRule, Floats, NDArray[np.int64], Floats]:
    """A rule fitted on the first 200 rows; means, labels and numbers of the others."""
    known = digits.logits[:, :200], digits.labels[:200]
    fitted = fit_scaling(scaling, *known)
    mean_BC = mean_probabilities(digits.logits, fitted)
    rule = SetRule(kind)
    if kind == "raps":
        rule = sets.choose_penalty(mean_BC[:200], known[1], digits.uniform[:200], 0.9)
    return rule, mean_BC[200:], digits.labels[200:], digits.uniform[200:]


@pytest.mark.parametrize("num_rows", [20, 100, 200])
@pytest.mark.parametrize(
    ("scaling", "kind"),
    [
        ("temperature", "lac"),
        ("temperature", "aps"),
        ("temperature", "raps"),
        ("none", "aps"),
        ("vector", "raps"),
        ("isotonic", "lac"),
    ],
)
def test_sets_of_digits_cover_as_promised_and_are_no_larger_than_need_be(
    digits: Classified, scaling: ScalingName, kind: SetsName, num_rows: int
) -> None:
    """Size: at most 5 % above that of the threshold which all rows together give."""
    rule, mean_BC, label_B, uniform_B = ruled(digits, scaling, kind)
    score_BC = rule.scores(mean_BC, uniform_B)
    of_label_B = score_BC[np.arange(len(label_B)), label_B]
    covered_SA, threshold_SA = coverages(of_label_B, num_rows, num_rows)
    check(covered_SA, num_rows)
    if num_rows == 200:
        flat = np.sort(score_BC.ravel())
        size_SA = np.searchsorted(flat, threshold_SA, side="right") / len(label_B)
        for alpha, size in zip(ALPHAS, size_SA.mean(axis=0), strict=True):
            best = np.quantile(of_label_B, order(num_rows, 1 - alpha) / (num_rows + 1))
            assert size <= 1.05 * (score_BC <= best).sum(axis=-1).mean()


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
def test_sets_that_are_never_empty_cover_at_least_as_promised_and_cost_the_empty_ones(
    digits: Classified, kind: SetsName
) -> None:
    """1,000 splits of 100 rows: coverage, and mean size above that of sets that may be empty."""
    rule, mean_BC, label_B, uniform_B = ruled(digits, "temperature", kind)
    score_BC, rows = rule.scores(mean_BC, uniform_B), np.arange(len(label_B))
    of_label_B, likely_B = score_BC[rows, label_B], ties.most_probable(mean_BC)
    is_right_B, of_likely_B = likely_B == label_B, score_BC[rows, likely_B]
    order_SB = permutations(len(label_B), 7)
    held_out = ConformalScores.of(list(of_label_B[order_SB[:, :100]]))
    for alpha in (*ALPHAS, 0.5):
        threshold_S1 = held_out.thresholds(1 - alpha)[:, None]
        asked_SB = order_SB[:, 100:]
        own_SB = of_label_B[asked_SB] <= threshold_S1
        covered_S = (own_SB | is_right_B[asked_SB]).mean(axis=1)
        error = 4.5 * covered_S.std() / np.sqrt(SPLITS)
        assert covered_S.mean() >= max(1 - alpha, is_right_B.mean()) - error
        empty_S = (of_likely_B[asked_SB] > threshold_S1).mean(axis=1)
        never = replace(rule, never_empty=True)
        held, some = held_out.columns[0], asked_SB[0]
        given = ConformalScores((held,)), mean_BC[some], uniform_B[some], 1 - alpha
        own_BC, sets_BC = rule.sets(*given), never.sets(*given)
        assert sets_BC.any(axis=-1).all()
        assert (sets_BC.sum() - own_BC.sum()) / len(some) == pytest.approx(empty_S[0], abs=0.01)


@pytest.mark.parametrize("per_class", [False, True])
def test_the_sets_themselves_are_what_their_scores_promise(
    digits: Classified, per_class: bool
) -> None:
    """20 splits through `fit` and `sets`: what the tests around count by scores."""
    rule, mean_BC, label_B, uniform_B = ruled(digits, "temperature", "aps")
    rule = replace(rule, per_class=per_class)
    score_BC = rule.scores(mean_BC, uniform_B)
    of_label_B = score_BC[np.arange(len(label_B)), label_B]
    for order_B in permutations(len(label_B), 1)[:20]:
        known, asked = order_B[:300], order_B[300:]
        held_out = rule.fit(mean_BC[known], label_B[known], uniform_B[known])
        sets_BC = rule.sets(held_out, mean_BC[asked], uniform_B[asked], 0.9)
        of_class = [known[label_B[known] == one] for one in range(10)] if per_class else [known]
        threshold_C = ConformalScores.of([of_label_B[rows] for rows in of_class]).thresholds(0.9)
        np.testing.assert_array_equal(sets_BC, score_BC[asked] <= ties.raised(threshold_C))


@pytest.mark.parametrize("kind", ["lac", "aps", "raps"])
@pytest.mark.parametrize("num_rows", [20, 100])
def test_every_class_of_digits_is_covered_on_its_own(
    digits: Classified, kind: SetsName, num_rows: int
) -> None:
    """So many rows of each class; coverage of the class's own rows."""
    rule, mean_BC, label_B, uniform_B = ruled(digits, "temperature", kind)
    of_label_B = rule.scores(mean_BC, uniform_B)[np.arange(len(label_B)), label_B]
    for one in range(10):
        covered_SA, _ = coverages(of_label_B[label_B == one], num_rows, num_rows + one)
        check(covered_SA, num_rows)


@dataclass(frozen=True)
class Regressed:
    """Passes over rows of diabetes with a noise that was fitted on others."""

    means: Floats
    variances: Floats
    targets: Floats


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Regressed:
    splits, rest = dealt(DIABETES, 120)
    recipe = replace(DIABETES, splits=lambda: splits, build=small_with_noise, epochs=20)
    engine = Engine.load(recipe.export_to(tmp_path_factory.mktemp("diabetes") / "small.dubito"))
    raw = engine.sample(rest.inputs, sampling=SAMPLING)
    mean_TBD, own_TBD = (part.numpy() for part in mean_and_variance(raw, engine.manifest))
    target_BD = rest.targets.astype(np.float64)
    noise = fit_noise(mean_TBD[:, :40], np.log(own_TBD[:, :40]), target_BD[:40])
    variance_TBD = noise.component_variance(np.log(own_TBD))
    return Regressed(mean_TBD[:, 40:], variance_TBD[:, 40:], target_BD[40:])


@pytest.mark.parametrize("num_rows", [20, 100, 200])
@pytest.mark.parametrize("kind", ["normalised", "cqr"])
def test_intervals_of_diabetes_cover_as_promised_and_are_no_wider_than_need_be(
    diabetes: Regressed, kind: str, num_rows: int
) -> None:
    """Width: at most 5 % above that of the threshold which all rows together give."""
    mean_BD = diabetes.means.mean(axis=0)
    variance_BD = diabetes.means.var(axis=0) + diabetes.variances.mean(axis=0)
    ends = intervals.quantile_ends(diabetes.means, diabetes.variances, 0.9)
    target_BD = diabetes.targets
    order_BS = permutations(len(target_BD), num_rows).T
    known_BS = order_BS[:num_rows]

    def dealt_out(value_BD: Floats) -> Floats:
        """Of the held-out rows of each split: a column that is fitted on its own."""
        return value_BD[known_BS, 0]

    if kind == "cqr":
        known_ends = dealt_out(ends[0]), dealt_out(ends[1])
        held_out = intervals.fit_quantiles(known_ends, dealt_out(target_BD))
    else:
        moments = dealt_out(mean_BD), dealt_out(variance_BD)
        held_out = intervals.fit_normalised(*moments, dealt_out(target_BD))
    covered, widths = [], []
    for alpha in ALPHAS:
        if kind == "cqr":
            low_BS, high_BS = intervals.widened(held_out, ends, 1 - alpha)
        else:
            low_BS, high_BS = intervals.normalised(held_out, mean_BD, variance_BD, 1 - alpha)
        is_in_BS = (low_BS <= target_BD) & (target_BD <= high_BS)
        covered.append(np.take_along_axis(is_in_BS, order_BS[num_rows:], axis=0).mean(axis=0))
        widths.append((high_BS - low_BS).mean())
    check(np.stack(covered, axis=1), num_rows)
    if num_rows == 200:
        best = [width_at_best(diabetes, kind, alpha, num_rows) for alpha in ALPHAS]
        assert (np.array(widths) <= 1.05 * np.array(best)).all()


def width_at_best(diabetes: Regressed, kind: str, alpha: float, num_rows: int) -> float:
    """Mean width at the quantile of all rows' scores that a threshold of n rows aims at."""
    level = order(num_rows, 1 - alpha) / (num_rows + 1)
    ends = intervals.quantile_ends(diabetes.means, diabetes.variances, 0.9)
    target_BD = diabetes.targets
    if kind == "cqr":
        score_BD = np.maximum(ends[0] - target_BD, target_BD - ends[1])
        return float((ends[1] - ends[0]).mean() + 2 * np.quantile(score_BD, level))
    mean_BD = diabetes.means.mean(axis=0)
    deviation_BD = np.sqrt(diabetes.means.var(axis=0) + diabetes.variances.mean(axis=0))
    score_BD = np.abs(target_BD - mean_BD) / deviation_BD
    return float(2 * np.quantile(score_BD, level) * deviation_BD.mean())
