"""A bundle's latency and error over T, so that T can be chosen for a time to answer in.

Its job: order the measuring, report progress, and put the figures together.

    errors first (reference, every T, the other methods), then times, one B after the other

Dimensions: T samples, B rows. Times in seconds inside, in milliseconds in JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

from dubito.bench.accuracy import (
    Accuracy,
    MethodError,
    accuracy,
    method_error,
    methods_without_sampling,
    reference,
)
from dubito.bench.agreement import Agreement, agreements
from dubito.bench.latency import Latency, Rows, latencies, sides
from dubito.bench.machine import Machine, describe_machine
from dubito.bench.order import BenchOrder
from dubito.bench.rows import StudyRows
from dubito.bench.timing import Limits
from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import Method, shown_sites
from dubito.serving.labelled import LabelledRows

Step: TypeAlias = Callable[[str, int, int], None]  # what is done, steps done, steps in all


@dataclass(frozen=True)
class Study:
    """The figures of one bundle on one machine.

    Args:
        machine: on what.
        digest: SHA-256 of the bundle.
        task: of the network.
        sampling: seed, masks and draw of all passes.
        is_made_up: whether the rows were noise.
        num_rows: that the errors were taken on.
        reference: passes of the reference, 0 for none.
        reference_error: standard error of the reference itself; None for none.
        accuracies: one per T.
        methods: one per method without sampling.
        latencies: by B, the plain pass first.
        compared_t: T that choices of sites were compared at.
        agreements: one per choice of sites, after all sites; empty where there was none.
    """

    machine: Machine
    digest: str
    task: str
    sampling: Sampling
    is_made_up: bool
    num_rows: int
    reference: int
    reference_error: float | None
    accuracies: tuple[Accuracy, ...]
    methods: tuple[MethodError, ...]
    latencies: tuple[Latency, ...]
    compared_t: int
    agreements: tuple[Agreement, ...] = ()

    def at(self, batch: int, method: str, num_samples: int = 1, sites: str = "all") -> Latency:
        """The times of one side at one B."""
        wanted = (batch, method, num_samples, sites)
        return next(
            latency
            for latency in self.latencies
            if (latency.batch, latency.method, latency.num_samples, latency.sites) == wanted
        )

    def largest_within(self, batch: int, budget_s: float) -> Accuracy | None:
        """The errors at the largest T whose median time is within a budget; None for none."""
        fitting = [
            accuracy
            for accuracy in self.accuracies
            if self.at(batch, "mc", accuracy.num_samples).median_s <= budget_s
        ]
        return max(fitting, key=lambda accuracy: accuracy.num_samples, default=None)

    def to_json(self) -> dict[str, object]:
        """Plain values, times in milliseconds."""
        return {
            "machine": asdict(self.machine),
            "digest": self.digest,
            "task": self.task,
            "seed": self.sampling.seed,
            "masks": self.sampling.masks,
            "draw": self.sampling.draw,
            "is_made_up": self.is_made_up,
            "num_rows": self.num_rows,
            "reference": self.reference,
            "reference_error": self.reference_error,
            "accuracies": [asdict(accuracy) for accuracy in self.accuracies],
            "methods": [asdict(method) for method in self.methods],
            "compared_t": self.compared_t,
            "agreements": [asdict(agreement) for agreement in self.agreements],
            "latencies": [_in_milliseconds(latency) for latency in self.latencies],
        }


def study(
    engine: Engine,
    pool: StudyRows,
    order: BenchOrder,
    step: Step | None = None,
    labelled: LabelledRows | None = None,
) -> Study:
    """Measure errors and latencies over T.

    Args:
        engine: ready to be asked; its defaults give seed, masks and draw.
        pool: rows to predict.
        order: what to measure.
        step: called with what is done, steps done, and steps in all.
        labelled: rows with truths, on which choices of sites are compared.

    Raises:
        InputError: a choice of sites that names none.
    """
    tell = step or (lambda title, done, total: None)
    rows = pool.first(order.rows)
    samples = order.every_t
    choices = [
        replace(engine.defaults, num_samples=order.compared_t, sites=sites)
        for sites in order.compared(engine)
    ]
    many = None
    if order.reference:
        many = reference(
            engine,
            rows,
            order.reference,
            order.seconds,
            lambda done: tell("reference", done, order.reference),
        )
    accuracies = []
    for count in samples:
        accuracies.append(accuracy(engine, rows, count, many))
        tell("errors", len(accuracies), len(samples))
    methods = [method_error(engine, rows, name, many) for name in methods_without_sampling()]
    allowed = [method.method for method in methods if method.refused is None]
    compared = _compared(engine, rows, order, choices, labelled, tell)
    refused = {one.choice for one in compared if one.refused is not None}
    choices = [choice for choice in choices if shown_sites(choice.sites) not in refused]
    return Study(
        machine=describe_machine(engine.device),
        digest=engine.bundle.digest,
        task=engine.manifest.task,
        sampling=engine.defaults,
        is_made_up=pool.is_made_up,
        num_rows=min(order.rows, len(pool)),
        reference=many.num_samples if many else 0,
        reference_error=many.error if many else None,
        accuracies=tuple(accuracies),
        methods=tuple(methods),
        latencies=tuple(_timed(engine, pool, order, allowed, choices, tell)),
        compared_t=order.compared_t,
        agreements=tuple(compared),
    )


def _compared(
    engine: Engine,
    rows: Rows,
    order: BenchOrder,
    choices: Sequence[Sampling],
    labelled: LabelledRows | None,
    tell: Step,
) -> list[Agreement]:
    if not choices:
        return []
    sampling = replace(engine.defaults, num_samples=order.compared_t)
    sites = [choice.sites for choice in choices]
    in_all = 2 + len(sites)
    return agreements(
        engine, rows, sampling, sites, labelled, lambda done: tell("sites", done, in_all)
    )


def _timed(
    engine: Engine,
    pool: StudyRows,
    order: BenchOrder,
    methods: Sequence[Method],
    choices: Sequence[Sampling],
    tell: Step,
) -> list[Latency]:
    others = [replace(engine.defaults, method=method) for method in methods]
    timed = sides(engine, order.every_t, others, choices)
    limits = Limits(order.repeats, least=1, limit_s=order.seconds)
    calls = 2 * (1 + len(timed)) * (1 + order.repeats)
    times: list[Latency] = []
    for batch in sorted(set(order.batch)):
        done = 0

        def step(batch: int = batch) -> None:
            nonlocal done
            done += 1
            tell(f"latency, B = {batch}", done, calls)

        times += latencies(engine, pool, batch, timed, limits, step)
        tell(f"latency, B = {batch}", calls, calls)
    return times


def _in_milliseconds(latency: Latency) -> dict[str, object]:
    return {
        "batch": latency.batch,
        "method": latency.method,
        "num_samples": latency.num_samples,
        "minimum_ms": 1e3 * latency.minimum_s,
        "median_ms": 1e3 * latency.median_s,
        "warm_ms": 1e3 * latency.warm_s,
        "calls": latency.calls,
        "forwards": latency.forwards,
        "sites": latency.sites,
    }
