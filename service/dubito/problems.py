"""What pydantic finds wrong with fields, in our words: expected, got and remedy."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

_EXPECTED = {
    "missing": "a value",
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    "int_parsing_size": "a whole number of fewer digits",
    "finite_number": "a finite number",
    "string_type": "text",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "an object"),
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "{min_length} characters or more",
    "string_too_long": "{max_length} characters or fewer",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
}
_MEMBER = re.compile(r"int|str|float|bool|(list|constrained|function|literal)\W.*")  # of a union
_NUMBER = re.compile(r"\s*[+-]?[0-9.]+(e[+-]?[0-9]+)?\s*", re.IGNORECASE)
_MOST_SHOWN = 80
_ALIKE = 0.7  # of two names, from which one is taken for the other mistyped


def read_problems(
    errors: Iterable[Mapping[str, object]], known: Collection[str] = ()
) -> list[tuple[str, str]]:
    """The path of every refused field, with dots, and what is wrong with it.

    What several members of a union say of one value is said once.

    Args:
        errors: as `errors()` of pydantic gives them.
        known: names of the fields that there are.
    """
    problems: dict[str, list[Mapping[str, object]]] = {}
    for entry in errors:
        location = entry.get("loc")
        parts = [str(part) for part in location] if isinstance(location, tuple) else []
        path = ".".join(part for part in parts if not _MEMBER.fullmatch(part))
        problems.setdefault(path, []).append(entry)
    return [
        (path, _message(path, entries, known))
        for path, entries in problems.items()
        if not any(other.startswith(f"{path}.") for other in problems)  # one member went deeper
    ]


def _message(path: str, entries: list[Mapping[str, object]], known: Collection[str]) -> str:
    first = entries[0]
    kind, value = str(first["type"]), first.get("input")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        meant = get_close_matches(path, sorted(known), 1, _ALIKE)
        remedy = f"write `{meant[0]}`" if meant else "correct its name"
        return f"unknown field: leave it out, or {remedy}"
    if kind not in _EXPECTED:
        return str(first.get("msg", "not understood")).removeprefix("Value error, ")
    expected = dict.fromkeys(_expected(entry) for entry in entries)
    got = "nothing" if kind == "missing" else _shown(value)
    return f"expected {' or '.join(expected)}, got {got}: {_remedy(kind, value)}"


def _expected(entry: Mapping[str, object]) -> str:
    context = entry.get("ctx")
    if isinstance(context, dict) and context.get("max_length") == 0:
        return "nothing in it"
    words = _EXPECTED.get(str(entry["type"]), "something else")
    return words.format_map(context) if isinstance(context, dict) else words


def _shown(value: object) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return repr(value[:_MOST_SHOWN])
        case int() | float():
            return str(value)[:_MOST_SHOWN]
        case list() | tuple():
            return f"a list of {len(value)}"
    return "an object"


def _remedy(kind: str, value: object) -> str:
    if kind == "missing":
        return "add it"
    if kind == "too_long" and isinstance(value, Mapping):
        return f"leave `{str(next(iter(value)))[:_MOST_SHOWN]}` out"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _NUMBER.fullmatch(value):
        return "write it without quotes"
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value.is_integer():
        return f"write {value:.0f}" if abs(value) < 2**63 else "send fewer digits"
    return "correct it"
