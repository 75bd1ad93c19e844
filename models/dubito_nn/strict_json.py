"""JSON of strangers: bounded before it is parsed, and with one meaning.

Its job: refuse what Python's reader would take silently (a key twice, NaN, UTF-16) and what would
take much memory (millions of values in a small text).
"""

from __future__ import annotations

import json
from collections import Counter

from dubito_nn.errors import BundleError

MAX_VALUES = 500_000


class DoubledKeyError(ValueError):
    """A key stands twice in one object; `key` is its name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:80]!r} stands twice in one object: leave one out")
        self.key = key


def parse(content: bytes, where: str, *, max_values: int = MAX_VALUES) -> object:
    """The value of a JSON text.

    Args:
        content: UTF-8.
        where: what the text is, for the refusal.
        max_values: of items, keys and containers together.

    Raises:
        BundleError: it is not JSON, or holds too much.
    """
    values = 1 + sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if values > max_values:
        raise BundleError(f"{where} holds more than {max_values} values: export a smaller network")
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not readable JSON: {str(error)[:100]}") from error


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of its keys and values, as `object_pairs_hook` of Python's reader.

    Raises:
        ValueError: a key stands twice.
    """
    table = dict(pairs)
    if len(table) != len(pairs):
        raise DoubledKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return table


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no number of JSON")
