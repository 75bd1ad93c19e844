"""What a change of an alias expects of its present revision: compare-and-set.

A plain set of revisions serves as well: `present in expected` decides, with None for no alias yet.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TypeAlias

from dubito.errors import PreconditionFailedError

Expected: TypeAlias = "Container[int | None]"


class _Existing:
    def __contains__(self, present: object) -> bool:
        return present is not None


class _Missing:
    def __contains__(self, present: object) -> bool:
        return present is None


EXISTING: Expected = _Existing()
"""Any revision, as `If-Match: *`."""

MISSING: Expected = _Missing()
"""No alias of that name yet, as `If-None-Match: *`."""


def check_revision(alias: str, present: int | None, wanted: Expected | None) -> None:
    """Refuse a change where the present revision is not what it expects.

    Args:
        alias: its name.
        present: its revision; None where there is no such alias.
        wanted: None: whatever it is.

    Raises:
        PreconditionFailedError: saying what was found.
    """
    if wanted is None or present in wanted:
        return
    got = "no such alias" if present is None else f'"{present}"'
    raise PreconditionFailedError(
        f"alias `{alias}`: expected what If-Match or If-None-Match names, got {got}: "
        "read the model again and repeat the change if it is still wanted"
    )
