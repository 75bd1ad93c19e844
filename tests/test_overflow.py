"""Columns of rows on which a network overflows: null, counted, and nothing made up."""

import numpy as np

from dubito.calibration.flags.detector import Detector
from dubito.columns import ClassSets, Flags, arrays_of
from dubito.serving.overflow import decided, flagged, warn_of_overflow

SCORES = np.array([0.1, np.nan, np.inf])
DETECTOR = Detector("predictive_entropy", 0.5, (0.2, 0.3, 0.4))


def test_a_score_that_is_no_number_has_no_flag_while_an_infinite_one_is_flagged() -> None:
    found = dict(flagged(DETECTOR, SCORES))  # type: ignore[arg-type]
    assert isinstance(found["flag"], Flags)
    assert found["flag"].values() == [False, None, True]
    np.testing.assert_array_equal(found["p_value"], [1.0, np.nan, 0.25])  # type: ignore[arg-type]


def test_a_decision_needs_finite_means_and_a_score() -> None:
    mean_BC = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, np.nan]])
    assert decided(["accept", "review", "reject"], mean_BC, SCORES) == ["accept", None, None]


def test_a_position_that_overflows_has_no_set_and_its_neighbour_has() -> None:
    is_member = np.array([[[True, False], [False, False]], [[False, False], [True, True]]])
    is_known = np.array([[True, False], [True, True]])
    sets = ClassSets(is_member, is_known, ("sea", "sky"))
    assert sets.values() == [[["sea"], None], [[], ["sea", "sky"]]]
    np.testing.assert_array_equal(
        dict(arrays_of({"prediction_set": sets}))["prediction_set"], is_member
    )


def test_one_warning_names_every_column_that_holds_a_null_and_no_endless_interval() -> None:
    warnings: list[str] = []
    endless = {"lower": np.array([[-np.inf], [0.0]]), "upper": np.array([[np.inf], [1.0]])}
    warn_of_overflow({"mean": np.zeros((2, 1)), "interval": endless}, warnings)
    assert warnings == []
    broken = {"lower": np.array([[np.nan], [0.0]]), "upper": np.array([[np.nan], [1.0]])}
    columns = {
        "mean": np.array([[np.nan], [1.0]]),
        "interval": broken,
        "decision": [None, "accept"],
    }
    warn_of_overflow({**columns, "num_samples_used": np.array([16, 16])}, warnings)
    (warning,) = warnings
    assert warning.startswith("`mean`, `interval`, `decision`: null in 1 rows (in arrays NaN, ")
