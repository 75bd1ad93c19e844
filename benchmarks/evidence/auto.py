"""Method `auto`: does what it states of the way that it takes hold on rows that it has not seen?

Ten networks on data that scikit-learn carries. Half of the rows that training has not seen are what
a fit of `agreement` measures the ways on; on the other half each choice is held against `mc` at
T = 1,000. Asked are three budgets (a quarter, a half and all of the time of `mc` with all sites)
and three tolerances (.01, .03, .1, of numbers times their spread). Among the ways are `laplace`,
fitted to the training rows (of numbers to half of the measured ones, whose true values it needs),
and `distilled`, taught on the training rows where these are 200 or more. Of each choice stand the
share of rows within the stated error (.95 is stated, 2.6 standard errors of the rows are chance),
its time, and that of the fastest single method which keeps the same bound.

Dimensions: B rows.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from methods_distilled import Inline, taught
from numpy.typing import NDArray
from record import parser, print_table, write
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_friedman1,
)
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito.engine.laplace import Labelled, fit_classes, fit_numbers
from dubito.jobs.agreeing import Agreeing, Ways
from dubito.jobs.lane import Lane
from dubito.serving.ways import SHARE, MeasuredWays, choose
from dubito_nn import export

ROWS_OF_CALL = 64
TOLERANCES = (0.01, 0.03, 0.1)
BUDGETS = (0.25, 0.5, 1.0)
_CHANCE = 2.6
_TIMES = 7
_LEAST_TAUGHT = 200
_FITS = {"laplace": 1, "distilled": 2}


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Args:
        name: of both.
        x: rows, standardised.
        y: classes or numbers.
        make: the network, by the number of its outputs.
    """

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.generic]
    make: Callable[[int], nn.Module]


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """Measure, print and write the record."""
    made = parser(__doc__, needs_data=False)
    asked = made.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    began_s = time.perf_counter()
    rows: list[list[str]] = []
    record = []
    for case in cases()[: 2 if asked.quick else None]:
        for found in judged(case, epochs=5 if asked.quick else 150):
            record.append({"network": case.name, **found})
            rows.append([case.name, *map(str, found.values())])
    broken = [one for one in record if one["within"] < one["least"]]
    faster = sum(one["ms"] <= 1.1 * one["ms_single"] for one in record)
    print_table("auto", ("network", *list(record[0])[1:]), rows)
    print(f"{len(record)} choices, {len(broken)} that break what they state; ", end="")
    print(f"{faster} as fast as the best single method, within a tenth")
    figures = {"choices": record, "broken": len(broken), "as_fast": faster}
    write(
        asked.results,
        "auto",
        settings={"tolerances": TOLERANCES, "budgets": BUDGETS, "rows_of_call": ROWS_OF_CALL},
        figures=figures,
        seconds=time.perf_counter() - began_s,
        is_quick=asked.quick,
    )
    return figures


def cases() -> list[Case]:
    """The ten networks."""
    digits, wine, iris = load_digits(), load_wine(), load_iris()
    cancer, diabetes = load_breast_cancer(), load_diabetes()
    friedman = make_friedman1(1500, noise=1.0, random_state=0)
    images = digits.data / 16

    def perceptron(inputs: int, drop_prob: float, width: int = 64) -> Callable[[int], nn.Module]:
        return lambda outputs: nn.Sequential(
            *(nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(drop_prob)),
            *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(drop_prob)),
            nn.Linear(width, outputs),
        )

    def convolutions(outputs: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
            *(nn.Dropout2d(0.2), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5)),
            nn.Linear(256, outputs),
        )

    return [
        Case("digits, p .1", *_standard(images, digits.target), perceptron(64, 0.1)),
        Case("digits, p .3", *_standard(images, digits.target), perceptron(64, 0.3)),
        Case("digits, p .5", *_standard(images, digits.target), perceptron(64, 0.5)),
        Case("digits, convolutions", *_standard(images, digits.target), convolutions),
        Case("digits, wide", *_standard(images, digits.target), perceptron(64, 0.3, 512)),
        Case("breast cancer", *_standard(cancer.data, cancer.target), perceptron(30, 0.2)),
        Case("wine", *_standard(wine.data, wine.target), perceptron(13, 0.2)),
        Case("iris", *_standard(iris.data, iris.target), perceptron(4, 0.2)),
        Case("diabetes", *_standard(diabetes.data, diabetes.target), perceptron(10, 0.2)),
        Case("friedman", *_standard(*friedman), perceptron(10, 0.1)),
    ]


def judged(case: Case, epochs: int) -> list[dict[str, Any]]:
    """What each request comes to."""
    train, measured, unseen = _parts(len(case.x))
    is_classes = case.y.dtype.kind == "i"
    centre, width = _scale(case, train, is_classes)
    network = _trained(case, train, epochs, is_classes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.dubito"
        options: Any = {"task": "classification", "output": "logits"}
        if not is_classes:
            options = {"task": "regression", "output": "mean", "target_scale": (centre, width)}
        example = torch.from_numpy(case.x[:8])
        bundle = export(network.eval(), example, path, **options)
        engine = Engine.load(bundle)
    fits = _fitted(engine, case, train, measured, is_classes=is_classes)
    ways = Ways.of(engine, fits)
    agreeing = Agreeing(engine, Sampling(seed=1), ways)
    rows = torch.from_numpy(case.x[measured])
    (name,) = (spec.name for spec in engine.manifest.inputs)
    agreeing.keep(0, len(rows), agreeing.predict({name: rows}, 0, lambda: None))
    agreeing.part()
    report = agreeing.finish(cast("Lane", Inline()), {name: rows[:ROWS_OF_CALL]}).report
    known_ways = MeasuredWays.of(1, {"report": report})
    held_out = torch.from_numpy(case.x[unseen])
    many = Sampling(1000, seed=2)
    known = np.asarray(engine.predict(held_out, sampling=many).mean, np.float64)
    spread = 1.0 if is_classes else float(case.y.std())
    whole = next(way for way in known_ways.ways if (way.method, way.sites) == ("mc", "all"))
    bounds: list[dict[str, float]] = [{"tolerance": spread * t} for t in TOLERANCES]
    bounds += [{"budget_ms": share * whole.time_ms(ROWS_OF_CALL)} for share in BUDGETS]
    return [_asked(engine, known_ways, fits, bound, held_out, known) for bound in bounds]


def _asked(
    engine: Engine,
    known_ways: MeasuredWays,
    fits: Mapping[str, int],
    bound: Mapping[str, float],
    rows: Tensor,
    known: NDArray[np.float64],
) -> dict[str, Any]:
    base = replace(engine.defaults, method="mc")
    choice = choose(
        known_ways,
        base,
        fits,
        num_rows=ROWS_OF_CALL,
        tolerance=bound.get("tolerance"),
        budget_ms=bound.get("budget_ms"),
        with_samples=False,
    )
    said = np.asarray(engine.predict(rows, sampling=choice.sampling).mean, np.float64)
    errors = np.abs(said - known).reshape(len(rows), -1).max(1)
    stated = math.inf if choice.told is None else float(cast("float", choice.told["error_of_mean"]))
    within = float((errors <= stated).mean())
    least = SHARE - _CHANCE * math.sqrt(SHARE * (1 - SHARE) / len(rows))
    call = rows[torch.arange(ROWS_OF_CALL) % len(rows)]
    singles = [
        way.over(base)
        for way in known_ways.ways
        if way.error_of_mean <= bound.get("tolerance", stated)
        and way.num_samples in (1, base.num_samples)
    ]
    sampling = choice.sampling
    way = f"{sampling.method} {sampling.num_samples} {sampling.sites}"
    return {
        **{"asked": next(iter(bound)), "bound": round(next(iter(bound.values())), 4)},
        **{"way": way if choice.told else f"{way} (no way known)", "stated": round(stated, 4)},
        **{"within": round(within, 3), "least": round(least, 3)},
        "ms": round(_time_ms(engine, call, sampling), 3),
        "ms_single": round(min([_time_ms(engine, call, one) for one in singles] or [math.inf]), 3),
    }


def _fitted(
    engine: Engine, case: Case, train: slice, measured: slice, *, is_classes: bool
) -> dict[str, int]:
    """Put the fits that rows suffice for into the engine; their numbers."""
    (name,) = (spec.name for spec in engine.manifest.inputs)
    count = train.stop - train.start
    half = slice(measured.start, (measured.start + measured.stop) // 2)
    seen = train if is_classes else half
    rows = torch.from_numpy(case.x[seen])
    at_map = engine.fits.look([{name: rows}], keeps_rows=not is_classes, check=lambda: None)
    options: Any = {"num_training_rows": count, "has_bias": engine.fits.last_map.has_bias}
    if is_classes:
        options["squared_norm"] = engine.fits.last_map.squared_norm(engine.made_up_rows())
        made = fit_classes(at_map.seen, **options)
    else:
        features, scores = map(torch.from_numpy, (at_map.features, at_map.scores))
        centre, width = _scale(case, train, is_classes)
        truths = (torch.from_numpy(case.y[seen])[:, None] - centre) / width
        made = fit_numbers(at_map.seen, Labelled(features, scores, truths), **options)
    engine.fits.put(_FITS["laplace"], made.posterior)
    if count < _LEAST_TAUGHT:
        return {"laplace": _FITS["laplace"]}
    taught(engine, torch.from_numpy(case.x[train]), None, number=_FITS["distilled"])
    return dict(_FITS)


def _time_ms(engine: Engine, rows: Tensor, sampling: Sampling) -> float:
    best = math.inf
    for _ in range(_TIMES):
        began_s = time.perf_counter()
        engine.predict(rows, sampling=sampling)
        best = min(best, 1000 * (time.perf_counter() - began_s))
    return best


def _standard(x: Any, y: Any) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    order = np.random.default_rng(0).permutation(len(x))
    x, y = np.asarray(x)[order], np.asarray(y)[order]
    scaled = (x - x.mean(0)) / np.maximum(x.std(0), 1e-3)
    return scaled.astype(np.float32), y if y.dtype.kind == "i" else y.astype(np.float32)


def _parts(count: int) -> tuple[slice, slice, slice]:
    half, most = count // 2, 3 * count // 4
    return slice(0, half), slice(half, most), slice(most, count)


def _trained(case: Case, rows: slice, epochs: int, is_classes: bool) -> nn.Module:
    torch.manual_seed(0)
    x, y = torch.from_numpy(case.x[rows]), torch.from_numpy(np.asarray(case.y[rows]))
    network = case.make(int(case.y.max()) + 1 if is_classes else 1)
    centre, width = _scale(case, rows, is_classes)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            told = network(x[batch])
            if is_classes:
                loss = nn.functional.cross_entropy(told, y[batch].long())
            else:
                loss = nn.functional.mse_loss(told[:, 0], (y[batch] - centre) / width)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network


def _scale(case: Case, rows: slice, is_classes: bool) -> tuple[float, float]:
    """By what targets are standardised."""
    known = case.y[rows].astype(np.float64)
    return (0.0, 1.0) if is_classes else (float(known.mean()), float(known.std()))


if __name__ == "__main__":
    main()
