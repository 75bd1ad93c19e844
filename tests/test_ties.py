"""Rows that repeat: the tolerance of a tie, promises by enumeration, equal rows in any company."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from math import factorial, inf, prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito import ties
from dubito.calibration.choices import Choices
from dubito.calibration.fit import fit_classification, fit_regression
from dubito.calibration.fit_positions import fit_positions
from dubito.calibration.flagging import Flagging, fit_flag
from dubito.calibration.likelihood.scaling import fit_scaling, mean_probabilities
from dubito.calibration.promises import draws, intervals
from dubito.calibration.promises.policy import Policy, Target
from dubito.calibration.promises.positions import Positions
from dubito.calibration.promises.sets import SetRule
from dubito.calibration.record import Calibration
from dubito.calibration.report import ood_figures
from dubito.engine import Classification, Engine, Regression, Sampling
from dubito.engine.sampling import Draw
from dubito.engine.summing.heads import class_logits, logits, mean_and_variance
from dubito.errors import InputError
from dubito.monitoring.drift import DriftTest
from dubito.ood import scorer
from dubito.ood.combined import Tail
from dubito.ood.detector import Detector
from dubito.ood.distances import FeatureBank
from dubito.ood.scorer import Fitted
from dubito.ood.source import LogitSource, NumberSource
from dubito.serving.watching.observing import observe
from dubito_nn import export

Floats = NDArray[np.float64]
ROUNDING = 1e-8  # relative: more than the kernels' own, which the engine's test below has
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def off(value: Floats, seed: int) -> Floats:
    """The same figures as other neighbours would have left them."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], value.shape)
    return value * (1 + ROUNDING * sign)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_what_a_figure_may_have_been_rises_with_it_and_groups_are_no_chains(
    found: list[float],
) -> None:
    ascending = np.sort(np.array(found))
    low, high = ties.lowered(ascending), ties.raised(ascending)
    assert (low < ascending).all()
    assert (ascending < high).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    merged = ties.merged(ascending)
    assert (merged <= ascending).all()
    assert (ties.lowered(ascending) <= ties.raised(merged)).all()
    assert (np.diff(ties.plateaus(np.unique(merged))) > 0).all()
    assert ties.merged(off(merged, 0))[::-1].tolist() == ties.merged(off(merged, 0)[::-1]).tolist()


def test_figures_that_rounding_parts_are_one_and_others_are_not() -> None:
    assert 100 < len(ties.starts(np.arange(1.0, 1.01, 1e-6))) < 200
    assert len(ties.starts(np.sort(off(np.full(1000, 3.7), 1)))) == 1
    assert len(ties.starts(np.array([1e-9, 1.1e-9, 1.2e-9]))) == 3  # of a confident network
    assert [ties.lowered(np.float64(inf)), ties.raised(np.float64(-inf))] == [inf, -inf]
    mean_BC = np.array([[0.2, 0.4, 0.4 - 1e-9], [0.2, 0.4 - 1e-9, 0.4], [np.nan] * 3])
    assert ties.most_probable(mean_BC).tolist() == [1, 1, 0]
    assert ties.falling(mean_BC)[:2].tolist() == [[1, 2, 0], [1, 2, 0]]


def held_out_sets(num_kinds: int, count: int) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Every set of so many rows of equally frequent kinds, and how often chance draws it."""
    for places in itertools.combinations(range(count + num_kinds - 1), num_kinds - 1):
        edges = np.array([-1, *places, count + num_kinds - 1])
        count_K = np.diff(edges) - 1
        ways = factorial(count) / prod(map(factorial, count_K.tolist()))
        yield np.repeat(np.arange(num_kinds), count_K), ways / num_kinds**count


MEAN_KC = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.1, 0.4, 0.5]])
LABEL_K = np.array([0, 1, 2, 2])
UNIFORM_K = np.array([0.3, 0.3, 0.6, 0.6])


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.8])
@pytest.mark.parametrize(
    "rule", [SetRule(), SetRule("aps"), SetRule("raps", penalty=0.1, free_ranks=1)]
)
def test_sets_of_rows_that_repeat_cover_as_promised(rule: SetRule, coverage: float) -> None:
    """Exactly, over all held-out sets; every served score lies above the held-out ones of its kind.

    Probabilities that fall by 1e-8 raise the scores of lac, those that rise the others.
    """
    served_KC = MEAN_KC * (1 - ROUNDING if rule.kind == "lac" else 1 + ROUNDING)
    covered = 0.0
    for kind_b, weight in held_out_sets(4, 6):
        held_out = rule.fit(MEAN_KC[kind_b], LABEL_K[kind_b], UNIFORM_K[kind_b])
        sets_KC = rule.sets(held_out, served_KC, UNIFORM_K, coverage)
        covered += weight * sets_KC[np.arange(4), LABEL_K].mean()
    assert covered >= coverage


def test_rows_of_positions_that_repeat_are_covered_as_promised() -> None:
    positions, label_KP = Positions("dense", 0.5), np.array([[0, 1], [1, 0], [2, 2], [0, 0]])
    mean_KPC = np.stack([MEAN_KC, MEAN_KC[::-1]], axis=1)
    covered = 0.0
    for kind_b, weight in held_out_sets(4, 6):
        scores_b = positions.row_scores(mean_KPC[kind_b], label_KP[kind_b])
        held_out = intervals.ConformalScores.of([scores_b])
        sets_KPC = positions.sets(held_out, mean_KPC * (1 - ROUNDING), 0.7)
        covered += weight * positions.is_covered(sets_KPC, label_KP).mean()
    assert covered >= 0.7


@pytest.mark.parametrize("kind", ["normalised", "cqr"])
def test_intervals_of_rows_that_repeat_cover_as_promised(kind: str) -> None:
    """The third kind has its target at 0, where an end that must hold it has no size."""
    mean_K1, variance_K1 = np.array([[5.0], [-3.0], [2.0], [2.0]]), np.array([[1.0], [4], [1], [1]])
    target_K1, covered = np.array([[5.0], [-2.0], [0.0], [3.0]]), 0.0
    served_K1 = mean_K1 * (1 + ROUNDING * np.sign(mean_K1 - target_K1) * np.sign(mean_K1))
    for kind_b, weight in held_out_sets(4, 6):
        if kind == "normalised":
            scores = intervals.fit_normalised(
                *(mean_K1[kind_b], variance_K1[kind_b], target_K1[kind_b])
            )
            ends = intervals.normalised(scores, served_K1, variance_K1, 0.7)
        else:
            fitted = mean_K1[kind_b] - 0.5, mean_K1[kind_b] + 0.5
            scores = intervals.fit_quantiles(fitted, target_K1[kind_b])
            ends = intervals.widened(scores, (served_K1 - 0.5, served_K1 + 0.5), 0.7)
        covered += weight * ((ends[0] <= target_K1) & (target_K1 <= ends[1])).mean()
    assert covered >= 0.7


SCORE_K = np.array([1e-9, 0.02, 0.3, 4.0])


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
def test_rows_that_repeat_are_flagged_at_most_and_accepted_at_least_as_often_as_promised(
    share: float,
) -> None:
    flagged, accepted, served_K = 0.0, 0.0, SCORE_K * (1 + ROUNDING)
    never_K, target = np.zeros(4, bool), Target(acceptance=share)
    for kind_b, weight in held_out_sets(4, 9):
        detector = Detector.fit("predictive_entropy", SCORE_K[kind_b], share)
        flag_K = detector.flags(served_K)
        assert flag_K.tolist() == detector.flags(SCORE_K).tolist()
        flagged += weight * flag_K.mean()
        policy = Policy.fit(target, SCORE_K[kind_b], never_K[kind_b], None)
        accepted_K = np.array(policy.decide(never_K, served_K, None)) == "accept"
        assert policy.acceptance == accepted_K[kind_b].mean()
        accepted += weight * accepted_K.mean()
    assert flagged <= share
    assert accepted >= share


def test_the_risk_of_accepted_rows_that_repeat_is_exceeded_no_oftener_than_stated() -> None:
    """Over all sets of 24 rows; of the greater uncertainty, a third of them, all are wrong."""
    uncertainty_K, is_wrong_K = np.array([0.1, 0.1, 0.4]), np.array([False, False, True])
    target, exceeded, promised = Target(risk=0.3, risk_confidence=0.6), 0.0, 0.0
    for kind_b, weight in held_out_sets(3, 24):
        try:
            policy = Policy.fit(
                target, uncertainty_K[kind_b], np.zeros(24, bool), is_wrong_K[kind_b]
            )
        except InputError:
            continue
        served_K = uncertainty_K * (1 - ROUNDING)
        accepted_K = np.array(policy.decide(np.zeros(3, bool), served_K, None)) == "accept"
        assert policy.acceptance == accepted_K[kind_b].mean()
        promised += weight
        if accepted_K.any():
            exceeded += weight * (is_wrong_K[accepted_K].mean() > 0.3)
    assert promised > 0.9
    assert exceeded <= 0.4


def test_a_stream_of_rows_that_repeat_raises_no_drift_alarm() -> None:
    """Every score of the stream lies above the held-out ones of its kind; ever rings in 1 %."""
    kind_N = np.random.default_rng(0).integers(0, 4, 2000)
    test = DriftTest((SCORE_K[np.arange(200) % 4]).tolist())
    test.feed((SCORE_K[kind_N] * (1 + ROUNDING)).tolist())
    assert test.state.alarm_after is None


def test_the_areas_of_a_report_count_rows_of_one_kind_as_ties() -> None:
    usual_B, strange_N = np.repeat(SCORE_K, 5), np.repeat(SCORE_K * (1 + ROUNDING), 5)
    report = ood_figures(None, usual_B, strange_N)
    assert report["ood_auroc"] == pytest.approx(0.5)
    assert report["ood_fpr95"] == 1.0


def test_a_combined_score_is_as_steady_as_its_parts() -> None:
    """Also beyond the top tenth, which is one kind, and between kinds that lie close together."""
    score_B = np.repeat(np.array([1.0, 1.0001, 2.0, 5.0]), 50)
    tail = Tail.fit("energy", off(score_B, 0))
    found_SK = np.stack([tail.surprise(off(score_B[::50], seed)) for seed in range(20)])
    assert (np.ptp(found_SK, axis=0) < 1e-12).all()
    assert (np.diff(found_SK[0]) > 0.2).all()


@pytest.mark.parametrize("name", scorer.DISTANCES)
def test_distances_from_classes_of_one_kind_are_not_made_of_rounding(name: str) -> None:
    """Every class is one row many times, so that features within it differ by rounding alone."""
    feature_KF = np.maximum(np.random.default_rng(2).normal(size=(8, 40)), 0.0)
    kind_B = np.arange(400) % 8
    fitted = Fitted(FeatureBank.fit(off(feature_KF[kind_B], 0), kind_B))
    found_SK = [
        fitted.score(name, NumberSource(np.zeros(0), np.ones(0), off(feature_KF, seed)))
        for seed in range(20)
    ]
    low_K, high_K = np.min(found_SK, axis=0), np.max(found_SK, axis=0)
    least = ties.least_of(name)
    assert (ties.lowered(high_K, least) <= ties.raised(low_K, least)).all()


def test_kinds_that_tie_choose_no_score_and_are_told() -> None:
    usual, strange = (
        LogitSource(np.repeat(MEAN_KC, 10, axis=0)[None] * (1 + shift), 1.0)
        for shift in (0.0, ROUNDING)
    )
    found = scorer.compare(["energy", "mutual_information"], Fitted(), usual, strange)
    assert found == {"energy": 0.5, "mutual_information": 0.5}
    same = LogitSource(off(np.full((2, 300, 3), [1.0, 2.0, 3.0]), 0), 1.0)
    parts = {"ood": np.arange(300)}
    flag = fit_flag(Flagging(), "classification", same, None, None, parts, alpha=0.1, seed=0)
    assert "all held-out rows have the same out-of-distribution score" in flag.warnings[0]


def test_isotonic_scaling_does_not_part_probabilities_that_tie() -> None:
    """Ten kinds of rows, right or wrong by turns: exact knots would step between equal rows."""
    generator = np.random.default_rng(1)
    kind_B = generator.integers(0, 10, 400)
    logits_KC = 3 * generator.normal(size=(10, 3))
    said_B, is_right_B = logits_KC.argmax(axis=-1)[kind_B], generator.random(400) < 0.7
    label_B = np.where(is_right_B, said_B, generator.integers(0, 3, 400))
    scaling = fit_scaling("isotonic", off(logits_KC[kind_B], 0)[None], label_B)
    found = [mean_probabilities(off(logits_KC, seed)[None], scaling) for seed in range(20)]
    assert np.ptp(found, axis=0).max() < 1e-9


class Dense(nn.Module):
    """A class at each of two positions."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = hidden(), nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x)).view(-1, 2, 3)


def hidden() -> nn.Module:
    return nn.Sequential(nn.Linear(NUM_KINDS, 64), nn.ReLU(), nn.Dropout(0.3))


NUM_KINDS = 8
KINDS = torch.eye(NUM_KINDS)
HEADS: dict[str, tuple[Callable[[], nn.Module], dict[str, object]]] = {
    "classification": (
        lambda: nn.Sequential(hidden(), nn.Linear(64, 3)),
        {"task": "classification", "output": "logits", "features": "0.1"},
    ),
    "multilabel": (
        lambda: nn.Sequential(hidden(), nn.Linear(64, 2)),
        {"task": "multilabel", "output": "sigmoid_logits"},
    ),
    "dense": (Dense, {"task": "classification", "output": "logits", "class_axis": -1}),
    "regression": (
        lambda: nn.Sequential(hidden(), nn.Linear(64, 2)),
        {"task": "regression", "output": "mean", "features": "0.1"},
    ),
}


@pytest.fixture(scope="module", params=HEADS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    make, declared = HEADS[request.param]
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = tmp_path_factory.mktemp("ties") / "network.dubito"
        export(make(), torch.randn(4, NUM_KINDS), path, **declared)  # type: ignore[arg-type]
    return Engine.load(path)


def asked_of(head: str) -> Iterator[dict[str, object]]:
    """Every score, set, interval, policy and scaling of a head, each at least once."""
    has_features = head in ("classification", "regression")
    family = "regression" if head == "regression" else "classification"
    names = scorer.known(family, has_features=has_features)
    targets = [Target(acceptance=0.5), Target()]
    fitted = [Choices(scaling=one) for one in ("temperature", "isotonic", "none")]
    if head == "classification":
        targets.append(Target(risk=0.5))
        fitted += [Choices("none", "aps"), Choices("vector", "raps"), Choices(per_class=True)]
    elif head == "regression":
        fitted = [Choices(), Choices(intervals="cqr")]
    for index in range(max(len(names), len(fitted))):
        yield {
            "choices": fitted[index % len(fitted)],
            "target": targets[index % len(targets)],
            "score": names[index % len(names)],
        }


def fitted(engine: Engine, sampling: Sampling, asked: dict[str, object]) -> Calibration:
    """A calibration on 560 rows of eight kinds; coverage 0.7, alpha 0.2."""
    generator = np.random.default_rng(4)
    kind_B = generator.permutation(np.arange(560) % NUM_KINDS)
    rows = KINDS[torch.from_numpy(kind_B)]
    passes, manifest = engine.sample(rows, sampling=sampling), engine.manifest
    has_features = manifest.features is not None
    flagging = Flagging(
        str(asked["score"]), engine.features(rows).numpy() if has_features else None
    )
    common = {"sampling": sampling, "alpha": 0.2, "coverage": 0.7, "seed": 0, "flagging": flagging}
    common |= {"choices": asked["choices"], "target": asked["target"]}
    if manifest.head == "regression":
        mean_TBD = mean_and_variance(passes, manifest)[0].numpy()
        target_BD = (kind_B[:, None] + generator.integers(0, 3, (560, 2))).astype(np.float64)
        return fit_regression(mean_TBD, None, target_BD, **common)  # type: ignore[arg-type]
    if manifest.has_positions:
        label_BP = generator.integers(0, 2, (560, 2))
        logits_TBPC = class_logits(passes, manifest).numpy()
        return fit_positions(logits_TBPC, label_BP, manifest.head, **common)  # type: ignore[arg-type]
    uniform_B = draws.by_content({"x": rows.numpy()}, sampling.seed)
    logits_TBC = logits(passes, manifest.output).numpy()
    said_B = logits_TBC.mean(axis=0).argmax(axis=-1)
    label_B = np.where(generator.random(560) < 0.3, generator.integers(0, 3, 560), said_B)
    return fit_classification(logits_TBC, label_B, uniform_B=uniform_B, **common)  # type: ignore[arg-type]


def answers(engine: Engine, record: Calibration, rows: Tensor) -> tuple[list[object], Floats]:
    """What is decided of every row and kept for monitoring; and its scores."""
    is_numbers = record.task == "regression"
    served = engine.predict(
        rows,
        sampling=record.sampling,
        temperature=1.0 if is_numbers else record.logit_scaling,
        keep_samples=record.intervals == "cqr",
    )
    feature_BF = engine.features(rows).numpy() if record.needs_features else None
    uniform_B = draws.by_content({"x": rows.numpy()}, record.sampling.seed)
    kept = observe(served, record, uniform_B, feature_BF)
    assert kept is not None
    p_value_B = record.ood.p_values(kept.score)
    if isinstance(served, Classification):
        sets_BC = record.prediction_sets(served.mean, uniform_B)
        decisions = record.class_decisions(served.mean, kept.is_flagged, sets_BC)
        shown: list[object] = [one.tolist() for one in sets_BC]
        shown = list(zip(shown, served.label_index.tolist(), strict=True))
    else:
        assert isinstance(served, Regression)
        variance_BD = served.epistemic_variance + record.aleatoric_variance(
            served.aleatoric_variance
        )
        decisions = record.number_decisions(variance_BD, kept.is_flagged)
        shown = [None] * len(rows)
    told = zip(decisions, kept.is_flagged.tolist(), p_value_B.tolist(), shown, strict=True)
    return list(told), kept.score


@pytest.mark.parametrize("draw", ["stratified", "iid"])
def test_equal_rows_get_equal_answers_whoever_stands_beside_them(
    engine: Engine, draw: Draw
) -> None:
    """Alone, among up to 1,000 others, and in one request or in pieces, for all there is to fit."""
    head, sampling = engine.manifest.head, Sampling(num_samples=16, draw=draw)
    is_moved = False
    for asked in asked_of(head):
        record = fitted(engine, sampling, asked)
        alone = [answers(engine, record, KINDS[kind : kind + 1]) for kind in range(NUM_KINDS)]
        for size in (3, 104, 1000):
            kind_B = torch.arange(size) % NUM_KINDS
            for piece_b in kind_B.split(size if size < 1000 else 997):
                told, score_b = answers(engine, record, KINDS[piece_b])
                for kind, one, score in zip(piece_b.tolist(), told, score_b, strict=True):
                    assert one == alone[kind][0][0], (asked, size, kind)
                    is_moved |= bool(score != alone[kind][1][0])
    assert is_moved  # else these networks could not have told
