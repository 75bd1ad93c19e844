"""Labels: a collector keeps a series for each, so there may not be too many."""

from __future__ import annotations

OTHERS = "(others)"
MOST_MODELS = 100
"""Models with a series of their own; the rest share one."""


class ModelLabels:
    """Names of models as labels, the first ones as they are."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, model: str) -> str:
        """The label of a model."""
        known = self._known.get(model)
        if known is None:
            if len(self._known) >= MOST_MODELS:
                return OTHERS
            known = self._known[model] = model
        return known
