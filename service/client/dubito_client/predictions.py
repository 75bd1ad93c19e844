"""Predictions and selections: rows in, columns with their uncertainty, or chosen rows, out.

Replies of predictions are `.npz`, which has every bit of the server's arrays, infinite ends of
intervals too. What a row does not have is NaN, or None in a list.

Dimensions: T passes, B rows, C classes or labels, D outputs, P positions (one axis or more), L
tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from dubito_client.bodies import Rows, body_of, posted
from dubito_client.calls import (
    JSON,
    NPY,
    NPZ,
    Arrays,
    Call,
    Floats,
    Integers,
    model_path,
    of_json,
    page,
    read_npz,
)
from dubito_client.fields import PredictFields, SelectFields
from dubito_client.frames import DataFrame, frame_of


@dataclass(frozen=True)
class Interval:
    """Intervals of a regression, (B, D) each, in target units; an end may be infinite."""

    lower: Floats
    upper: Floats


@dataclass(frozen=True)
class OutOfDistribution:
    """Whether rows are unlike the held-out ones, (B,) each; NaN and false where unknown."""

    score: Floats
    p_value: Floats
    flag: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A prediction: what it was made with, and its columns, rows first.

    A column is None where it was not asked for, is of another task, or needs a calibration or
    passes that are not there (`warnings` says which). `arrays` has all of them as they were sent.
    Entropies and log-probabilities are in nats; those of a regression in target units.
    """

    model: str
    version: int
    num_samples: int
    seed: int
    masks: str
    draw: str
    method: str
    tolerance: float | None = None
    sites: str | list[int | str] = "all"
    precision: str = "float32"
    fit: int | None = None
    fallback: float | None = None
    calibration: int | None = None
    warnings: list[str] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    request_id: str | None = None
    ids: list[Any] | None = None
    agreement: Mapping[str, float] | None = None
    classes: list[str] | None = None
    arrays: Arrays = field(repr=False, default_factory=dict)

    mean: Floats | None = None
    variance: Floats | None = None
    standard_error: Floats | None = None
    num_samples_used: Integers | None = None
    predictive_entropy: Floats | None = None
    expected_entropy: Floats | None = None
    mutual_information: Floats | None = None
    mutual_information_corrected: Floats | None = None
    variation_ratio: Floats | None = None
    position_predictive_entropy: Floats | None = None
    position_expected_entropy: Floats | None = None
    position_mutual_information: Floats | None = None
    position_mutual_information_corrected: Floats | None = None
    position_variation_ratio: Floats | None = None
    position_variance: Floats | None = None
    position_standard_error: Floats | None = None
    position_epistemic_variance: Floats | None = None
    position_aleatoric_variance: Floats | None = None
    epistemic_variance: Floats | None = None
    aleatoric_variance: Floats | None = None
    normalised_mean: Floats | None = None
    normalised_variance: Floats | None = None
    num_tokens: Integers | None = None
    token_mean: Floats | None = None
    token_std: Floats | None = None
    samples: Floats | None = None
    quantiles: Mapping[str, Floats] | None = None
    interval: Interval | None = None
    ood: OutOfDistribution | None = None

    @cached_property
    def label(self) -> list[Any] | None:
        """The most probable class of each row, or position; of several labels those that are on."""
        array = self.arrays.get("label")
        return self._sets("label") if array is None or array.dtype == bool else _texts(array)

    @cached_property
    def prediction_set(self) -> list[Any] | None:
        """The classes that the promise of the coverage keeps, by row or position."""
        return self._sets("prediction_set")

    @cached_property
    def certain_set(self) -> list[Any] | None:
        """Of several labels, those that must be on."""
        return self._sets("certain_set")

    @cached_property
    def decision(self) -> list[str | None] | None:
        """`accept`, `review` or `reject` for each row."""
        array = self.arrays.get("decision")
        return None if array is None else _texts(array)

    @cached_property
    def method_used(self) -> list[str | None] | None:
        """Of method `distilled`: `distilled` or `mc`, which answered each row."""
        array = self.arrays.get("method_used")
        return None if array is None else _texts(array)

    def to_pandas(self) -> DataFrame:
        """The columns side by side, with the ids of the rows: a DataFrame of a line for each row.

        Raises:
            InputError: pandas is not installed.
        """
        return frame_of(self)

    def _sets(self, name: str) -> list[Any] | None:
        """Nested lists of names, for a column that says of each class whether it is in."""
        is_member = self.arrays.get(name)
        if is_member is None or self.classes is None:
            return None
        names = np.array(self.classes, dtype=object)
        flat = [names[member_C].tolist() for member_C in is_member.reshape(-1, len(names))]
        if self.mean is not None:  # NaN where the network overflowed, and there are no sets
            is_lost_N = np.asarray(np.isnan(self.mean).reshape(len(flat), -1).any(axis=1))
            flat = [None if lost else one for one, lost in zip(flat, is_lost_N, strict=True)]
        return _nested(flat, is_member.shape[1:-1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The rows to label next: positions in the pool, the best first, and their scores."""

    model: str
    version: int
    num_samples: int
    seed: int
    masks: str
    draw: str
    method: str
    strategy: str
    candidates: int
    indices: Integers
    scores: Floats
    sites: str | list[int | str] = "all"
    precision: str = "float32"
    fit: int | None = None
    fallback: float | None = None
    members: list[int] = field(default_factory=list)
    request_id: str | None = None
    ids: list[Any] | None = None


def predict(
    model: str,
    inputs: Rows,
    *,
    version: int | str | None = None,
    request_id: str | None = None,
    **fields: Unpack[PredictFields],
) -> Call[Prediction]:
    """Predict rows with their uncertainty.

    Args:
        model: its name.
        inputs: rows first; of several inputs an object of name → rows.
        version: number or alias; None: the alias `default`.
        request_id: a name for the request, 1 to 128 letters, digits, `.`, `_`, `:` and `-`, which
            feedback takes; None: a digest of the request, so that equal requests share theirs.
        fields: of the API, such as `num_samples=200, outputs=["mean", "ood"]`.

    Raises:
        DubitoError: as the server, or the connection, has it.
    """
    named = {} if request_id is None else {"X-Request-Id": request_id}
    return posted(
        model_path(model, version, "predict"),
        body_of({"inputs": inputs}, fields, kinds=(NPY, NPZ)),
        lambda response: prediction_of(response.content),
        headers={"Accept": NPZ, **named},
    )


def predict_pool(
    model: str,
    pool: str,
    *,
    version: int | str | None = None,
    format: str | None = None,
    **fields: Unpack[PredictFields],
) -> Call[str]:
    """Predict a stored pool by a job; returns its identifier.

    Args:
        model: its name.
        pool: name of the pool.
        version: number or alias; None: the alias `default`.
        format: of the result, `npz` (default) or `parquet`.
        fields: of the API.
    """
    return _submitted(model, version, "predict", {**fields, "pool": pool, "format": format})


def select(
    model: str,
    inputs: Rows,
    *,
    strategy: str,
    k: int,
    targets: Rows | None = None,
    version: int | str | None = None,
    **fields: Unpack[SelectFields],
) -> Call[Selection]:
    """Choose the k rows to label, or to try, next.

    Args:
        model: its name.
        inputs: the pool, rows first.
        strategy: its name, such as `bald`.
        k: number of rows to choose.
        targets: of `epig`, rows like those to be predicted later.
        version: number or alias; None: the alias `default`.
        fields: of the API, such as `exclude=[4, 17]`.
    """
    asked = {"strategy": strategy, "k": k, **_with_exclusions(fields)}
    body = body_of({"inputs": inputs, "targets": targets}, asked)
    return posted(model_path(model, version, "select"), body, page(Selection))


def select_pool(
    model: str,
    pool: str,
    *,
    strategy: str,
    k: int,
    targets: Rows | None = None,
    version: int | str | None = None,
    **fields: Unpack[SelectFields],
) -> Call[str]:
    """Choose rows of a stored pool by a job; returns its identifier. Arguments as of `select`."""
    asked = {"pool": pool, "strategy": strategy, "k": k, **_with_exclusions(fields)}
    return _submitted(model, version, "select", asked, targets)


def prediction_of(content: bytes) -> Prediction:
    """A prediction from the `.npz` of a reply, or of a job's result.

    Raises:
        LookupError, ValueError: it is another file.
    """
    arrays = read_npz(content)
    reply = json.loads(arrays.pop("reply").tobytes())
    classes = arrays.pop("classes", None)
    if "ids" in arrays:  # of a job
        reply["ids"] = arrays.pop("ids").tolist()
    columns: dict[str, object] = {**arrays}
    for name in [name for name in arrays if "." in name]:
        whole, _, part = name.partition(".")
        parts = columns.setdefault(whole, {})
        assert isinstance(parts, dict)
        parts[part] = columns.pop(name)
    named = {"arrays": arrays, "classes": None if classes is None else classes.tolist()}
    return of_json(Prediction, {**columns, **reply, **named})


def _submitted(
    model: str,
    version: int | str | None,
    action: str,
    asked: Mapping[str, object],
    targets: Rows | None = None,
) -> Call[str]:
    return posted(
        model_path(model, version, action),
        body_of({"targets": targets}, asked, kinds=(JSON,)),
        lambda response: str(response.json()["job"]),
        is_repeatable=False,
    )


def _with_exclusions(fields: SelectFields) -> dict[str, object]:
    """The fields, without an empty list of exclusions, which a query cannot write."""
    return {name: value for name, value in fields.items() if name != "exclude" or np.size(value)}  # type: ignore[arg-type]


def _texts(array: NDArray[np.generic]) -> list[Any]:
    """Nested lists of text, None where it is empty."""
    texts: list[Any] = _nested([text or None for text in array.ravel().tolist()], array.shape[1:])
    return texts


def _nested(flat: list[Any], sizes: tuple[int, ...]) -> list[Any]:
    """A flat list as lists of lists, for the axes after the first."""
    for size in reversed(sizes):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat
