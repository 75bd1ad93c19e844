"""Kinds of heads: every one that the engine knows can be calibrated, and its record names it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from dubito.calibration.fit import fit
from dubito.calibration.heads import HEADS
from dubito.calibration.heads.quantiles import QuantileHead
from dubito.calibration.judge import judge
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.stored import Stored
from dubito.calibration.terms import Terms
from dubito.engine.heads import HEADS as OF_ENGINE

from . import fits
from .golden_records import CASES, TERMS, Record, passes


def numbers_at_positions() -> Record:
    """Two numbers at six positions, of which one is not measured."""
    means = passes(300, 6, 2, seed=0)
    target = means.mean(axis=0) + np.random.default_rng(1).normal(size=means.shape[1:])
    target[:, 0] = np.nan
    record = fits.fitted("dense_regression", (means,), target, **TERMS)
    return record, fits.judged("dense_regression", (means,), target, calibration=record)


def quantiles() -> Record:
    """Three levels of two numbers."""
    levels = (0.1, 0.5, 0.9)
    median = passes(300, 2, seed=0)
    level_TBDQ = median.mean(axis=0, keepdims=True)[..., None] + ndtri(levels)
    target = median.mean(axis=0) + np.random.default_rng(1).normal(size=median.shape[1:])
    head, rows = QuantileHead(levels=levels), Sampled((median, level_TBDQ), target)
    record = fit(head, rows, Terms(**TERMS))
    return record, judge(head, rows, record)


MADE = CASES | {"numbers at places": numbers_at_positions, "quantiles": quantiles}
KIND_OF = {
    "classes": "classification",
    "labels": "multilabel",
    "places, nothing fitted": "dense",
    "a number": "regression",
    "numbers at places": "dense_regression",
    "quantiles": "quantiles",
}


def test_what_the_engine_predicts_can_be_calibrated_but_sequences_which_have_no_truths() -> None:
    assert HEADS.keys() == OF_ENGINE.keys() == {*KIND_OF.values(), "sequence"}
    assert all(head.name == kind for kind, head in HEADS.items())


@pytest.mark.parametrize("case", KIND_OF)
def test_a_record_names_its_head_and_keeps_the_order_of_its_fields(case: str) -> None:
    record, _ = MADE[case]()
    document = record.to_json()
    assert Stored.from_json(document).head == record.head.name == KIND_OF[case]
    assert Calibration.from_json(document) == record
    first = json.loads(Path(__file__).with_name("calibration_record_1.json").read_text())
    assert [name for name in document if name in first] == list(first)
