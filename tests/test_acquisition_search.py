"""Searches through pools with a real network: chunks, candidates, exclusions, refusals."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.measures import mutual_information

from dubito.acquisition import (
    Acquisition,
    ArrayPool,
    Choice,
    Search,
    names,
    optimisation,
    search,
    select,
    strategies,
)
from dubito.acquisition.draws import words
from dubito.acquisition.strategies.power_bald import power_bald
from dubito.acquisition.strategy import Strategy
from dubito.engine import Classification, Engine, Ensemble, Regression, Sampling
from dubito.errors import InputError

from .conftest import NUM_FEATURES, Bundles

SAMPLING = Sampling(16, seed=1)
OPTIMISING = ("expected_improvement", "probability_of_improvement", "upper_confidence_bound")


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).normal(size=(count, NUM_FEATURES)).astype(np.float32)
    )


@pytest.fixture
def classifier(bundles: Bundles) -> Engine:
    return Engine.load(bundles("first"))


@pytest.fixture
def regressor(bundles: Bundles) -> Engine:
    return Engine.load(bundles("regression"))


def choose(engine: Engine | Ensemble, inputs: torch.Tensor, name: str, k: int, **of: Any) -> Choice:
    sampling = of.pop("sampling", SAMPLING)
    targets = rows(6, seed=9) if name == "epig" else of.pop("targets", None)
    if name in OPTIMISING:
        of = {"incumbent": 10.0, **of}
    pool = ArrayPool(engine.read_inputs(inputs))
    return select(engine, pool, Acquisition(name, k, **of), sampling=sampling, targets=targets)


def test_the_strategies_of_every_file_can_be_asked_for() -> None:
    files = [module.name for module in iter_modules(strategies.__path__)]
    modules = [vars(import_module(f"{strategies.__name__}.{name}")) for name in files]
    made = {value for names in modules for value in names.values() if isinstance(value, Strategy)}
    assert made == set(strategies.EVERY), "name them in `EVERY` of `acquisition.strategies`"


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_strategy_chooses_rows_once_never_excluded_ones_and_the_same_again(
    task: str, classifier: Engine, regressor: Engine
) -> None:
    engine = classifier if task == "classification" else regressor
    excluded = (0, 5, 17)
    for name in names(task):
        for k in (1, 6):
            found = choose(engine, rows(40), name, k, exclude=excluded)
            again = choose(engine, rows(40), name, k, exclude=excluded)
            assert len(set(found.indices.tolist())) == k, name
            assert not set(found.indices.tolist()) & set(excluded), name
            assert np.isfinite(found.scores).all(), name
            assert found.candidates == 37
            assert found.indices.tolist() == again.indices.tolist(), name
            assert found.scores.tolist() == again.scores.tolist(), name


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_strategy_can_choose_the_whole_pool(
    task: str, classifier: Engine, regressor: Engine
) -> None:
    engine = classifier if task == "classification" else regressor
    for name in names(task):
        found = choose(engine, rows(9), name, 9, sampling=Sampling(2))
        assert sorted(found.indices.tolist()) == list(range(9)), name


def test_bald_takes_the_rows_with_the_largest_mutual_information(classifier: Engine) -> None:
    inputs = rows(50)
    samples = classifier.predict(inputs, sampling=SAMPLING, keep_samples=True).samples
    expected = mutual_information(torch.from_numpy(np.asarray(samples)))
    found = choose(classifier, inputs, "bald", 8)
    assert found.indices.tolist() == expected.argsort(descending=True)[:8].tolist()
    np.testing.assert_allclose(found.scores, expected[found.indices], atol=1e-7)


@pytest.mark.parametrize("name", ["entropy", "power_bald", "epig", "batchbald", "random"])
def test_chunks_do_not_decide_the_choice(
    name: str, classifier: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = choose(classifier, rows(60), name, 5, candidates=20)
    monkeypatch.setattr(search, "_CHUNK_ROWS", 7)
    parts = choose(classifier, rows(60), name, 5, candidates=20)
    assert parts.indices.tolist() == whole.indices.tolist()
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)


def test_an_interrupted_search_goes_on_from_its_state(
    classifier: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_CHUNK_ROWS", 10)
    pool = ArrayPool(classifier.read_inputs(rows(45)))

    def begin() -> Search:
        asked = Acquisition("batchbald", 4, candidates=12, exclude=(3,))
        return Search.begin(classifier, asked, len(pool), sampling=SAMPLING)

    straight = begin().run(pool)
    first = begin()
    for _ in range(2):
        first.step(pool)
    second = begin()
    second.restore(first.state())
    assert second.done == 20
    assert second.run(pool).indices.tolist() == straight.indices.tolist()


def test_joint_strategies_compare_the_best_candidates_by_bald(classifier: Engine) -> None:
    best = set(choose(classifier, rows(60), "bald", 10).indices.tolist())
    found = choose(classifier, rows(60), "batchbald", 4, candidates=10)
    assert set(found.indices.tolist()) <= best
    assert found.candidates == 10


def test_kept_passes_bound_the_candidates_too(classifier: Engine) -> None:
    pool = ArrayPool(classifier.read_inputs(rows(60)))
    found = select(
        classifier,
        pool,
        Acquisition("batchbald", 4),
        sampling=SAMPLING,
        max_values=16 * 3 * 15,
    )
    assert found.candidates == 15


def test_no_class_is_chosen_more_often_than_asked(classifier: Engine) -> None:
    inputs = rows(80)
    predicted = classifier.predict(inputs, sampling=SAMPLING)
    assert isinstance(predicted, Classification)
    for name in ("bald", "random", "batchbald"):
        found = choose(classifier, inputs, name, 6, per_class=2)
        assert np.bincount(predicted.label_index[found.indices]).max() <= 2
    with pytest.raises(InputError, match=r"expected 7 rows with at most 2 of a predicted class"):
        choose(classifier, inputs, "bald", 7, per_class=2)


@pytest.mark.parametrize("name", ["bald", "epig"])
@pytest.mark.parametrize("num_rows", [15, 80])
def test_diversity_chooses_among_the_best_rows(
    classifier: Engine, name: str, num_rows: int
) -> None:
    best = set(choose(classifier, rows(num_rows), name, 15).indices.tolist())
    found = choose(classifier, rows(num_rows), name, 5, diversity=3)
    assert set(found.indices.tolist()) <= best
    assert found.candidates == 15


def test_labelled_rows_are_the_centres_of_a_core_set(classifier: Engine) -> None:
    inputs = rows(30)
    features = classifier.features(inputs).double().numpy()
    found = choose(classifier, inputs, "coreset", 1, exclude=(4, 8))
    distance = np.linalg.norm(features[:, None] - features[[4, 8]], axis=-1).min(axis=1)
    assert found.indices[0] == distance.argmax()
    assert found.scores[0] == pytest.approx(distance.max(), rel=1e-6)


def test_thompson_takes_the_best_row_of_one_network_after_the_other(regressor: Engine) -> None:
    inputs = rows(40)
    samples = regressor.predict(inputs, sampling=SAMPLING, keep_samples=True).samples
    assert samples is not None
    for maximize, best in ((True, samples[:, :, 0].max(1)), (False, samples[:, :, 0].min(1))):
        found = choose(regressor, inputs, "thompson", 4, maximize=maximize)
        assert found.scores[0] in best
        assert all(
            score in samples[:, index]
            for score, index in zip(found.scores, found.indices, strict=True)
        )


def test_minimising_turns_the_sign(regressor: Engine) -> None:
    inputs = rows(40)
    mean = regressor.predict(inputs, sampling=SAMPLING).mean[:, 0]
    low = choose(regressor, inputs, "upper_confidence_bound", 1, maximize=False, beta=0.0)
    assert low.indices[0] == mean.argmin()
    high = choose(regressor, inputs, "upper_confidence_bound", 1, beta=0.0)
    assert high.indices[0] == mean.argmax()


def test_options_and_their_defaults_reach_the_formulas(
    regressor: Engine, classifier: Engine
) -> None:
    inputs = rows(40)
    found = regressor.predict(inputs, sampling=SAMPLING)
    assert isinstance(found, Regression)
    mean_N, std_N = found.mean[:, 0], np.sqrt(found.epistemic_variance[:, 0])
    for name, score in (
        ("expected_improvement", optimisation.log_expected_improvement),
        ("probability_of_improvement", optimisation.log_probability_of_improvement),
    ):
        for sign, maximize in ((1, True), (-1, False)):
            asked = choose(regressor, inputs, name, 1, incumbent=9.5, xi=0.2, maximize=maximize)
            expected_N = score(sign * mean_N, std_N, sign * 9.5, 0.2)
            assert asked.scores.tolist() == pytest.approx([expected_N.max()], rel=1e-9)
    bound = choose(regressor, inputs, "upper_confidence_bound", 1)
    assert bound.scores.tolist() == pytest.approx([(mean_N + 2 * std_N).max()], rel=1e-9)
    predicted = classifier.predict(inputs, sampling=SAMPLING)
    assert isinstance(predicted, Classification)
    drawn_N = power_bald(predicted.mutual_information, words(0, np.arange(40)), beta=1.0)
    drawn = choose(classifier, inputs, "power_bald", 3)
    np.testing.assert_allclose(drawn.scores, np.sort(drawn_N)[:-4:-1], rtol=1e-9)


def test_an_incumbent_far_away_leaves_nothing_to_chance(regressor: Engine) -> None:
    for name in ("expected_improvement", "probability_of_improvement"):
        for incumbent in (1e4, -1e4):
            batches = [
                choose(
                    regressor, rows(30), name, 3, incumbent=incumbent, seed=seed
                ).indices.tolist()
                for seed in range(6)
            ]
            assert batches == batches[:1] * 6


def test_an_ensemble_chooses_by_all_passes_of_its_members(bundles: Bundles) -> None:
    both = Ensemble((Engine.load(bundles("first")), Engine.load(bundles("second"))))
    sampling = replace(SAMPLING, method="ensemble")
    samples = both.predict(rows(30), sampling=sampling, keep_samples=True).samples
    expected = mutual_information(torch.from_numpy(np.asarray(samples)))
    found = choose(both, rows(30), "batchbald", 3, sampling=sampling)
    assert found.indices[0] == int(expected.argmax())
    with pytest.raises(InputError, match="features of one network, got an ensemble"):
        choose(both, rows(30), "coreset", 3, sampling=sampling)


class _Long:
    """A pool that makes its rows when they are asked for, and counts how many at once."""

    def __init__(self, count: int) -> None:
        self.count, self.most = count, 0

    def __len__(self) -> int:
        return self.count

    def take(self, indices: NDArray[np.int64]) -> torch.Tensor:
        self.most = max(self.most, len(indices))
        return torch.sin(torch.from_numpy(indices)[:, None] * torch.arange(1.0, NUM_FEATURES + 1))


def test_a_pool_is_never_read_whole(classifier: Engine) -> None:
    pool = _Long(60_000)
    found = select(
        classifier, pool, Acquisition("batchbald", 5, candidates=200), sampling=Sampling(4)
    )
    assert found.candidates == 200
    assert pool.most <= 4096


def test_work_counts_every_pass_of_a_row(classifier: Engine) -> None:
    def work(name: str, **of: Any) -> int:
        targets = rows(7) if name == "epig" else None
        asked = Acquisition(name, 2, **of)
        return Search.begin(classifier, asked, 50, sampling=SAMPLING, targets=targets).work

    assert work("bald") == 50
    assert work("epig") == 57
    assert work("random") == 0
    assert work("batchbald") == 50
    assert work("batchbald", candidates=20) == 70
    assert work("coreset", candidates=20, exclude=(1, 2)) == 72


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("bald", {"k": 0}, "`k` expects an integer of at least 1, got 0"),
    ("bald", {"k": 21}, "`k` expects at most 20, got 21: the pool has 20 rows: ask for fewer"),
    ("bald", {"exclude": tuple(range(20))}, "at most 0, got 2: the pool has 20 rows and 20"),
    ("bald", {"exclude": (20,)}, "`exclude` expects indices from 0 to 19, got 20"),
    ("bald", {"exclude": (-1,)}, "`exclude` expects an integer of at least 0, got -1"),
    ("best", {}, r"`strategy` expects one of a classification: entropy, .*; got `best`"),
    ("expected_improvement", {}, "got `expected_improvement`, which is for a regression"),
    ("variance", {}, "got `variance`, which is for a regression"),
    ("epig", {"targets": None}, "`epig` expects `targets`"),
    ("bald", {"targets": rows(2)}, "`targets` expects strategy `epig`, got `bald`"),
    ("batchbald", {"candidates": 1}, "compares at most 1 candidates with each other, got k = 2"),
    ("batchbald", {"diversity": 2}, "`diversity` expects a strategy that scores rows alone"),
    ("bald", {"sampling": Sampling(1, method="point")}, "`bald` expects passes that differ"),
    ("batchbald", {"sampling": Sampling(4, masks="independent")}, "expects masks `shared`"),
    ("epig", {"sampling": Sampling(4, masks="independent")}, "expects masks `shared`"),
    ("batchbald", {"sampling": Sampling(1, method="moments")}, "got method `moments`"),
    ("batchbald", {"sampling": Sampling(64, tolerance=0.1)}, "got a `tolerance`"),
    ("power_bald", {"beta": 1e308}, "`beta` expects at most 1e.09, got 1e.308"),
    ("epig", {"targets": torch.zeros(2, 1)}, r"`targets`: input `.*` expects rows of shape"),
    ("power_bald", {"beta": -1.0}, "`beta` expects a finite number of at least 0, got -1"),
    ("bald", {"beta": 1.0}, "`beta` expects strategy `upper_confidence_bound` or `power_bald`"),
    ("bald", {"noise_variance": 1.0}, "`noise_variance` expects .* of a regression, got `bald`"),
    ("entropy", {"maximize": False}, "got `entropy`, which does not read it: leave it out, or"),
    ("bald", {"per_class": 0}, "`per_class` expects an integer of at least 1"),
    ("bald", {"seed": -1}, "`seed` expects an integer of at least 0"),
]


@pytest.mark.parametrize(("name", "of", "message"), BAD)
def test_what_cannot_be_chosen_is_refused_with_the_reason(
    name: str, of: dict[str, Any], message: str, classifier: Engine
) -> None:
    options = {"k": 2, **of}
    sampling = options.pop("sampling", SAMPLING)
    targets = options.pop("targets", rows(3) if name == "epig" else None)
    pool = ArrayPool(classifier.read_inputs(rows(20)))
    with pytest.raises(InputError, match=message):
        select(classifier, pool, Acquisition(name, **options), sampling=sampling, targets=targets)


@pytest.mark.parametrize(
    ("name", "of", "message"),
    [
        ("expected_improvement", {"incumbent": None}, "expects `incumbent`"),
        ("bald", {"per_class": 1}, "`per_class` expects a classification"),
        ("bald", {"noise_variance": 1.0}, "expects a network that predicts no noise"),
        ("entropy", {}, "which is for a classification"),
        ("thompson", {"incumbent": float("nan")}, "`incumbent` expects a finite number"),
        ("variance", {"incumbent": 1.0}, "`incumbent` expects strategy .*, got `variance`"),
        ("thompson", {"xi": 1.0}, "`xi` expects strategy .*, got `thompson`"),
        ("upper_confidence_bound", {"xi": 0.1}, "`xi` expects strategy `expected_improvement`"),
        ("variance", {"noise_variance": 1.0}, "`noise_variance` expects strategy `bald`"),
    ],
)
def test_what_a_regression_cannot_choose_is_refused(
    name: str, of: dict[str, Any], message: str, regressor: Engine
) -> None:
    with pytest.raises(InputError, match=message):
        choose(regressor, rows(20), name, 2, **of)


def test_rows_on_which_the_network_overflows_are_not_chosen(classifier: Engine) -> None:
    inputs = rows(10)
    inputs[3] = 3e38
    for name in ("bald", "batchbald"):
        assert 3 not in choose(classifier, inputs, name, 9).indices
        with pytest.raises(InputError, match="with finite scores, got 9"):
            choose(classifier, inputs, name, 10)


def test_thompson_asks_one_network_after_the_other_for_its_best_row_that_is_left(
    regressor: Engine,
) -> None:
    inputs, expected = rows(40), list[int]()
    samples = regressor.predict(inputs, sampling=SAMPLING, keep_samples=True).samples
    assert samples is not None
    order_T = np.argsort(words(7, np.arange(SAMPLING.num_samples)))
    for t in np.resize(order_T, 20):  # all of them, and four again
        falling = samples[t, :, 0].argsort()[::-1].tolist()
        expected.append(next(row for row in falling if row not in expected))
    assert choose(regressor, inputs, "thompson", 20, seed=7).indices.tolist() == expected


def test_candidates_of_every_class_are_compared_where_classes_are_bounded(
    classifier: Engine,
) -> None:
    inputs = rows(80)
    predicted = classifier.predict(inputs, sampling=SAMPLING)
    assert isinstance(predicted, Classification)
    per_class = np.bincount(predicted.label_index, minlength=3).clip(max=4)  # a third of twelve
    found = choose(classifier, inputs, "batchbald", 3, per_class=1, candidates=12)
    assert found.candidates == per_class.sum() > 3
