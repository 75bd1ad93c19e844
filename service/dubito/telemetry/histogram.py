"""A histogram that takes many values at once.

That of prometheus-client takes one value at a time, in a lock of its own: a reply of 10,000 rows
would take some 20 ms.

Dimensions: N values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BulkHistogram(Collector):
    """Counts of values up to bounds.

    Args:
        name: of the series.
        text: what it is.
        bounds: upper ones of the buckets, ascending, included; one without a bound comes last.
        label: whose values have series of their own; None: there is one.
    """

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], label: str | None = None
    ) -> None:
        self._name, self._text = name, text
        self._bounds = np.array(bounds, dtype=np.float64)
        self._labels = [] if label is None else [label]
        self._lock = threading.Lock()
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}
        if label is None:
            self.observe("", [])

    def observe(self, label: str, values_N: ArrayLike) -> None:
        """Count values; what is not finite is left out."""
        values = np.asarray(values_N, dtype=np.float64)
        finite = values[np.isfinite(values)]
        num_buckets = len(self._bounds) + 1
        added = np.bincount(np.searchsorted(self._bounds, finite), minlength=num_buckets)
        with self._lock:
            self._sums[label] = self._sums.get(label, 0.0) + float(finite.sum())
            self._counts[label] = self._counts.get(label, 0) + added

    @property
    def total(self) -> float:
        """The sum of all values, of all labels together."""
        with self._lock:
            return sum(self._sums.values())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The series, as prometheus-client asks for them."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        ends = [*map(floatToGoString, self._bounds), "+Inf"]
        with self._lock:
            known = [
                (label, self._counts[label].cumsum(), self._sums[label]) for label in self._sums
            ]
        for label, counts, total in known:
            buckets = list(zip(ends, counts.tolist(), strict=True))
            family.add_metric([label] if self._labels else [], buckets, total)
        yield family
