"""Models that take turns: the next is the one that has used least of the device for its weight.

Each model has a clock that runs while it has the device, the slower the larger its weight; the
least clock comes next. One that begins to wait starts where the others are, so that nobody saves
up turns.

Source: Goyal, Vin, Cheng 1996, "Start-time Fair Queueing".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Shares:
    """What models have used.

    Args:
        weights: by model; of others 1.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._used: dict[str, float] = {}
        self._now = 0.0

    def wait(self, model: str) -> None:
        """A model waits that did not."""
        self._used[model] = max(self._used.get(model, self._now), self._now)

    def rest(self, model: str) -> None:
        """Nothing of a model waits any more."""
        if self._used.get(model, 0.0) <= self._now:
            self._used.pop(model, None)

    def in_order(self, models: Iterable[str]) -> list[str]:
        """The models by whose turn it is; of equal ones the first named."""
        return sorted(models, key=lambda model: self._used.get(model, self._now))

    def take(self, model: str) -> None:
        """A model has its turn."""
        self._now = max(self._now, self._used.get(model, self._now))

    def charge(self, model: str, seconds: float) -> None:
        """A model had the device for so long."""
        used = self._used.get(model, self._now)
        self._used[model] = used + seconds / self._weights.get(model, 1.0)
