"""A fitted pipeline of scikit-learn, declared, gives scikit-learn's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

from dubito.preprocess.frames import read_frame
from dubito.preprocess.table import TableKind
from dubito_nn import ExportError, InputSpec, preprocess

CODED: Any = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
PLACES: Any = {"handle_unknown": "ignore", "sparse_output": False}
NUMBERS, WORDS = ["age", "income"], ["job", "grade"]


def _frame(count: int, seed: int, others: tuple[str, ...] = ()) -> pd.DataFrame:
    """People, some with empty cells; with `others` also categories that were not there before."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": random.normal(40, 10, count),
            "income": random.exponential(1000, count),
            "job": random.choice(["nurse", "teacher", "clerk", *others], count),
            "grade": random.choice(["a", "b", "c", *others], count),
            "rooms": random.integers(1, 6, count),
        }
    )
    for name in (*NUMBERS, *WORDS):
        table.loc[random.random(count) < 0.1, name] = None
    return table


def _numbers() -> Pipeline:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


PIPELINES: dict[str, Any] = {
    "imputed, scaled and encoded": ColumnTransformer(
        [("numbers", _numbers(), NUMBERS), ("words", OneHotEncoder(**PLACES), WORDS)],
        remainder="passthrough",
    ),
    "scaled once more behind all": Pipeline(
        [
            (
                "columns",
                ColumnTransformer(
                    [
                        ("few", make_pipeline(SimpleImputer(), MinMaxScaler((-1, 3))), ["income"]),
                        ("words", OneHotEncoder(**PLACES), ["job"]),
                        (
                            "grade",
                            make_pipeline(
                                SimpleImputer(strategy="most_frequent"), OrdinalEncoder(**CODED)
                            ),
                            ["grade"],
                        ),
                        ("left", "drop", ["rooms"]),
                    ]
                ),
            ),
            ("scaled", StandardScaler()),
        ]
    ),
    "imputed after scaling": ColumnTransformer(
        [
            ("age", make_pipeline(StandardScaler(with_mean=False), SimpleImputer()), ["age"]),
            ("job", OrdinalEncoder(**CODED, encoded_missing_value=-2), ["job"]),
            (
                "grade",
                make_pipeline(
                    OrdinalEncoder(**{**CODED, "unknown_value": np.nan}),
                    SimpleImputer(strategy="constant", fill_value=7),
                    StandardScaler(),
                ),
                make_column_selector(pattern="grade"),
            ),
            ("rooms", FunctionTransformer(), [4]),
        ]
    ),
    "filled with a word": ColumnTransformer(
        [
            (
                "words",
                make_pipeline(
                    SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(**PLACES)
                ),
                slice(2, 4),
            ),
            ("rooms", OneHotEncoder(**PLACES), [False] * 4 + [True]),
        ]
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_gives_the_same_numbers_to_a_millionth(name: str) -> None:
    pipeline = PIPELINES[name].fit(_frame(500, seed=1))
    table = preprocess.from_sklearn(pipeline, input="x")
    people = _frame(1000, seed=2, others=("pilot",))
    wanted = np.asarray(pipeline.transform(people), np.float64)
    assert not np.isnan(wanted).any()
    kind = TableKind()
    frame = read_frame(people, kind.needs(table))
    specs = {"x": InputSpec("x", "float64", (wanted.shape[1],))}
    found = kind.make(table, frame.columns, specs, [])["x"]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("pipeline", "columns", "reason"),
    [
        (RobustScaler(), NUMBERS, "got RobustScaler"),
        (make_pipeline(SimpleImputer(), RobustScaler()), NUMBERS, "got RobustScaler"),
        (FunctionTransformer(np.log1p), NUMBERS, "with a function"),
        (SimpleImputer(add_indicator=True), NUMBERS, "without `add_indicator`"),
        (SimpleImputer(missing_values=-1), ["rooms"], "missing_values = -1"),
        (MinMaxScaler(clip=True), NUMBERS, "without `clip`"),
        (OneHotEncoder(drop="first"), WORDS, "without `drop`"),
        (OneHotEncoder(min_frequency=5), WORDS, "without `min_frequency`"),
        (OrdinalEncoder(max_categories=2, **CODED), WORDS, "without `max_categories`"),
        (OrdinalEncoder(**CODED), WORDS, "encoded_missing_value"),
        (SimpleImputer(strategy="most_frequent"), WORDS, "encode its categories"),
        (
            ColumnTransformer([("a", StandardScaler(), ["age"])], transformer_weights={"a": 2.0}),
            NUMBERS,
            "without `transformer_weights`",
        ),
        (make_pipeline(SimpleImputer(), OrdinalEncoder(), OneHotEncoder()), ["rooms"], "before"),
    ],
)
def test_what_has_no_declaration_is_refused_by_name(
    pipeline: Any, columns: list[str], reason: str
) -> None:
    fitted = pipeline.fit(_frame(100, seed=1)[columns])
    with pytest.raises(ExportError, match=reason):
        preprocess.from_sklearn(fitted)


def test_columns_need_names() -> None:
    with pytest.raises(ExportError, match="fitted on a DataFrame"):
        preprocess.from_sklearn(StandardScaler().fit(np.ones((3, 2))))


class Own(StandardScaler):
    """A class that nobody but its author knows what it does."""


def test_a_class_derived_from_a_known_one_is_refused() -> None:
    with pytest.raises(ExportError, match="got Own"):
        preprocess.from_sklearn(Own().fit(_frame(20, 1)[["rooms"]]))
