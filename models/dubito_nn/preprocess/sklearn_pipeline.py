"""A fitted pipeline of scikit-learn as a table that a bundle can declare.

Its job: follow every column through the steps. What scales is one affine function per number that a
column gives, and functions compose: ((x - m) / s - n) / t = (x - (m + n s)) / (s t). Steps are told
by their class and read off their fitted attributes; scikit-learn itself is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from dubito_nn.errors import ExportError
from dubito_nn.preprocess.columns import Category, Number, Value
from dubito_nn.preprocess.parts import TableInput


@dataclass(frozen=True)
class _Raw:
    """A column that no step has made numbers of; `missing` stands where a cell is empty."""

    name: str
    missing: Value = None
    width: int = 1


_Track: TypeAlias = _Raw | Number | Category
_Step: TypeAlias = Any  # of scikit-learn, fitted


def from_sklearn(pipeline: object, *, input: str | None = None) -> TableInput:
    """Declare the table that a fitted pipeline of scikit-learn makes numbers of.

    Args:
        pipeline: fitted on a DataFrame: StandardScaler, MinMaxScaler, SimpleImputer,
            OneHotEncoder, OrdinalEncoder, or a Pipeline or ColumnTransformer of these.
        input: of the network, which reads the numbers; None: its only one.

    Raises:
        ExportError: naming the step that is none of these, or the option of one that has no
            declaration.
    """
    names = getattr(pipeline, "feature_names_in_", None)
    if names is None:
        raise ExportError(
            "from_sklearn expects a pipeline that was fitted on a DataFrame, whose columns have"
            f" names, got {type(pipeline).__name__} without them: fit it so"
        )
    tracks = _applied(pipeline, [_Raw(str(name)) for name in names])
    return TableInput(tuple(replace(_finished(track), input=input) for track in tracks))


def _applied(step: _Step, tracks: list[_Track]) -> list[_Track]:
    """The columns behind a step."""
    kind, module = type(step).__name__, type(step).__module__
    if step is None or step == "passthrough":
        return tracks
    if not module.startswith("sklearn.") or kind not in _STEPS:
        raise ExportError(
            f"from_sklearn expects {', '.join(_STEPS)}, got {kind} of {module}: do what it does"
            " within the network, or before the rows are sent"
        )
    return _STEPS[kind](step, tracks)


def _pipeline(step: _Step, tracks: list[_Track]) -> list[_Track]:
    for _, inner in step.steps:
        tracks = _applied(inner, tracks)
    return tracks


def _column_transformer(step: _Step, tracks: list[_Track]) -> list[_Track]:
    _refuse(step, "transformer_weights")
    if any(not isinstance(track, _Raw) for track in tracks):
        raise ExportError(
            "from_sklearn expects a ColumnTransformer before all that makes numbers, got one"
            " behind: put it first"
        )
    made: list[_Track] = []
    for _, inner, columns in step.transformers_:
        if not isinstance(inner, str) or inner != "drop":
            made += _applied(inner, [tracks[index] for index in _indices(columns, tracks)])
    return made


def _indices(columns: object, tracks: Sequence[_Track]) -> list[int]:
    """Positions of columns, named in one of the ways of a ColumnTransformer."""
    names = [track.name for track in tracks]
    if isinstance(columns, slice):
        return list(range(len(names)))[columns]
    several = [columns] if isinstance(columns, str | int) else list(columns)  # type: ignore[call-overload]
    if several and all(isinstance(column, bool | np.bool_) for column in several):
        return [index for index, is_in in enumerate(several) if is_in]
    return [
        names.index(column) if isinstance(column, str) else range(len(names))[int(column)]
        for column in several
    ]


def _function(step: _Step, tracks: list[_Track]) -> list[_Track]:
    if step.func is not None:
        raise ExportError(
            "from_sklearn expects steps that are data, got a FunctionTransformer with a function:"
            " do what it does within the network, or before the rows are sent"
        )
    return tracks


def _imputer(step: _Step, tracks: list[_Track]) -> list[_Track]:
    _refuse(step, "add_indicator")
    if not _is_missing(step.missing_values):
        raise ExportError(
            "from_sklearn expects a SimpleImputer of missing cells, got missing_values ="
            f" {step.missing_values!r}: write them as missing"
        )
    if any(_is_missing(value) for value in step.statistics_):
        raise ExportError("from_sklearn expects columns with values, got one that had none")
    return [
        _imputed(track, [_plain(value) for value in values])
        for track, values in _parts(tracks, step.statistics_)
    ]


def _imputed(track: _Track, values: Sequence[Value]) -> _Track:
    value = values[0]
    if isinstance(track, Category) and track.encoding == "one_hot":
        return track  # in which nothing is missing
    if isinstance(track, Category):
        (mean,), (scale,) = track.mean or (0.0,), track.scale or (1.0,)
        code = float(value) * scale + mean  # type: ignore[arg-type]
        if track.missing_code is not None and math.isnan(track.missing_code):
            track = replace(track, missing_code=code)
        if track.unknown_code is not None and math.isnan(track.unknown_code):
            track = replace(track, unknown_code=code)
        return track
    if track.missing is not None:
        return track
    if isinstance(track, Number):
        value = float(value) * track.scale + track.mean  # type: ignore[arg-type]
        return replace(track, missing=value)
    return replace(track, missing=value)


def _standard(step: _Step, tracks: list[_Track]) -> list[_Track]:
    count = sum(track.width for track in tracks)
    mean = step.mean_ if step.with_mean else np.zeros(count)
    scale = step.scale_ if step.with_std else np.ones(count)
    return _scaled(tracks, mean, scale)


def _min_max(step: _Step, tracks: list[_Track]) -> list[_Track]:
    _refuse(step, "clip")
    return _scaled(tracks, -step.min_ / step.scale_, 1 / step.scale_)


def _scaled(tracks: list[_Track], mean: Iterable[float], scale: Iterable[float]) -> list[_Track]:
    """Columns of which (y - mean) / scale is taken."""
    parts = zip(_parts(tracks, mean), _parts(tracks, scale), strict=True)
    return [_affine(track, means, scales) for (track, means), (_, scales) in parts]


def _affine(track: _Track, means: Sequence[float], scales: Sequence[float]) -> _Track:
    if isinstance(track, _Raw):
        track = _finished(track)
    first = track.mean if isinstance(track, Category) else (track.mean,)
    units = track.scale if isinstance(track, Category) else (track.scale,)
    first, units = first or (0.0,) * track.width, units or (1.0,) * track.width
    mean = tuple(float(m + n * s) for m, s, n in zip(first, units, means, strict=True))
    scale = tuple(float(s * t) for s, t in zip(units, scales, strict=True))
    if isinstance(track, Category):
        return replace(track, mean=mean, scale=scale)
    return replace(track, mean=mean[0], scale=scale[0])


def _one_hot(step: _Step, tracks: list[_Track]) -> list[_Track]:
    for option in ("drop", "min_frequency", "max_categories"):
        _refuse(step, option)
    unknown = "refuse" if step.handle_unknown == "error" else "zeros"
    return [
        Category(track.name, values, "one_hot", unknown, track.missing)  # type: ignore[arg-type]
        for track, values in _categories(step, tracks)
    ]


def _ordinal(step: _Step, tracks: list[_Track]) -> list[_Track]:
    for option in ("min_frequency", "max_categories"):
        _refuse(step, option)
    is_refused = step.handle_unknown == "error"
    return [
        Category(
            track.name,
            values,
            unknown="refuse" if is_refused else "other",
            missing=track.missing,
            unknown_code=None if is_refused else float(step.unknown_value),
            missing_code=float(step.encoded_missing_value) if None in values else None,
        )
        for track, values in _categories(step, tracks)
    ]


def _categories(step: _Step, tracks: list[_Track]) -> list[tuple[_Raw, tuple[Value, ...]]]:
    """Columns with their categories in order."""
    found = []
    for track, categories in zip(tracks, step.categories_, strict=True):
        if not isinstance(track, _Raw):
            raise ExportError(
                f"from_sklearn expects categories as they come, got {type(step).__name__} behind a"
                f" step that makes numbers of `{track.name}`: put it before"
            )
        found.append((track, tuple(map(_plain, categories))))
    return found


def _finished(track: _Track) -> Number | Category:
    """A column as it is declared."""
    if isinstance(track, _Raw):
        if isinstance(track.missing, str):
            raise ExportError(
                f"from_sklearn expects steps that make numbers of every column, got none for"
                f" `{track.name}`: encode its categories"
            )
        missing = None if track.missing is None else float(track.missing)
        return Number(track.name, missing=missing)
    if isinstance(track, Category):
        if track.missing_code is not None and math.isnan(track.missing_code):
            raise ExportError(
                f"from_sklearn expects a number for missing cells of `{track.name}`, got NaN:"
                " impute them, or set encoded_missing_value"
            )
        if track.unknown_code is not None and math.isnan(track.unknown_code):
            return replace(track, unknown="refuse", unknown_code=None)
    return track


def _parts(tracks: list[_Track], numbers: Iterable[Any]) -> list[tuple[_Track, list[Any]]]:
    """Columns, each with its part of what a step has for every number."""
    left = list(numbers)
    if len(left) != sum(track.width for track in tracks):
        raise ExportError(
            f"from_sklearn expects steps of {sum(track.width for track in tracks)} numbers, got"
            f" one of {len(left)}: fit the pipeline as a whole"
        )
    parts = []
    for track in tracks:
        parts.append((track, left[: track.width]))
        left = left[track.width :]
    return parts


def _refuse(step: _Step, option: str) -> None:
    if getattr(step, option, None):
        raise ExportError(
            f"from_sklearn expects {type(step).__name__} without `{option}`, got"
            f" {str(getattr(step, option))[:40]}: leave it out"
        )


def _is_missing(value: object) -> bool:
    """Whether a value says that there is none: None, NaN, or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or value != value


def _plain(value: object) -> Value:
    if _is_missing(value):
        return None
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int | float | bool):
        raise ExportError(
            f"from_sklearn expects categories of text or numbers, got {type(plain).__name__}"
        )
    return plain


_STEPS: dict[str, Callable[[_Step, list[_Track]], list[_Track]]] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "SimpleImputer": _imputer,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _ordinal,
    "FunctionTransformer": _function,
}
