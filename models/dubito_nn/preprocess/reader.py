"""Read what a bundle declares of its inputs, trust nothing of it, and hold it against the inputs.

Its job: `read_preprocess`, which checks every field of parsed JSON before it makes the parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, get_args

from dubito_nn.errors import BundleError
from dubito_nn.preprocess.columns import (
    Boolean,
    Category,
    Column,
    Date,
    Encoding,
    Number,
    TimeUnit,
    Unknown,
    Value,
)
from dubito_nn.preprocess.image_reader import check_image, read_image
from dubito_nn.preprocess.images import ImageInput
from dubito_nn.preprocess.parts import ArrayInput, Part, Seen, TableInput
from dubito_nn.preprocess.text import Side, TextInput, Truncation
from dubito_nn.strict_fields import (
    read_integer,
    read_number,
    read_one_of,
    read_optional,
    read_table,
    read_text,
    read_tuple,
)

if TYPE_CHECKING:
    from dubito_nn.manifest import InputSpec

MAX_COLUMNS = 4096
MAX_VALUES = 100_000
"""Most categories of one column."""
MAX_PARTS = 64
MAX_PIECES = 2**20
"""Of a text."""
_DIGEST = re.compile("[0-9a-f]{64}")
_MAX_NAME = 200
_WHERE = "manifest: preprocess"


def read_preprocess(raw: object, inputs: Sequence[InputSpec]) -> tuple[Part, ...] | None:
    """Read the parts that make the inputs, from parsed JSON.

    Args:
        raw: a list of parts; None: nothing is declared.
        inputs: of the network.

    Raises:
        BundleError: naming the first field that breaks a rule.
    """
    if raw is None:
        return None
    parts = read_tuple(raw, _part, MAX_PARTS, _WHERE)
    specs = {spec.name: spec for spec in inputs}
    made = [name for part in parts for name in part.inputs]
    if sorted(map(str, made)) != sorted(specs) or None in made:
        raise BundleError(
            f"{_WHERE} expects every input of {sorted(specs)} to be made once, got {made[:64]}"
        )
    if sum(part.kind == "table" for part in parts) > 1:
        raise BundleError(f"{_WHERE} expects one table at most, got several: join their columns")
    if len({part.tokenizer for part in parts if isinstance(part, TextInput)}) > 1:
        raise BundleError(f"{_WHERE} expects one tokenizer for all texts, got several")
    for part in parts:
        if isinstance(part, TextInput):
            _check_text(part, specs)
        elif isinstance(part, TableInput):
            _check_table(part, specs)
        elif isinstance(part, ImageInput):
            check_image(part, specs[str(part.input)], _WHERE)
        else:
            _check_array(part, specs[str(part.input)])
    return parts


def _part(raw: object, where: str) -> Part:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    return _PARTS[read_one_of(kind, tuple(_PARTS), f"{where}: kind")](raw, where)


def _table(raw: object, where: str) -> TableInput:
    table = read_table(raw, TableInput, where)
    columns = read_tuple(table["columns"], _column, MAX_COLUMNS, f"{where}: columns")
    if not columns:
        raise BundleError(f"{where}: columns expects at least one")
    return TableInput(columns)


def _array(raw: object, where: str) -> ArrayInput:
    table = read_table(raw, ArrayInput, where)
    return ArrayInput(
        scale=_factors(table["scale"], f"{where}: scale"),
        shift=_factors(table["shift"], f"{where}: shift"),
        input=read_optional(table["input"], _name, f"{where}: input"),
        seen=read_optional(table["seen"], _seen, f"{where}: seen"),
    )


def _text(raw: object, where: str) -> TextInput:
    table = read_table(raw, TextInput, where)
    if not isinstance(table["special_tokens"], bool):
        raise BundleError(f"{where}: special_tokens expects true or false")
    return TextInput(
        tokenizer=_sha256(table["tokenizer"], f"{where}: tokenizer"),
        max_length=read_integer(table["max_length"], 1, MAX_PIECES, f"{where}: max_length"),
        name=_name(table["name"], f"{where}: name"),
        pair=read_optional(table["pair"], _name, f"{where}: pair"),
        special_tokens=table["special_tokens"],
        truncation=read_one_of(table["truncation"], get_args(Truncation), f"{where}: truncation"),
        truncation_side=read_one_of(table["truncation_side"], get_args(Side), f"{where}: side"),
        length=read_optional(table["length"], _length, f"{where}: length"),
        padding_side=read_one_of(table["padding_side"], get_args(Side), f"{where}: padding_side"),
        pad_id=read_integer(table["pad_id"], 0, 2**31 - 1, f"{where}: pad_id"),
        pad_type_id=read_integer(table["pad_type_id"], 0, 255, f"{where}: pad_type_id"),
        ids=read_optional(table["ids"], _name, f"{where}: ids"),
        mask=read_optional(table["mask"], _name, f"{where}: mask"),
        type_ids=read_optional(table["type_ids"], _name, f"{where}: type_ids"),
    )


_PARTS: dict[str, Callable[[object, str], Part]] = {
    "table": _table,
    "array": _array,
    "text": _text,
    "image": read_image,
}


def _column(raw: object, where: str) -> Column:
    kind = raw.get("type") if isinstance(raw, dict) else None
    return _COLUMNS[read_one_of(kind, tuple(_COLUMNS), f"{where}: type")](raw, where)


def _number(raw: object, where: str) -> Number:
    table = read_table(raw, Number, where)
    return Number(
        name=_name(table["name"], f"{where}: name"),
        mean=read_number(table["mean"], f"{where}: mean"),
        scale=_scale(table["scale"], f"{where}: scale"),
        missing=read_optional(table["missing"], read_number, f"{where}: missing"),
        input=read_optional(table["input"], _name, f"{where}: input"),
    )


def _category(raw: object, where: str) -> Category:
    table = read_table(raw, Category, where)
    column = Category(
        name=_name(table["name"], f"{where}: name"),
        values=read_tuple(table["values"], _value, MAX_VALUES, f"{where}: values"),
        encoding=read_one_of(table["encoding"], get_args(Encoding), f"{where}: encoding"),
        unknown=read_one_of(table["unknown"], get_args(Unknown), f"{where}: unknown"),
        missing=_value(table["missing"], f"{where}: missing"),
        unknown_code=read_optional(table["unknown_code"], read_number, f"{where}: unknown_code"),
        missing_code=read_optional(table["missing_code"], read_number, f"{where}: missing_code"),
        mean=read_optional(table["mean"], _several(read_number), f"{where}: mean"),
        scale=read_optional(table["scale"], _several(_scale), f"{where}: scale"),
        input=read_optional(table["input"], _name, f"{where}: input"),
    )
    _check_category(column, where)
    return column


def _check_category(column: Category, where: str) -> None:
    values = column.values
    texts = [value for value in values if isinstance(value, str)]
    others = [value for value in values if value is not None and not isinstance(value, str)]
    if not values or len(set(values)) != len(values):  # 1, 1.0 and true are one number
        raise BundleError(f"{where}: values expects at least one, all different")
    if texts and others:
        raise BundleError(f"{where}: values expects text or numbers, got both")
    is_text = isinstance(column.missing, str)
    if column.missing is not None and is_text != bool(texts):
        raise BundleError(f"{where}: missing expects a value like the others")
    if column.unknown == "zeros" and column.encoding == "index":
        raise BundleError(f"{where}: unknown expects `refuse` or `other` for an index")
    for key, has_place in (("unknown_code", column.unknown == "other"), ("missing_code", True)):
        if getattr(column, key) is not None and not (has_place and column.encoding == "index"):
            raise BundleError(f"{where}: {key} expects null, or an index with such a place")
    for key in ("mean", "scale"):
        numbers = getattr(column, key)
        if numbers is not None and len(numbers) != column.width:
            raise BundleError(f"{where}: {key} expects {column.width} numbers, got {len(numbers)}")


def _boolean(raw: object, where: str) -> Boolean:
    table = read_table(raw, Boolean, where)
    missing = table["missing"]
    if missing is not None and not isinstance(missing, bool):
        raise BundleError(f"{where}: missing expects true, false or null")
    return Boolean(
        name=_name(table["name"], f"{where}: name"),
        missing=missing,
        input=read_optional(table["input"], _name, f"{where}: input"),
    )


def _date(raw: object, where: str) -> Date:
    table = read_table(raw, Date, where)
    return Date(
        name=_name(table["name"], f"{where}: name"),
        origin=_time(table["origin"], f"{where}: origin"),
        unit=read_one_of(table["unit"], get_args(TimeUnit), f"{where}: unit"),
        mean=read_number(table["mean"], f"{where}: mean"),
        scale=_scale(table["scale"], f"{where}: scale"),
        missing=read_optional(table["missing"], _time, f"{where}: missing"),
        input=read_optional(table["input"], _name, f"{where}: input"),
    )


_COLUMNS: dict[str, Callable[[object, str], Column]] = {
    "number": _number,
    "category": _category,
    "boolean": _boolean,
    "date": _date,
}


def _check_table(part: TableInput, specs: Mapping[str, InputSpec]) -> None:
    for name in part.inputs:
        spec = specs[str(name)]
        width = sum(column.width for column in part.columns if column.input == name)
        if spec.shape != (width,) and not (spec.shape == () and width == 1):
            raise BundleError(
                f"{_WHERE}: the columns of input `{name}` give rows of shape ({width},), the"
                f" network takes {spec.shape}"
            )


def _check_array(part: ArrayInput, spec: InputSpec) -> None:
    last = spec.shape[-1] if spec.shape else None
    for key in ("scale", "shift"):
        numbers = getattr(part, key)
        if isinstance(numbers, tuple) and len(numbers) != last:
            raise BundleError(
                f"{_WHERE}: {key} of input `{spec.name}` expects a number, or one for each of the"
                f" {last} places of its last axis, got {len(numbers)}"
            )
    if part.seen is not None:
        places = 1 if len(spec.shape) != 1 else last
        if any(len(half) not in (1, places) for half in part.seen):
            raise BundleError(f"{_WHERE}: seen of input `{spec.name}` expects {places} numbers")


def _check_text(part: TextInput, specs: Mapping[str, InputSpec]) -> None:
    where, axes = f"{_WHERE}: the text `{part.name}`", set()
    if part.pair == part.name or (part.pair is None and part.truncation == "only_second"):
        raise BundleError(f"{where} expects two columns of a pair, got one")
    for name in map(str, part.inputs):
        if len(specs[name].shape) != 1:
            raise BundleError(f"{where} gives rows of one axis, `{name}` takes {specs[name].shape}")
        axes.add(specs[name].shape[0])
    if not specs[str(part.ids)].dtype.startswith("int"):
        raise BundleError(f"{where} gives whole numbers, `{part.ids}` takes other ones")
    fixed = [size for size in axes if isinstance(size, int)]
    if len(axes) > 1 or any(size != part.length for size in fixed):
        raise BundleError(f"{where} expects the length that the inputs take, {sorted(axes)}")
    if part.length is not None and part.max_length > part.length:
        raise BundleError(f"{where} expects a max_length of at most its length, {part.length}")


def _length(raw: object, where: str) -> int:
    return read_integer(raw, 1, MAX_PIECES, where)


def _sha256(raw: object, where: str) -> str:
    text = read_text(raw, where)
    if not _DIGEST.fullmatch(text):
        raise BundleError(f"{where}: expects the SHA-256 of the entry")
    return text


def _seen(raw: object, where: str) -> Seen:
    low, *others = read_tuple(raw, _several(read_number), 2, where) or ((),)
    if len(others) != 1 or len(low) != len(others[0]) or not low:
        raise BundleError(f"{where}: expects two lists of equally many numbers")
    high = others[0]
    if any(least > most for least, most in zip(low, high, strict=True)):
        raise BundleError(f"{where}: expects no least value above its greatest")
    return low, high


def _factors(raw: object, where: str) -> float | tuple[float, ...]:
    return _several(read_number)(raw, where) if isinstance(raw, list) else read_number(raw, where)


def _several(
    read: Callable[[object, str], float],
) -> Callable[[object, str], tuple[float, ...]]:
    return lambda raw, where: read_tuple(raw, read, MAX_VALUES, where)


def _scale(raw: object, where: str) -> float:
    number = read_number(raw, where)
    if not math.isfinite(1 / number if number else math.inf):
        raise BundleError(f"{where}: expects a number other than 0, got {number}")
    return number


def _name(raw: object, where: str) -> str:
    name = read_text(raw, where)
    if not 0 < len(name) <= _MAX_NAME:
        raise BundleError(f"{where}: expects a name of 1 to {_MAX_NAME} characters")
    return name


def _value(raw: object, where: str) -> Value:
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        return read_text(raw, where)
    read_number(raw, where)
    assert isinstance(raw, int | float)
    return raw


def _time(raw: object, where: str) -> str:
    text = read_text(raw, where)
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise BundleError(f"{where}: expects a time in ISO 8601, got {text[:40]!r}") from error
    return text
