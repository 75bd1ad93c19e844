"""Fits of many passes look often whether to go on, so that they neither hold the device nor run on.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dubito.calibration.flags.source import SampledSource
from dubito.calibration.promises.intervals import quantile_ends
from dubito.calibration.sampled import Sampled
from dubito.calibration.scaling.noise import fit_noise
from dubito.calibration.scaling.scaling import fit_scaling, label_nll, mean_probabilities
from dubito.calibration.verdict import judge_noise, judge_scaling
from dubito.report import Check, blocks, mixture_crps

NUM_SAMPLES, NUM_ROWS, NUM_CLASSES = 1500, 100, 3
LOGITS = np.random.default_rng(0).normal(size=(NUM_SAMPLES, NUM_ROWS, NUM_CLASSES))
LABELS = np.arange(NUM_ROWS) % NUM_CLASSES
MEANS, TARGETS = LOGITS[..., :1], LOGITS[0, :, 1:2]
OWN = np.zeros_like(MEANS)
ROWS = np.arange(NUM_ROWS)
FOLDS = 5
ONCE, TWICE = 1, 2  # blocks that the arrays make

CASES: dict[str, tuple[Callable[[Check], object], int]] = {
    "temperature": (lambda check: fit_scaling("temperature", LOGITS, LABELS, check), 20 * TWICE),
    "vector": (lambda check: fit_scaling("vector", LOGITS, LABELS, check), 25 * TWICE),
    "isotonic": (lambda check: fit_scaling("isotonic", LOGITS, LABELS, check), 2 * TWICE),
    "judged scaling": (
        lambda check: judge_scaling("temperature", 1.0, LOGITS, LABELS, ROWS, 0, check),
        FOLDS * 20 * TWICE,
    ),
    "noise of means": (lambda check: fit_noise(MEANS, None, TARGETS, check), 30 * ONCE),
    "scale of noise": (lambda check: fit_noise(MEANS, OWN, TARGETS, check), 30 * ONCE),
    "judged noise": (
        lambda check: judge_noise(
            fit_noise(MEANS, OWN, TARGETS), False, MEANS, OWN, TARGETS, ROWS, 0, check
        ),
        FOLDS * 30 * ONCE,
    ),
    "quantiles": (lambda check: quantile_ends(MEANS, np.exp(OWN), 0.9, check), 2 * 60 * ONCE),
    "means": (lambda check: mean_probabilities(LOGITS, 2.0, check), TWICE),
    "losses": (lambda check: label_nll(LOGITS, LABELS, 2.0, check), TWICE),
    "figures": (lambda check: mixture_crps(MEANS, np.exp(OWN), TARGETS, check), 10),
    "scores": (
        lambda check: SampledSource(LOGITS, 1, lambda _, some: some.sum((0, 2)), check=check).plain(
            "any"
        ),
        TWICE,
    ),
    "rows taken": (lambda check: Sampled((LOGITS,), LABELS, check=check).take(ROWS[:9]), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_work_on_many_passes_looks_once_a_block_and_ends_where_it_is_told_to(name: str) -> None:
    work, fewest = CASES[name]
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    work(count)
    assert calls >= fewest
    left = calls // 2

    def end() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        work(end)
    assert left == -1


@pytest.mark.parametrize("elements_each", [1, 1000, 2**20])
def test_blocks_are_all_of_an_axis_and_hold_no_more_numbers_than_stay_in_the_cache(
    elements_each: int,
) -> None:
    found = list(blocks(1000, elements_each, lambda: None))
    assert np.concatenate([np.arange(1000)[some] for some in found]).tolist() == list(range(1000))
    sizes = [(some.stop - some.start) * elements_each for some in found]
    assert max(sizes) <= max(2**18, elements_each)
    assert list(blocks(0, 3, lambda: None)) == []
