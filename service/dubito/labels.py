"""Labels as callers write them, to class indices: text is a name, an integer an index.

Where class names are numerals an integer may be meant as either. One that would then be another
class is refused, until `labels_are` says what integers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Literal

import numpy as np

from dubito.errors import InputError

LabelsAre = Literal["names", "indices"]
SETTLE = 'say `labels_are` "names" or "indices", or send names as text'

_SHOWN = 12  # names


def integer(label: object) -> int | None:
    """An integer of Python or numpy; None for booleans and all else."""
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        return None
    return int(label)


class Classes:
    """The classes of a version, and what integers among its labels stand for.

    Args:
        names: of the C classes.
        labels_are: what integers are; None: indices, as long as they could be no other names.
        may_be_unlabelled: whether -1 is no class but says that nobody has looked.
    """

    def __init__(
        self,
        names: Sequence[str],
        labels_are: LabelsAre | None = None,
        *,
        may_be_unlabelled: bool = False,
    ) -> None:
        self.names = tuple(names)
        self.labels_are = labels_are
        self._least = -1 if may_be_unlabelled else 0
        self._indices = {"-1": -1} if may_be_unlabelled else {}  # unless a class has that name
        self._indices |= {name: index for index, name in enumerate(self.names)}

    def index(
        self, label: object, subject: str, where: str = "", remedy: str = "correct it"
    ) -> int:
        """Index of the class that a label means.

        Args:
            label: text, or an integer of Python or numpy; booleans and floats are no labels.
            subject: what the refusal speaks of, such as the field.
            where: where in it the label stands.
            remedy: where it is no class.

        Raises:
            InputError: no class, or an integer that is one as a name and another as an index.
        """
        index = self.find(label, subject, where)
        if index is None:
            raise InputError(
                f"{subject} expects {self.expected}, got {repr(label)[:40]}{where}: {remedy}"
            )
        return index

    def find(self, label: object, subject: str, where: str) -> int | None:
        """Return what `index` returns, but None where the label is no class."""
        if isinstance(label, str):
            return self._indices.get(label)
        number = integer(label)
        return None if number is None else self._of_integer(number, subject, where)

    def named(self, number: int) -> list[int]:
        """The classes whose name is a numeral of that number, such as 1, 01, 1.0 or +1."""
        return self._numerals.get(number, [])

    @property
    def expected(self) -> str:
        """The labels that are taken, in words."""
        names = f"a name ({', '.join(self.names[:_SHOWN])})"
        if self.labels_are != "names":
            names += f" or an index from 0 to {len(self.names) - 1}"
        return f"{names}, or -1 where nobody has labelled it" if self._least else names

    @cached_property
    def _numerals(self) -> dict[Decimal | int, list[int]]:
        """Classes by the number that their names write; equal numbers have equal hashes."""
        numerals: dict[Decimal | int, list[int]] = {}
        for index, name in enumerate(self.names):
            try:
                number = Decimal(name)
            except InvalidOperation:
                continue
            if number.is_finite():
                numerals.setdefault(number, []).append(index)
        return numerals

    def _of_integer(self, number: int, subject: str, where: str) -> int | None:
        as_index = number if self._least <= number < len(self.names) else None
        if self.labels_are == "indices":
            return as_index
        named = self.named(number)
        if self.labels_are is None:
            if named in ([], [as_index]):
                return as_index
            raise InputError(
                f"{subject} expects names or indices, got {number}{where}, which as a name is "
                f"{self._shown(named[0])} and as an index {self._shown(as_index)}: {SETTLE}"
            )
        if str(number) in self._indices:
            return self._indices[str(number)]
        if len(named) > 1:
            raise InputError(
                f"{subject} expects a name, got {number}{where}, which may be "
                f"{self._shown(named[0])} or {self._shown(named[1])}: send names as text"
            )
        return named[0] if named else None

    def _shown(self, index: int | None) -> str:
        if index is None:
            return "no class"
        return "unlabelled" if index < 0 else f"class {self.names[index][:40]!r} (index {index})"
