"""Fields of strangers' JSON, each read as the one type that it may have.

Its job: what `manifest_reader.py` and `preprocess/reader.py` read single fields with; a refusal
names the field, what was expected and what was got.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TypeVar

from dubito_nn.errors import BundleError

MAX_TEXT = 10_000
_NO_TEXT = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\ud800-\\udfff]")
T = TypeVar("T")


def read_table(raw: object, kind: type, where: str) -> dict[str, object]:
    """An object that has exactly the fields of a dataclass."""
    names = {field.name for field in fields(kind)}
    if not isinstance(raw, dict) or set(raw) != names:
        got = sorted(str(key)[:40] for key in raw)[:20] if isinstance(raw, dict) else type(raw)
        raise BundleError(f"{where}: expects the fields {sorted(names)}, got {got}")
    return raw


def read_tuple(
    raw: object, read: Callable[[object, str], T], limit: int, where: str
) -> tuple[T, ...]:
    """A list of at most `limit` entries, each read in its turn."""
    if not isinstance(raw, (list, tuple)) or len(raw) > limit:
        raise BundleError(f"{where}: expects a list of at most {limit} entries")
    return tuple(read(item, f"{where}[{position}]") for position, item in enumerate(raw))


def read_optional(raw: object, read: Callable[[object, str], T], where: str) -> T | None:
    """A value, or null."""
    return None if raw is None else read(raw, where)


def read_one_of(raw: object, allowed: Sequence[T], where: str) -> T:
    """One of some words."""
    if not isinstance(raw, str) or raw not in allowed:
        raise BundleError(f"{where}: expects one of {list(allowed)}, got {str(raw)[:40]!r}")
    return allowed[allowed.index(raw)]


def read_text(raw: object, where: str) -> str:
    """A text without control characters."""
    if not isinstance(raw, str) or len(raw) > MAX_TEXT:
        raise BundleError(f"{where}: expects a text of at most {MAX_TEXT} characters")
    if _NO_TEXT.search(raw):
        raise BundleError(f"{where}: expects a text without control characters")
    return raw


def read_integer(raw: object, low: int, high: int, where: str) -> int:
    """An integer in [low, high]; true and false are none."""
    if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
        raise BundleError(f"{where}: expects an integer in [{low}, {high}], got {str(raw)[:40]}")
    return raw


def read_number(raw: object, where: str) -> float:
    """A finite number; true and false are none."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not abs(raw) < 1e300:
        raise BundleError(f"{where}: expects a finite number, got {str(raw)[:40]}")
    return float(raw)
