"""The record's round trip, what it covers, how it is applied, and damaged records."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dubito.calibration.flags.detector import Detector
from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.heads.logits import LogitScaling
from dubito.calibration.heads.numbers import NumberHead
from dubito.calibration.promises.conformal import ConformalScores, Promise
from dubito.calibration.promises.policy import class_uncertainty
from dubito.calibration.record import Calibration
from dubito.calibration.scaling.noise import Noise
from dubito.calibration.stored import Reports
from dubito.engine import Classification, Regression
from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError
from dubito.report import ReliabilityBin

from .fits import served_scores

CLASSES = Calibration(
    head=ClassHead(
        scaling=LogitScaling("temperature", 0.1 + 0.2),
        promise=Promise(0.9, ConformalScores((tuple(np.linspace(0, 1, 19).tolist()),))),
    ),
    sampling=Sampling(),
    alpha=0.05,
    ood=Detector("predictive_entropy", 0.05, tuple(np.linspace(0, 1, 99).tolist())),
    splits={"fit": 10, "report": 10},
    report=Reports({"nll": 1 / 3, "ece": None}, {"nll": 2 / 3}),
    bins=(ReliabilityBin(0.0, 1 / 15, 0, None, None), ReliabilityBin(1 / 15, 1.0, 3, 0.7, 1.0)),
    num_rows=20,
    warnings=("a warning",),
)
NONE = np.zeros(0)  # lac takes no uniform numbers
NUMBERS = replace(
    CLASSES,
    head=NumberHead(
        noise=Noise((0.5, 0.0), (1.0, 2.0)),
        reference=(1.0, 4.0),
        promise=Promise(0.9, ConformalScores(((1.0, 2.0), (3.0, 4.0)))),
    ),
    ood=Detector("epistemic_variance", 0.05, (0.1, 0.2)),
    bins=(),
)


@pytest.mark.parametrize("record", [CLASSES, NUMBERS])
def test_a_record_comes_back_from_json_as_it_was(record: Calibration) -> None:
    assert Calibration.from_json(record.to_json()) == record
    text = json.dumps(record.to_json())
    assert Calibration.from_json(text) == record
    assert Calibration.from_json(text.encode()) == record


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.floats(min_value=5e-324, allow_infinity=False),
)
def test_every_float_survives_the_round_trip_to_the_last_bit(
    held_out: list[float], temperature: float
) -> None:
    scores = tuple(sorted(held_out))
    promise = Promise(0.9, ConformalScores((scores,)))
    head = ClassHead(promise, LogitScaling("temperature", temperature))
    again = Calibration.from_json(json.dumps(replace(CLASSES, head=head).to_json()))
    assert again.head == head


def test_it_covers_the_sampling_it_is_bound_to_and_names_what_differs() -> None:
    assert CLASSES.covers(Sampling()) is None
    reason = CLASSES.covers(Sampling(num_samples=32, masks="independent"))
    assert reason is not None
    assert "num_samples 64 (asked: 32)" in reason
    assert "masks shared (asked: independent)" in reason
    assert "seed" not in reason
    assert CLASSES.covers(Sampling(seed=1)) is not None
    assert CLASSES.covers(Sampling(method="point")) is not None


def test_sites_are_written_where_they_are_not_all_and_all_where_none_are_written() -> None:
    written = CLASSES.to_json()["sampling"]
    assert isinstance(written, dict)
    assert "sites" not in written  # as builds that sampled all sites wrote it
    assert Calibration.from_json(json.dumps(CLASSES.to_json())).sampling.sites == "all"
    some = replace(CLASSES, sampling=Sampling(sites=(0, 2)))
    again = Calibration.from_json(json.dumps(some.to_json()))
    assert again.sampling == some.sampling
    reason = again.covers(Sampling(sites="last"))
    assert reason is not None
    assert "sites 0,2 (asked: last)" in reason


def test_sets_take_the_record_s_coverage_unless_another_is_asked() -> None:
    mean_BC = np.array([[0.5, 0.3, 0.2]])  # scores 0.5, 0.7, 0.8; thresholds (k - 1) / 18
    assert CLASSES.head.sets(mean_BC, NONE, None).tolist() == [[True, True, True]]
    assert CLASSES.head.sets(mean_BC, NONE, 0.55).tolist() == [[True, False, False]]
    with pytest.raises(InputError, match="between 0 and 1"):
        CLASSES.head.sets(mean_BC, NONE, 0.0)


def test_a_regression_s_variance_is_scale_times_its_own_plus_noise() -> None:
    assert NUMBERS.head.noise.beside(np.array([[0.0, 3.0]])).tolist() == [[0.5, 6.0]]
    passes = np.zeros((1, 1, 2)), np.array([[[1.0, 4.0]]])
    lower_BD, upper_BD = NUMBERS.head.intervals.ends(NUMBERS.promise, passes, 0.6)
    assert lower_BD == pytest.approx(np.array([[-2.0, -8.0]]), rel=1e-4)
    assert upper_BD == pytest.approx(np.array([[2.0, 8.0]]), rel=1e-4)
    assert NUMBERS.head.score("epistemic_variance", np.array([[1.0, 8.0]])).tolist() == [1.5]


def test_scores_are_read_off_a_prediction_of_the_right_task() -> None:
    row_B, row_B2, used_B = np.array([0.5]), np.array([[1.0, 8.0]]), np.array([64])
    classes = Classification(
        *(Sampling(), ("ant", "bee"), used_B, row_B2, row_B2, row_B2, used_B),
        *(row_B, row_B, row_B, row_B, row_B2, row_B, row_B, row_B, row_B),
    )
    numbers = Regression(Sampling(), row_B2, row_B2, row_B2, row_B2, row_B2, used_B)
    assert served_scores(CLASSES, classes).tolist() == [0.5]
    assert served_scores(NUMBERS, numbers).tolist() == [1.5]
    with pytest.raises(InputError, match="a calibration of a classification"):
        served_scores(NUMBERS, classes)
    with pytest.raises(InputError, match="a calibration of a regression"):
        served_scores(CLASSES, numbers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": "a"}, "alpha: expected a number, got 'a'"),
        ({"alpha": 2.0}, "`alpha` expects a number between 0 and 1"),
        ({"temperature": None}, "its own fitted figures"),
        ({"temperature": -1.0}, "its own fitted figures"),
        ({"task": "ranking"}, "task"),
        ({"scaling": "vector"}, "its own fitted figures"),
        ({"class_map": {"weight": [1.0, 1.0], "bias": [0.0, 0.0]}}, "its own fitted figures"),
        ({"class_map": {"weight": [1.0], "bias": [0.0]}, "scaling": "vector"}, "2 or more"),
        ({"set_rule": {"kind": "hps"}}, "set_rule.kind"),
        ({"set_rule": {"kind": "raps", "penalty": -1.0}}, "at least 0"),
        ({"conformal": {"columns": [[0.1], [0.2]]}}, "its own fitted figures"),
        ({"intervals": "exact"}, "intervals"),
        ({"unknown": 1}, "unknown: unknown field: leave it out"),
        ({"format_version": 2}, "format_version"),
        ({"policy": {"kind": "risk"}}, "a policy expects a threshold"),
        ({"ood_fitted": {"bank": {}}}, "ood_fitted.bank"),
        ({"conformal": {"columns": [[0.2, 0.1]]}}, "ascending order"),
        ({"conformal": {"columns": [[]]}}, "one or more"),
        ({"conformal": {"columns": [[float("nan")]]}}, "cannot be read"),
        ({"sampling": {"num_samples": -1}}, "`num_samples` expects an integer of at least 2"),
    ],
)
def test_a_damaged_record_is_refused_with_its_place(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Calibration.from_json(CLASSES.to_json() | change)


def test_a_record_of_the_first_build_is_read_and_decides_by_the_default_policy() -> None:
    values = CLASSES.to_json()
    del values["ood_fitted"], values["policy"]
    record = Calibration.from_json(values)
    assert record == CLASSES
    mean_BC = np.array([[0.9, 0.05, 0.05], [0.5, 0.5, 0.0], [0.9, 0.05, 0.05]])
    flag_B = np.array([False, False, True])
    sets_BC = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=bool)
    uncertainty_B, size_B = class_uncertainty(mean_BC), sets_BC.sum(axis=-1)
    decisions = record.policy.decide(flag_B, uncertainty_B, size_B)
    assert decisions == ["accept", "review", "reject"]


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[]", "null"])
def test_what_is_no_record_at_all_is_refused(text: str | bytes) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Calibration.from_json(text)


def test_a_summary_names_thresholds_and_not_the_scores_behind_them() -> None:
    summary = CLASSES.summary()
    assert summary["ood"] == {
        "score": "predictive_entropy",
        "alpha": 0.05,
        "threshold": CLASSES.ood.threshold,
        "num_rows": 99,
    }
    assert summary["conformal"] == {
        "thresholds": [CLASSES.conformal.columns[0][17]],
        "num_rows": 19,
    }
    assert summary["report"] == CLASSES.to_json()["report"]


def test_a_threshold_that_the_rows_cannot_settle_is_none_in_the_summary() -> None:
    summary = NUMBERS.summary()
    assert summary["ood"]["threshold"] is None  # type: ignore[index]
    assert summary["conformal"]["thresholds"] == [None, None]  # type: ignore[index]
