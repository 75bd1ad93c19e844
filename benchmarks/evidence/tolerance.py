"""A tolerance of 0.01 against T = 256: how many passes rows take, and how far they are off.

    python benchmarks/evidence/tolerance.py --data ../shared/data

The digits' test rows, and the tenth of Fashion-MNIST's test rows with the largest predictive
entropy at T = 64, networks of `doubters.py`. Draws are stratified; once more with independent ones.

    mean T      passes that a row takes, of at most 256
    within      share of the rows whose largest error over the classes, against T = 10,000 of
                another seed, is at most 2.5 tolerances
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from doubters import Doubter, Effort, doubter
from record import parser, print_table, write

from dubito.engine import Classification, Engine, Sampling
from dubito.engine.calling.sampling import Draw

NAMES = ("digits", "demo", "fashion")
_REFERENCE_SEED = 2**40
_BLOCK_ROWS = 100


@dataclass(frozen=True)
class Settings:
    """What is asked, and what it is compared with."""

    tolerance: float = 0.01
    num_samples: int = 256
    reference_samples: int = 10_000
    fashion_rows: int = 10_000
    hardest: float = 0.1
    seed: int = 0


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train, predict with and without a tolerance; write the record and return its figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings, effort, names = Settings(seed=options.seed), Effort(), NAMES
    if options.quick:
        settings = replace(settings, reference_samples=100, fashion_rows=50)
        effort, names = Effort(1, 200, 1), ("digits", "fashion")
    start = time.perf_counter()
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        asked = doubter(name, options.data, effort, settings.seed)
        rows = _hardest(asked, settings) if name == "fashion" else asked.rows
        figures.update(measured(asked, rows, settings))
    _show(figures)
    write(
        options.results,
        "tolerance",
        settings={**asdict(settings), **asdict(effort)},
        figures=figures,
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def _hardest(asked: Doubter, settings: Settings) -> torch.Tensor:
    rows = asked.rows[: settings.fashion_rows]
    found = _predict(asked.engine, rows, Sampling(64, settings.seed, draw="stratified"))
    order = np.argsort(-found.predictive_entropy, kind="stable")
    return rows[torch.from_numpy(order[: round(settings.hardest * len(rows))].copy())]


def measured(asked: Doubter, rows: torch.Tensor, settings: Settings) -> dict[str, dict[str, float]]:
    """Figures of one network under both draws."""
    exact = np.concatenate(
        [
            _predict(
                asked.engine,
                part,
                Sampling(settings.reference_samples, _REFERENCE_SEED, draw="stratified"),
            ).mean
            for part in rows.split(_BLOCK_ROWS)
        ]
    )
    figures = {}
    draws: tuple[Draw, ...] = ("stratified", "iid")
    for draw in draws:
        most = Sampling(settings.num_samples, settings.seed, draw=draw)
        found = _predict(asked.engine, rows, replace(most, tolerance=settings.tolerance))
        error_B = np.abs(found.mean - exact).max(axis=1)
        figures[f"{asked.name}, {draw}"] = {
            "rows": float(len(rows)),
            "mean_num_samples": float(found.num_samples_used.mean()),
            "at_most": float((found.num_samples_used == settings.num_samples).mean()),
            "within": float((error_B <= 2.5 * settings.tolerance).mean()),
            "error_rms_over_tolerance": float(np.sqrt(np.square(error_B).mean()))
            / settings.tolerance,
        }
    return figures


def _predict(engine: Engine, rows: torch.Tensor, sampling: Sampling) -> Classification:
    found = engine.predict(rows, sampling=sampling)
    assert isinstance(found, Classification)
    return found


def _show(figures: dict[str, dict[str, float]]) -> None:
    head = (
        "rows asked",
        "rows",
        "mean T",
        "at 256",
        "within 2.5 tolerances",
        "rms error / tolerance",
    )
    print_table(
        "A tolerance of 0.01, T at most 256",
        head,
        [(name, *found.values()) for name, found in figures.items()],
    )


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--seed", type=int, default=0, help="of training and of the draws")
    return made


if __name__ == "__main__":
    main()
