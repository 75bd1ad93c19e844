"""How long a prediction takes over T and B, and how many plain forward passes that is.

Its job: for one B after the other, time in turn one plain forward pass (the graph of evaluation
mode), every other method that the network allows, and Monte Carlo dropout at every T.

Dimensions: T samples, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dubito.bench.rows import StudyRows
from dubito.bench.timing import Limits, interleaved, one_after_the_other
from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import shown_sites
from dubito.engine.kernels.precision import multiplying

PLAIN = "plain"
Rows = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Latency:
    """Calls of one kind at one B.

    Args:
        batch: B.
        method: `plain` for one plain forward pass, or a method of the engine.
        num_samples: T for `mc`, else 1.
        minimum_s: of the calls, in turn with those of other kinds.
        median_s: of the same.
        warm_s: minimum of calls one after the other, as a server makes them.
        calls: that counted.
        forwards: its minimum over that of one plain forward pass.
        sites: that were sampled.
    """

    batch: int
    method: str
    num_samples: int
    minimum_s: float
    median_s: float
    warm_s: float
    calls: int
    forwards: float
    sites: str = "all"


def sides(
    engine: Engine,
    samples: Sequence[int],
    others: Sequence[Sampling],
    choices: Sequence[Sampling] = (),
) -> dict[str, Sampling]:
    """Return the samplings that are timed beside the plain pass, by their names.

    Args:
        engine: whose defaults are kept for all but T.
        samples: every T.
        others: samplings of the other methods.
        choices: samplings of some of the sites.
    """
    named: dict[str, Sampling] = {other.method: other for other in others}
    named |= {str(count): replace(engine.defaults, num_samples=count) for count in samples}
    return named | {f"sites {shown_sites(choice.sites)}": choice for choice in choices}


def latencies(
    engine: Engine,
    pool: StudyRows,
    batch: int,
    timed: Mapping[str, Sampling],
    limits: Limits,
    step: Callable[[], None] | None = None,
) -> list[Latency]:
    """Time calls of one number of rows.

    Args:
        engine: ready to be asked.
        pool: rows to draw batches from.
        batch: B.
        timed: what `sides` returned.
        limits: when the rounds end.
        step: called after every call.
    """

    def asking(sampling: Sampling) -> Callable[[Rows], object]:
        return lambda rows: engine.predict(rows, sampling=sampling)

    calls: dict[str, Callable[[Rows], object]] = {PLAIN: lambda rows: plain_forward(engine, rows)}
    calls |= {name: asking(sampling) for name, sampling in timed.items()}
    fresh = pool.batches(batch)
    timings = interleaved(calls, lambda: next(fresh), limits, step=step)
    warm = one_after_the_other(calls, lambda: next(fresh), limits, step=step)
    plain_s = timings[PLAIN].minimum_s
    return [
        Latency(
            batch=batch,
            method=timed[name].method if name in timed else PLAIN,
            num_samples=_num_samples(timed.get(name)),
            minimum_s=timing.minimum_s,
            median_s=timing.median_s,
            warm_s=warm[name].minimum_s,
            calls=len(timing.seconds),
            forwards=timing.minimum_s / plain_s,
            sites=shown_sites(timed[name].sites) if name in timed else "all",
        )
        for name, timing in timings.items()
    ]


def _num_samples(sampling: Sampling | None) -> int:
    return sampling.num_samples if sampling is not None and sampling.method == "mc" else 1


def plain_forward(engine: Engine, rows: Rows) -> Tensor:
    """One pass of the network as evaluation mode has it, and nothing else.

    Args:
        engine: holds the graph and its weights.
        rows: by name, on the CPU.

    Returns:
        The declared output, (B, ...), on the CPU.
    """
    with torch.no_grad(), multiplying(engine.device):
        moved = {name: tensor.to(engine.device) for name, tensor in rows.items()}
        placed = engine.placed
        return placed.point.run(moved, placed.weights, device=engine.device)["output"].cpu()
