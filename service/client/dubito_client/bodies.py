"""What callers give as rows and truths, as a body: `.npy` or `.npz` for numbers, else JSON.

Arrays go as they are, bit by bit, whatever their byte order or layout. Lists of numbers become
arrays; other lists (ragged, of text, records, images) go as JSON, and the server says what it makes
of them. Equal requests have equal bytes, since the server tells requests apart by them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from dubito_client.calls import JSON, NPY, NPZ, Arrays, Call
from dubito_client.errors import InputError
from dubito_client.images import is_image, text_of

T = TypeVar("T")
_KINDS = "biufU"  # booleans, integers, floats, text
_LONGEST_QUERY = 7000  # servers and proxies bound the first line of a request


class HasArray(Protocol):
    """Whatever numpy can read: an array, a DataFrame, a tensor of torch."""

    def __array__(self) -> NDArray[np.generic]:
        """Its array."""


Value: TypeAlias = HasArray | Sequence[object]
Rows: TypeAlias = Value | Mapping[str, Value]


@dataclass(frozen=True)
class Body:
    """A body, its content type, and the fields that stand beside it."""

    content: bytes
    kind: str
    query: Mapping[str, str]


def posted(
    path: str,
    body: Body,
    read: Callable[[httpx.Response], T],
    *,
    headers: Mapping[str, str] | None = None,
    is_repeatable: bool = True,
) -> Call[T]:
    """A call that asks the network something of rows; arguments as of `Call`."""
    return Call(
        method="POST",
        path=path,
        read=read,
        query=body.query,
        headers={"Content-Type": body.kind, **(headers or {})},
        body=body.content,
        is_repeatable=is_repeatable,
        computes=True,
    )


def told(
    method: str,
    path: str,
    content: Mapping[str, object],
    read: Callable[[httpx.Response], T],
    *,
    headers: Mapping[str, str] | None = None,
    is_repeatable: bool = True,
) -> Call[T]:
    """A call with a small JSON body; arguments as of `Call`."""
    return Call(
        method=method,
        path=path,
        read=read,
        headers={"Content-Type": JSON, **(headers or {})},
        body=to_json(content),
        is_repeatable=is_repeatable,
    )


def body_of(
    rows: Mapping[str, Rows | None],
    asked: Mapping[str, object],
    *,
    kinds: tuple[str, ...] = (NPZ,),
) -> Body:
    """The body of a request.

    Args:
        rows: by the name of the field (`inputs`, `labels`, ...); one that is None is left out. A
            DataFrame with columns of text, truth values or times is a table; one of numbers alone
            is an array, unless `preprocess` is true.
        asked: all other fields; one that is None is left out.
        kinds: content types that the route reads beside JSON; one that reads `.npy` takes inputs
            alone, several of them in a `.npz` under their own names.

    Raises:
        InputError: what cannot be sent.
    """
    if isinstance(asked.get("label"), str):  # one column
        asked = {**asked, "label": [asked["label"]]}
    is_table = asked.get("preprocess") is True
    given = {
        name: _prepared(name, columns_of(value, is_table=is_table))
        for name, value in rows.items()
        if value is not None
    }
    known = {name: _plain(value) for name, value in asked.items() if value is not None}
    arrays = dict(_arrays(given))
    query = {name: _text(value) for name, value in known.items()}
    is_long = sum(map(len, [*query, *query.values()])) > _LONGEST_QUERY
    is_json = kinds == (JSON,) or not arrays or len(arrays) < _num_parts(given)
    if is_json or is_long or "" in query.values() or _reads_otherwise(known.get("sites")):
        return Body(
            to_json({**{name: _plain(one) for name, one in given.items()}, **known}), JSON, {}
        )
    if NPY in kinds and list(arrays) == ["inputs"]:
        return Body(_npy(arrays["inputs"]), NPY, query)
    if NPY in kinds:
        arrays = {name.removeprefix("inputs."): array for name, array in arrays.items()}
    return Body(to_npz(arrays), NPZ, query)


def columns_of(value: Rows, *, is_table: bool) -> Rows:
    """The columns of a DataFrame that is a table, an empty cell being None; else what it was.

    Args:
        value: of any kind.
        is_table: whether one of numbers alone is a table as well.
    """
    names = getattr(value, "columns", None)
    if names is None or not hasattr(value, "__arrow_c_stream__"):
        return value
    frame: Any = value
    columns = {str(name): frame[name].to_numpy() for name in names}
    if not is_table and all(column.dtype.kind in "iuf" for column in columns.values()):
        return value
    return {name: _cells(column) for name, column in columns.items()}


def _cells(column: NDArray[Any]) -> list[object]:
    """The cells of a column as JSON has them; an empty one is None, times are text."""
    is_time = column.dtype.kind == "M"
    cells = column.astype("datetime64[us]").tolist() if is_time else column.tolist()
    return [_cell(cell) for cell in cells]


def _cell(cell: Any) -> object:
    if cell is None or type(cell).__name__ in ("NAType", "NaTType") or cell != cell:
        return None
    return cell.isoformat() if hasattr(cell, "isoformat") else cell


def array_of(name: str, value: Value) -> NDArray[np.generic]:
    """An array of numbers or text, without a copy where it is one already.

    Raises:
        InputError: Python objects, hidden values, or numbers that nothing here can send.
    """
    if np.ma.is_masked(value):
        raise InputError(
            f"`{name}`: expected all values, got a masked array: fill it, with .filled(...), or "
            "leave the rows out"
        )
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise InputError(
            f"`{name}`: expected an array of numbers or text, got dtype {array.dtype} of shape "
            f"{array.shape}: convert it, with .astype(float) or .astype(str) for instance"
        )
    return array


def to_npz(arrays: Arrays) -> bytes:
    """A `.npz` file without a time in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)
    return file.getvalue()


def to_json(content: Mapping[str, object]) -> bytes:
    """JSON, which has no NaN.

    Raises:
        InputError: a number is not finite, or something is no JSON.
    """
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as error:
        raise InputError(
            f"expected finite numbers, text, lists and objects of them, got something else "
            f"({str(error)[:160]}): leave such rows out, or convert them"
        ) from error


def _prepared(name: str, value: Rows) -> object:
    """Arrays of what has them, the rest as it is."""
    if isinstance(value, Mapping):
        return {key: _prepared(f"{name}.{key}", part) for key, part in value.items()}
    if isinstance(value, list | tuple) and any(map(is_image, value)):
        return [text_of(entry) if is_image(entry) else entry for entry in value]
    is_truth = name == "labels"
    if not hasattr(value, "__array__"):
        return _numbers(value, is_truth=is_truth)
    array = np.asarray(value)
    if not is_truth and array.dtype.kind in "UO" and _types(array.tolist()) == {str}:
        return array.tolist()  # texts, which the server reads as JSON
    if name == "labels" and array.dtype == object and _types(array.tolist()) == {str}:
        return array.astype(str)  # pandas' columns of text
    return array_of(name, value)


def _numbers(value: object, *, is_truth: bool) -> object:
    """A list as an array where that means the same, and as it is where types are mixed in it."""
    types = _types(value) if isinstance(value, list | tuple) else set()
    is_text = is_truth and types in ({str}, {np.str_})
    is_numpys = all(issubclass(kind, np.ndarray | np.number) for kind in types)
    if not types or not (is_text or is_numpys or types <= {int, float}):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return value
    is_names = is_text and array.ndim == 1
    return array if is_names or array.dtype.kind in "iuf" else value


def _types(value: object) -> set[type]:
    """The types of what nested lists hold."""
    types, level = set(), [value]
    while level:
        lists = [entry for entry in level if isinstance(entry, list | tuple)]
        types |= {type(entry) for entry in level if not isinstance(entry, list | tuple)}
        level = [entry for inner in lists for entry in inner]
    return types


def _arrays(given: Mapping[str, object]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """All arrays among the fields; those of an object by name and key."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _arrays({f"{name}.{key}": part for key, part in value.items()})
        elif isinstance(value, np.ndarray):
            yield name, value


def _num_parts(given: Mapping[str, object]) -> int:
    return sum(len(value) if isinstance(value, Mapping) else 1 for value in given.values())


def _plain(value: object) -> object:
    """What JSON can say of a field."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def _text(value: object) -> str:
    """What a query can say of a field."""
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reads_otherwise(sites: object) -> bool:
    """Whether a query would take a pattern for a number, a name or several patterns."""
    patterns = [one for one in sites if isinstance(one, str)] if isinstance(sites, list) else []
    return any(one.isdigit() or one in ("all", "last") or "," in one for one in patterns)


def _npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
