"""Last-layer Laplace of many classes: the error of a low rank, its time and its memory.

    python benchmarks/evidence/methods_many.py             50,000 classes of 512 features
    python benchmarks/evidence/methods_many.py --classes 10000 --rank 64 256

A last map is made up: classes whose frequency falls as 1 / (10 + its place), near in groups of
ten, features whose scale falls by a factor of thirty. Times are those of a processor.

Dimensions: T samples, B rows, F features, C classes, R eigenpairs.
"""

from __future__ import annotations

import resource
import time

import torch
from record import parser, print_table, write
from torch import Tensor
from torch.nn.functional import linear

from dubito.engine import Sampling
from dubito.engine.laplace import ClassFactor, CurvatureSums, LowRankPosterior, fit_low_rank
from dubito.engine.laplace.class_factor import places_of_factor
from dubito.engine.laplace.drawn_low_rank import DrawnLowRank

_BLOCK = 64
_GROUP = 10
_TRAINED_ON = 1_000_000


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Fit and draw with each rank, print it and write the record."""
    made = parser(__doc__, needs_data=False)
    made.add_argument("--classes", type=int, default=50_000)
    made.add_argument("--features", type=int, default=512)
    made.add_argument("--rows", type=int, default=2000)
    made.add_argument("--rank", type=int, nargs="*", default=[256])
    asked = made.parse_args(arguments)
    if asked.quick:
        asked.classes, asked.features, asked.rows, asked.rank = 300, 20, 100, [10]
    torch.set_num_threads(asked.threads)
    began = time.perf_counter()
    weight, bias, features = _made_up(asked.classes, asked.features, asked.rows)
    figures = {f"rank {rank}": of_rank(weight, bias, features, rank) for rank in asked.rank}
    names = list(next(iter(figures.values())))
    rows = [(name, *(found[name] for found in figures.values())) for name in names]
    print_table("laplace of many classes", ("figure", *figures), rows)
    settings = {"seed": 0} | {
        name: getattr(asked, name) for name in ("classes", "features", "rows", "rank")
    }
    write(
        asked.results,
        "methods_many",
        settings=settings,
        figures=figures,
        seconds=time.perf_counter() - began,
        is_quick=asked.quick,
    )
    return figures


def of_rank(weight: Tensor, bias: Tensor, features: Tensor, rank: int) -> dict[str, float]:
    """One fit, and calls with T = 16 of one row and of 64."""
    num_classes = len(weight)

    def scores(some: Tensor) -> Tensor:
        return linear(some, weight, bias)

    before, began = _peak_mb(), time.process_time()
    seen = None
    for some in features.split(_BLOCK):
        more = CurvatureSums.of_rows(some, scores(some), is_classes=True, keeps_pairs=False)
        seen = more if seen is None else seen.with_more(more)
    assert seen is not None
    sums_s, began = time.process_time() - began, time.process_time()
    chosen = features[torch.from_numpy(places_of_factor(len(features), num_classes))]
    factor = ClassFactor.of(chosen, scores, num_classes, lambda: None)
    fitted = fit_low_rank(
        seen,
        factor,
        rank=rank,
        num_training_rows=_TRAINED_ON,
        has_bias=True,
        squared_norm=float(weight.square().sum() + bias.square().sum()),
        prior_precision=None,
        held_out=None,
    )
    fit_s, fit_mb = time.process_time() - began, _peak_mb() - before
    assert isinstance(fitted.posterior, LowRankPosterior)
    maps = DrawnLowRank(fitted.posterior, torch.device("cpu"), 128 * 2**20)
    report = {name: float(str(fitted.report[name])) for name in _REPORTED}
    return {
        **report,
        "sums, s": sums_s,
        "fit, s": fit_s,
        "memory of the fit, MB": fit_mb,
        "memory of the posterior, MB": _size_mb(fitted.posterior),
        "one row, first call, s": _call_s(maps, features[:1]),
        "one row, second call, s": _call_s(maps, features[:1]),
        "64 rows, s": _call_s(maps, features[:64]),
    }


_REPORTED = (
    *("prior_precision", "effective_parameters", "rank", "rows_of_rank", "trace_of_rank"),
    *("error_of_variance", "error_of_variance_95"),
)


def _made_up(num_classes: int, width: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(-(-num_classes // _GROUP), width, generator=generator)
    own = torch.randn(num_classes, width, generator=generator)
    near = groups.repeat_interleave(_GROUP, 0)[:num_classes]
    weight = (near + 0.5 * own) * 8 / width**0.5
    order = torch.randperm(num_classes, generator=generator)
    bias = -(10.0 + order).log()
    features = torch.randn(count, width, generator=generator) * torch.logspace(0.5, -1, width)
    return weight, bias, features.relu()


def _call_s(maps: DrawnLowRank, rows: Tensor, count: int = 16) -> float:
    began = time.process_time()
    for some in maps.noise(rows, count, Sampling(count, method="laplace", fit=1).key):
        some.sum()
    return time.process_time() - began


def _size_mb(posterior: LowRankPosterior) -> float:
    return sum(part.nbytes for part in posterior.arrays().values()) / 2**20


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
