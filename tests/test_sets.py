"""Sets by each score: closed forms, a slow reference, ties, penalties, classes on their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dubito.calibration.promises import draws
from dubito.calibration.promises.conformal import ConformalScores, order
from dubito.calibration.promises.sets import PENALTIES, SetRule, choose_penalty
from dubito.errors import InputError

Floats = NDArray[np.float64]
APS, RAPS = SetRule("aps"), SetRule("raps", penalty=0.1, free_ranks=2)
RULES = [SetRule(), APS, RAPS]


def labelled(
    num_rows: int, num_classes: int = 5, seed: int = 0
) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    mean_BC = generator.dirichlet(np.full(num_classes, 0.5), num_rows)
    label_B = (mean_BC.cumsum(axis=-1) < generator.random(num_rows)[:, None]).sum(axis=-1)
    return mean_BC, label_B.clip(max=num_classes - 1)


def slow_score(rule: SetRule, mean_C: Floats, label: int, uniform: float) -> float:
    """Straight from the definition, class by class."""
    if rule.kind == "lac":
        return float(1 - mean_C[label])
    before = [
        c
        for c in range(len(mean_C))
        if mean_C[c] > mean_C[label] or (mean_C[c] == mean_C[label] and c < label)
    ]
    score = sum(mean_C[c] for c in before) + uniform * mean_C[label]
    return float(score + rule.penalty * max(0, len(before) + 1 - rule.free_ranks))


def test_each_score_follows_its_formula() -> None:
    mean_BC, half_B = np.array([[0.1, 0.6, 0.3]]), np.array([0.5])
    np.testing.assert_allclose(SetRule().scores(mean_BC, half_B), [[0.9, 0.4, 0.7]])
    np.testing.assert_allclose(APS.scores(mean_BC, half_B), [[0.95, 0.3, 0.75]])
    one_free = SetRule("raps", penalty=0.1, free_ranks=1)
    np.testing.assert_allclose(one_free.scores(mean_BC, half_B), [[1.15, 0.3, 0.85]])


@given(
    arrays.arrays(np.float64, (3, 4), elements=st.integers(0, 4).map(float)),
    arrays.arrays(np.float64, 3, elements=st.floats(0, 1, exclude_max=True)),
    st.sampled_from(RULES),
)
def test_scores_agree_with_a_slow_reference_also_where_probabilities_tie(
    weight_BC: Floats, uniform_B: Floats, rule: SetRule
) -> None:
    mean_BC = (weight_BC + 0.25) / (weight_BC + 0.25).sum(axis=-1, keepdims=True)
    scores_BC = rule.scores(mean_BC, uniform_B)
    for row in range(3):
        for label in range(4):
            expected = slow_score(rule, mean_BC[row], label, uniform_B[row])
            assert scores_BC[row, label] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("per_class", [False, True])
def test_sets_agree_with_a_slow_reference(rule: SetRule, per_class: bool) -> None:
    rule = SetRule(rule.kind, per_class, rule.penalty, rule.free_ranks)
    mean_BC, label_B = labelled(160)
    uniform_B = draws.by_place(160, 3)
    held_out = rule.fit(mean_BC[:120], label_B[:120], uniform_B[:120])
    sets_BC = rule.sets(held_out, mean_BC[120:], uniform_B[120:], 0.8)
    of_label_b = [slow_score(rule, mean_BC[i], label_B[i], uniform_B[i]) for i in range(120)]
    for c in range(5):
        chosen = [s for s, y in zip(of_label_b, label_B, strict=False) if not per_class or y == c]
        threshold = sorted(chosen)[order(len(chosen), 0.8) - 1]
        for row in range(120, 160):
            is_in = slow_score(rule, mean_BC[row], c, uniform_B[row]) <= threshold
            assert sets_BC[row - 120, c] == is_in


@given(st.integers(0, 2**32), st.sampled_from(RULES), st.floats(0.3, 0.9), st.floats(0.3, 0.9))
def test_a_higher_coverage_never_leaves_a_class_out(
    seed: int, rule: SetRule, one: float, other: float
) -> None:
    mean_BC, label_B = labelled(60, seed=seed)
    uniform_B = draws.by_place(60, seed)
    held_out = rule.fit(mean_BC[:40], label_B[:40], uniform_B[:40])
    narrow, wide = (
        rule.sets(held_out, mean_BC[40:], uniform_B[40:], level) for level in sorted((one, other))
    )
    assert not (narrow & ~wide).any()


@pytest.mark.parametrize("rule", [APS, RAPS])
def test_sets_hold_the_most_probable_classes_and_may_be_empty(rule: SetRule) -> None:
    mean_BC, label_B = labelled(2000)
    uniform_B = draws.by_place(2000, 0)
    held_out = rule.fit(mean_BC[:1000], label_B[:1000], uniform_B[:1000])
    sets_BC = rule.sets(held_out, mean_BC[1000:], uniform_B[1000:], 0.5)
    for mean_C, set_C in zip(mean_BC[1000:], sets_BC, strict=True):
        assert set_C[np.argsort(-mean_C)[: set_C.sum()]].all()
    assert (~sets_BC.any(axis=-1)).mean() > 0.05


def test_too_few_held_out_rows_give_the_whole_set_of_that_class_alone() -> None:
    few = ConformalScores(((0.1, 0.2),))
    mean_BC = np.array([[0.7, 0.2, 0.1]])
    assert SetRule().sets(few, mean_BC, np.zeros(1), 0.9).tolist() == [[True, True, True]]
    by_class = ConformalScores.of([np.zeros(9), np.zeros(9), np.zeros(8)])
    rule = SetRule(per_class=True)
    assert rule.sets(by_class, mean_BC, np.zeros(1), 0.9).tolist() == [[False, False, True]]


def test_a_larger_penalty_gives_no_larger_sets_beyond_the_free_ranks() -> None:
    """With one threshold: with its own, a stronger penalty moves it as well."""
    mean_BC, _ = labelled(500, num_classes=20)
    held_out, uniform_B = ConformalScores.of([np.full(99, 0.8)]), draws.by_place(500, 0)
    sizes = [
        SetRule("raps", penalty=one, free_ranks=2).sets(held_out, mean_BC, uniform_B, 0.9).sum()
        for one in PENALTIES
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_the_chosen_penalty_makes_no_larger_sets_than_aps_on_its_own_rows() -> None:
    """Half the rows with a long tail that is never right: what raps was made for."""
    generator = np.random.default_rng(0)
    tail_BC, label_B = generator.dirichlet(np.full(50, 5.0), 800), generator.integers(0, 3, 800)
    head_B1 = np.where(generator.random((800, 1)) < 0.5, 0.98, 0.3)
    mean_BC = head_B1 * np.eye(50)[label_B] + (1 - head_B1) * tail_BC
    uniform_B = draws.by_place(800, 0)
    rule = choose_penalty(mean_BC[:400], label_B[:400], uniform_B[:400], 0.9)
    assert rule.kind == "raps"
    assert rule.free_ranks == 1
    assert rule.penalty > 0

    def size(rule: SetRule) -> float:
        held_out = rule.fit(mean_BC[400:600], label_B[400:600], uniform_B[400:600])
        return rule.sets(held_out, mean_BC[600:], uniform_B[600:], 0.9).sum(axis=-1).mean()

    assert size(rule) < 0.5 * size(APS)


@pytest.mark.parametrize("wrong", [{"penalty": -0.1}, {"penalty": np.inf}, {"free_ranks": -1}])
def test_penalties_that_reward_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at least 0"):
        SetRule("raps", **wrong)  # type: ignore[arg-type]


@given(st.integers(1, 8), st.integers(0, 2**63 - 1))
def test_a_row_s_number_hangs_on_its_content_and_the_seed_alone(count: int, seed: int) -> None:
    rows = np.arange(3.0 * count, dtype=np.float32).reshape(count, 3)
    together = draws.by_content({"x": rows}, seed)
    assert ((together >= 0) & (together < 1)).all()
    alone = [draws.by_content({"x": rows[i : i + 1]}, seed)[0] for i in range(count)]
    assert together.tolist() == alone
    assert draws.by_content({"x": rows[::-1]}, seed).tolist() == alone[::-1]
    assert len(set(alone)) == count
    assert draws.by_content({"x": rows}, seed ^ 1).tolist() != alone


def test_equal_rows_of_several_inputs_have_equal_numbers() -> None:
    left, right = np.zeros((2, 3), dtype=np.float32), np.array([[1], [2]])
    one = draws.by_content({"left": left, "right": right}, 0)
    assert one[0] != one[1]
    assert draws.by_content({"right": right, "left": -left}, 0).tolist() == one.tolist()


def test_numbers_are_uniform_and_do_not_follow_the_splits_of_the_same_seed() -> None:
    """Means of 10,000 numbers, and correlation with the seed's own permutation; 4.5 deviations."""
    rows = np.random.default_rng(0).normal(size=(10_000, 2)).astype(np.float32)
    for number_B in (draws.by_content({"x": rows}, 0), draws.by_place(10_000, 0)):
        assert abs(number_B.mean() - 0.5) < 4.5 / np.sqrt(12 * 10_000)
        assert abs(np.square(number_B).mean() - 1 / 3) < 4.5 * np.sqrt(4 / 45 / 10_000)
        place_B = np.random.Generator(np.random.Philox(0)).permutation(10_000)
        assert abs(np.corrcoef(number_B, place_B)[0, 1]) < 4.5 / 100


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_sets_that_are_never_empty_hold_the_predicted_class_and_nothing_else_beside(
    rule: SetRule, per_class: bool
) -> None:
    rule = replace(rule, per_class=per_class)
    mean_BC, label_B = labelled(2000)
    uniform_B = draws.by_place(2000, 0)
    held_out = rule.fit(mean_BC[:1000], label_B[:1000], uniform_B[:1000])
    given = held_out, mean_BC[1000:], uniform_B[1000:], 0.5
    own_BC, sets_BC = rule.sets(*given), replace(rule, never_empty=True).sets(*given)
    added_BC = sets_BC & ~own_BC
    assert not (own_BC & ~sets_BC).any()
    likely_BC = np.arange(5) == mean_BC[1000:].argmax(axis=-1)[:, None]
    assert sets_BC[likely_BC].all()
    assert not added_BC[~likely_BC].any()
    assert added_BC.any()
    if not per_class:  # a set that holds a class holds the likely one: only empty ones grow
        assert added_BC.sum() == (~own_BC.any(axis=-1)).sum()


def test_a_filled_set_settles_its_row_where_the_class_is_as_probable_as_was_asked() -> None:
    """A network right more often than .9: only 1 - p <= .01 fits by itself."""
    held_out = ConformalScores.of([np.full(99, 0.01)])
    mean_BC = np.array([[0.995, 0.005], [0.98, 0.02], [0.9, 0.1], [0.55, 0.45]])
    rule = SetRule(never_empty=True)
    fitting_BC = rule.fitting(held_out, mean_BC, np.zeros(4), 0.9)
    assert fitting_BC.sum(axis=-1).tolist() == [1, 0, 0, 0]
    assert rule.filled(fitting_BC, mean_BC).sum(axis=-1).tolist() == [1, 1, 1, 1]
    assert rule.settled_sizes(fitting_BC, mean_BC, 0.9).tolist() == [1, 1, 1, 2]
    assert SetRule().settled_sizes(fitting_BC, mean_BC, 0.9).tolist() == [1, 0, 0, 0]
