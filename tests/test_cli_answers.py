"""A prediction as a table, one line per row, for every kind of head."""

from __future__ import annotations

import pytest

from dubito.cli.answers import table_of
from dubito.errors import InputError


def _cells(outputs: dict[str, object]) -> dict[str, list[str]]:
    """The cells of each column by its heading."""
    columns = table_of(outputs).columns
    return {str(column.header): [str(cell) for cell in column.cells] for column in columns}


def test_one_value_a_row_is_written_out_and_what_is_missing_is_null() -> None:
    outputs: dict[str, object] = {
        "label": ["ant", None],
        "predictive_entropy": [0.123456, None],
        "ood": {"p_value": [0.5, None], "flag": [False, None], "score": [1.0, 2.0]},
        "prediction_set": [["ant", "bee"], None],
        "decision": ["accept", "reject"],
        "quantiles": None,
    }
    assert _cells(outputs) == {
        "row": ["0", "1"],
        "label": ["ant", "null"],
        "predictive entropy": ["0.1235", "null"],
        "ood p value": ["0.5", "null"],
        "ood flag": ["False", "null"],
        "prediction set": ["ant, bee", "null"],
        "decision": ["accept", "reject"],
    }


def test_several_outputs_intervals_and_quantiles_are_shown() -> None:
    outputs: dict[str, object] = {
        "mean": [[1.0, 2.5]],
        "interval": {"lower": [[0.0, 1.0]], "upper": [[2.0, 4.0]]},
        "quantiles": {"0.1": [[0.25, 0.5]], "0.9": [[1.5, 3.0]]},
    }
    assert _cells(outputs) == {
        "row": ["0"],
        "mean": ["1, 2.5"],
        "interval lower": ["0, 1"],
        "interval upper": ["2, 4"],
        "quantiles 0.1": ["0.25, 0.5"],
        "quantiles 0.9": ["1.5, 3"],
    }


def test_positions_are_summed_up() -> None:
    tags = ["noun"] * 6 + ["verb"] * 3 + ["other"]
    outputs: dict[str, object] = {
        "label": [[tags[:5], tags[5:]]],
        "prediction_set": [[[["noun"], ["noun", "verb"]], [[], ["verb"]]]],
        "mean": [[[0.5, 0.5]]],
    }
    assert _cells(outputs) == {
        "row": ["0"],
        "label": ["noun 60 %, verb 30 %, other 10 %"],
        "prediction set": ["1 each"],
    }
    depth: dict[str, object] = {"mean": [[[[1.0], [2.0]], [[3.0], [None]], [[0.5], [9.0]]]]}
    assert _cells(depth)["mean"] == ["0.5 .. 9"]


def test_many_names_are_cut_and_the_probabilities_of_classes_leave_room_for_the_label() -> None:
    names = [f"label{index}" for index in range(12)]
    cells = _cells({"label": [names], "mean": [[0.5] * 12]})
    assert cells == {"row": ["0"], "label": ["label0, label1, label2 and 9 more"]}


def test_outputs_that_no_line_holds_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"got samples, .*: ask for --json"):
        table_of({"samples": [[[0.5, 0.5]]]})
