"""Counts of what happened since the server started.

Flow: the frame of a request, its job and its reply tell → what was told waits → after a thousand,
or when a collector asks, it is summed into counters and histograms, many at once → `text`.

Labels are templates of routes, numbers of statuses, kinds of errors, and names of models: there are
not many of any. A request pays a few microseconds.

Dimensions: B rows.
"""

from __future__ import annotations

import threading
from collections import Counter as Count
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector

from dubito.columns import Flags
from dubito.telemetry.histogram import BulkHistogram
from dubito.telemetry.labels import ModelLabels

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from dubito.telemetry.tracing import Attributes, Tracing

T = TypeVar("T")

_PREDICT = "predict"
_MOST_WAITING = 1000
_MOST_KEPT = 100_000  # where nobody asks
_MOST_ROWS = 64  # of a reply whose figures may wait
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 10_000)
_WORK = tuple(4.0**power for power in range(2, 13))
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_ENTROPIES = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
_INFORMATION = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)


_Reply: TypeAlias = tuple[str, int, object, object, "NDArray[np.bool_] | None"]
"""Model, B, entropies, information, flags; nothing else of a reply is held."""


class Asked(NamedTuple):
    """When work was queued, on the clock of `monotonic`, and the span of who asked for it."""

    at_s: float
    within: Context | None


class Telemetry:
    """The counters of one server.

    Args:
        most_rows: of several requests that are computed at once.

    Attributes:
        registry: all series; others are added to it.
        tracing: makes spans of the same; None: there are none.
    """

    def __init__(self, most_rows: int) -> None:
        self.registry = CollectorRegistry()
        self.tracing: Tracing | None = None
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each
        ProcessCollector(registry=self.registry)
        self._most_rows = most_rows
        self._models = ModelLabels()
        self._lock = threading.Lock()
        self._last = threading.local()  # of each device's thread: how long its computation took
        self._asked: deque[tuple[str, str, int, float]] = deque(maxlen=_MOST_KEPT)
        self._worked: deque[tuple[str, float, float]] = deque(maxlen=_MOST_KEPT)
        self._computed: deque[tuple[int, int]] = deque(maxlen=_MOST_KEPT)
        self._replies: deque[_Reply] = deque(maxlen=_MOST_KEPT)
        self._requests = self._counter(
            "dubito_http_requests", "Requests that were answered.", "route", "method", "status"
        )
        self._request_seconds = self._histogram(
            "dubito_http_request_seconds", "Time from head to end of the reply.", _SECONDS, "route"
        )
        self._rejected = self._counter(
            "dubito_rejected_requests", "Requests that were refused, by kind of error.", "reason"
        )
        self._queue_seconds = self._histogram(
            "dubito_queue_seconds", "Time that work waited for the device.", _SECONDS, "action"
        )
        self._compute_seconds = self._histogram(
            "dubito_compute_seconds", "Time from then to the answer.", _SECONDS, "action"
        )
        self._batch_rows = self._histogram(
            "dubito_batch_rows", "Rows of predictions that were computed at once.", _ROWS
        )
        self._batch_work = self._histogram(
            "dubito_batch_work", "Their cost, in rows x samples.", _WORK
        )
        self._batch_fill = self._histogram(
            "dubito_batch_fill_ratio", "Share of the most rows that are joined.", _SHARES
        )
        self._rows = self._counter("dubito_predicted_rows", "Rows that were answered.", "model")
        self._judged = self._counter("dubito_judged_rows", "Rows answered with a flag.", "model")
        self._flagged = self._counter(
            "dubito_flagged_rows", "Rows flagged as out of distribution.", "model"
        )
        self._entropies = self._histogram(
            "dubito_predictive_entropy_nats", "Predictive entropy of rows.", _ENTROPIES, "model"
        )
        self._information = self._histogram(
            "dubito_mutual_information_nats", "Mutual information of rows.", _INFORMATION, "model"
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: template of its path.
            method: as the route knows it.
            status: of the reply.
            seconds: that it took.
        """
        self._asked.append((route, method, status, seconds))
        if len(self._asked) > _MOST_WAITING:
            self._settle()

    def rejected(self, reason: str) -> None:
        """A request was refused, for a kind of error."""
        self._rejected.labels(reason).inc()

    def timed(self, task: Callable[..., T], action: str) -> Callable[..., T]:
        """The same task, whose wait and whose time are counted once it has run.

        Args:
            task: about to be queued.
            action: what it does.
        """
        asked = self.asked()

        def run(*rest: Any) -> T:
            began_s = monotonic()
            result = task(*rest)
            self._work(action, asked, began_s, monotonic(), {})
            return result

        return run

    def batches(self, compute: Callable[..., T], passes: int) -> Callable[..., T]:
        """The same computation of rows, counted whenever it is done.

        Args:
            compute: its first argument holds rows by the name of an input.
            passes: samples of a row.
        """

        def counted(rows: Mapping[str, Any], *rest: Any) -> T:
            began_s = monotonic()
            computed = compute(rows, *rest)
            self._last.took_s = monotonic() - began_s
            self._computed.append((len(next(iter(rows.values()))), passes))
            return computed

        return counted

    def asked(self) -> Asked:
        """Work is queued now."""
        return Asked(monotonic(), None if self.tracing is None else self.tracing.here())

    def replied(
        self, model: str, num_rows: int, outputs: Mapping[str, object], asked: Asked
    ) -> None:
        """Rows were answered, right after they were computed by what `batches` returned.

        Args:
            model: its name.
            num_rows: B.
            outputs: columns, of which the entropies and the flag are counted where they are there.
            asked: when they were queued, and for whom.
        """
        ended_s = monotonic()
        began_s = max(asked.at_s, ended_s - getattr(self._last, "took_s", 0.0))
        self._work(
            _PREDICT, asked, began_s, ended_s, {"dubito.model": model, "dubito.rows": num_rows}
        )
        entropy_B, information_B = map(outputs.get, ("predictive_entropy", "mutual_information"))
        label = self._models.of(model)
        self._replies.append((label, num_rows, entropy_B, information_B, _flags(outputs)))
        if num_rows > _MOST_ROWS:
            self._settle()

    def text(self) -> bytes:
        """All series, in the text format of Prometheus."""
        self._settle()
        return generate_latest(self.registry)

    def computed_s(self) -> float:
        """Seconds for which devices computed since the start."""
        self._settle()
        return self._compute_seconds.total

    def _work(
        self, action: str, asked: Asked, began_s: float, ended_s: float, attributes: Attributes
    ) -> None:
        """Work is done."""
        self._worked.append((action, began_s - asked.at_s, ended_s - began_s))
        if self.tracing is not None and asked.within is not None:
            told = {"dubito.action": action, **attributes}
            self.tracing.worked(asked.within, asked.at_s, began_s, ended_s, told)

    def _settle(self) -> None:
        """Sum what was told."""
        with self._lock:
            asked, worked = _taken(self._asked), _taken(self._worked)
            computed, replies = _taken(self._computed), _taken(self._replies)
        for labels, count in Count(one[:3] for one in asked).items():
            self._requests.labels(*labels).inc(count)
        for route, seconds in _by_label((one[0], one[3]) for one in asked):
            self._request_seconds.observe(route, seconds)
        for action, seconds in _by_label((one[0], one[1]) for one in worked):
            self._queue_seconds.observe(action, seconds)
        for action, seconds in _by_label((one[0], one[2]) for one in worked):
            self._compute_seconds.observe(action, seconds)
        rows = np.array([rows for rows, _ in computed], dtype=np.float64)
        self._batch_rows.observe("", rows)
        self._batch_work.observe("", rows * [passes for _, passes in computed])
        self._batch_fill.observe("", np.minimum(1.0, rows / self._most_rows))
        self._settle_replies(replies)

    def _settle_replies(self, replies: Sequence[_Reply]) -> None:
        for model, rows in _by_label((one[0], one[1]) for one in replies):
            self._rows.labels(model).inc(sum(rows))
        for place, histogram in ((2, self._entropies), (3, self._information)):
            for model, columns in _by_label((one[0], one[place]) for one in replies):
                figures = [column.ravel() for column in columns if isinstance(column, np.ndarray)]
                if figures:
                    histogram.observe(model, np.concatenate(figures))
        for model, flags in _by_label((one[0], one[4]) for one in replies):
            known = [part for part in flags if part is not None]
            if known:
                self._judged.labels(model).inc(sum(map(len, known)))
                self._flagged.labels(model).inc(sum(int(part.sum()) for part in known))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, bounds: Sequence[float], label: str | None = None
    ) -> BulkHistogram:
        histogram = BulkHistogram(name, text, bounds, label)
        self.registry.register(histogram)
        return histogram


def _flags(outputs: Mapping[str, object]) -> NDArray[np.bool_] | None:
    """Which rows are flagged; None where the reply does not say."""
    ood = outputs.get("ood")
    flags = ood.get("flag") if isinstance(ood, Mapping) else None
    return flags.is_flagged if isinstance(flags, Flags) else None


def _taken(told: deque[T]) -> list[T]:
    return [told.popleft() for _ in range(len(told))]


def _by_label(pairs: Iterator[tuple[str, T]]) -> Iterator[tuple[str, list[T]]]:
    """Values by their label."""
    groups: defaultdict[str, list[T]] = defaultdict(list)
    for label, value in pairs:
        groups[label].append(value)
    yield from groups.items()
