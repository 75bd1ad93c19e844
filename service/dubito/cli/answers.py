"""The answers of a prediction as a table: one line per row, one column per output that fits one.

What a row has several of (outputs, labels, positions) is written out where it is short, and else
summed up: numbers by the least and the largest, classes by their shares, sets by their mean size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from dubito.errors import InputError

_SHOWN = frozenset(
    (
        *("label", "mean", "standard_error", "predictive_entropy", "mutual_information"),
        *("epistemic_variance", "aleatoric_variance", "prediction_set", "certain_set"),
        *("normalised_mean", "normalised_variance", "num_tokens"),
        *("interval lower", "interval upper", "ood p_value", "ood flag", "decision"),
    )
)
_SETS = ("prediction_set", "certain_set")
_QUANTILES = "quantiles "
_OF_CLASSES = frozenset(("mean", "standard_error"))  # a number per class, which `label` sums up
_FEW_NUMBERS, _FEW_NAMES, _FEW_CLASSES = 4, 8, 3


def table_of(outputs: Mapping[str, object], ids: Sequence[object] | None = None) -> Table:
    """The table of a reply's outputs.

    Args:
        outputs: as JSON has them.
        ids: of the rows; None: they have none.

    Raises:
        InputError: nothing of what was asked for fits a line.
    """
    columns = dict(_flat(outputs))
    shown = {
        name: [_cell(value, is_set=name in _SETS) for value in column]
        for name, column in columns.items()
        if name in _SHOWN or name.startswith(_QUANTILES)
        if "label" not in columns or name not in _OF_CLASSES
    }
    if outputs and not shown:
        raise InputError(
            f"a table has one line per row, got {', '.join(outputs)}, which no line holds: ask for "
            "--json"
        )
    table = Table("row", *([] if ids is None else ["id"]))
    for name in shown:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for row, cells in enumerate(zip(*shown.values(), strict=True)):
        table.add_row(str(row), *([] if ids is None else [str(ids[row])]), *cells)
    return table


def _flat(outputs: Mapping[str, object]) -> Iterator[tuple[str, Sequence[object]]]:
    """The columns by name; the parts of one have its name in front of theirs."""
    for name, column in outputs.items():
        if isinstance(column, Mapping):
            yield from ((f"{name} {part}", cells) for part, cells in _flat(column))
        elif isinstance(column, list):
            yield name, column


def _cell(value: object, *, is_set: bool = False) -> str:
    if isinstance(value, list):
        return _sets(value) if is_set else _several(list(_leaves(value)))
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _several(leaves: list[object]) -> str:
    """Numbers, or names of classes."""
    if any(isinstance(leaf, str) for leaf in leaves):
        return _names(list(map(_cell, leaves)))
    if len(leaves) <= _FEW_NUMBERS:
        return ", ".join(map(_cell, leaves))
    numbers = [leaf for leaf in leaves if isinstance(leaf, int | float)]
    return f"{_cell(min(numbers))} .. {_cell(max(numbers))}" if numbers else "null"


def _sets(value: list[object]) -> str:
    """The set of a row, or the mean size of those of its positions."""
    if not any(isinstance(part, list) for part in value):
        return _names([str(name) for name in value])
    sizes = list(_sizes(value))
    return f"{sum(sizes) / max(1, len(sizes)):.3g} each"


def _sizes(value: list[object]) -> Iterator[int]:
    parts = [part for part in value if isinstance(part, list)]
    if any(isinstance(inner, list) for part in parts for inner in part):
        for part in parts:
            yield from _sizes(part)
    else:
        yield from map(len, parts)


def _names(names: list[str]) -> str:
    counts = Counter(names)
    if len(counts) == len(names) <= _FEW_NAMES:
        return ", ".join(names)
    most = counts.most_common(_FEW_CLASSES)
    if len(counts) == len(names):
        return f"{', '.join(names[:_FEW_CLASSES])} and {len(names) - _FEW_CLASSES} more"
    shares = [f"{name} {100 * count / len(names):.3g} %" for name, count in most]
    return ", ".join((*shares, *(["..."] if len(counts) > len(most) else [])))


def _leaves(values: list[object]) -> Iterator[object]:
    """What nested lists hold."""
    for value in values:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield value
