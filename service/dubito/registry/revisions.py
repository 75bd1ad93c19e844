"""What a change of an alias expects of its present revision: compare-and-set.

A plain set of revisions serves as well: `present in expected` decides, with None for no alias yet.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TypeAlias

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
