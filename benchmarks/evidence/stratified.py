"""Stratified draws against independent ones: error of the mean, and the error stated.

    python benchmarks/evidence/stratified.py --data ../shared/data

For each network of `doubters.py`, over the first test rows:

    gain             mean square error of `mean` with iid draws over that with stratified ones,
                     against T = 20,000 of another seed; summed over rows and classes
    information      mean over seeds and rows of `mutual_information`, and of the corrected one,
                     less that at T = 20,000, as a share of it
    standard error   sqrt(mean over the seeds of its square) over the standard deviation of `mean`
                     over the seeds: median over the outputs; the mean over the seeds likewise for
                     outputs whose passes vary by more than 0.01
    smallest p       of the tests that one ω_t alone is independent: the share kept, and both of two
                     neighbours (uniform sites: Kolmogorov and Smirnov), times the number of tests

Dimensions: S seeds, T samples, B rows, C classes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from doubters import NAMES, Doubter, Effort, doubter
from numpy.typing import NDArray
from record import parser, print_table, write
from scipy import stats

from dubito.engine import Classification, Engine, Sampling
from dubito.engine.calling.sampling import Draw
from dubito.engine.draws.masks import draw
from dubito_nn import Site

_REFERENCE_SEED = 2**40
_VARIES = 0.01
HEAD = ("network", "T", "gain", "MI iid", "MI", "MI corrected", "se rms", "se mean", "iid se")


@dataclass(frozen=True)
class Settings:
    """Rows, seeds and samples."""

    rows: int = 20
    seeds: int = 500
    iid_seeds: int = 100
    samples: tuple[int, ...] = (16, 24, 32, 64)
    reference_samples: int = 20_000
    tested_samples: int = 64
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Answers:
    """Of every seed: (S, B, C), and of the information, plain and corrected, (S, B)."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    information: NDArray[np.float64]
    corrected: NDArray[np.float64]


def main(arguments: list[str] | None = None) -> dict[str, dict[str, object]]:
    """Train, draw, compare; write the record and return its figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings, effort = Settings(seed=options.seed), Effort()
    names = (*NAMES, "demo")
    if options.quick:
        settings = replace(settings, rows=3, seeds=4, iid_seeds=4)
        settings = replace(settings, samples=(16, 24), reference_samples=200, tested_samples=4)
        effort, names = Effort(1, 200, 1), ("encoder", "concrete")  # tolerance.py has others
    start = time.perf_counter()
    figures: dict[str, dict[str, object]] = {}
    for name in names:
        asked = doubter(name, options.data, effort, settings.seed)
        figures[name] = measured(asked, settings)
        _show(name, figures[name])
    write(
        options.results,
        "stratified",
        settings={**asdict(settings), **asdict(effort)},
        figures=figures,
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def measured(asked: Doubter, settings: Settings) -> dict[str, object]:
    """Every figure of one network."""
    rows = asked.rows[: settings.rows]
    exact = asked.engine.predict(
        rows,
        sampling=Sampling(settings.reference_samples, _REFERENCE_SEED, draw="stratified"),
    )
    assert isinstance(exact, Classification)
    by_samples: dict[str, dict[str, float]] = {}
    for num_samples in settings.samples:
        iid, even = (
            _answers(asked.engine, rows, num_samples, draw, settings)
            for draw in ("iid", "stratified")
        )
        by_samples[str(num_samples)] = _compared(iid, even, exact)
    return {
        "accuracy": asked.accuracy,
        "sites": [site.drop_prob or site.distribution for site in asked.engine.bundle.sites],
        "smallest_p": smallest_p(asked.engine.bundle.sites, settings.tested_samples),
        "by_samples": by_samples,
    }


def _answers(
    engine: Engine, rows: torch.Tensor, num_samples: int, kind: str, settings: Settings
) -> Answers:
    how: Draw = "stratified" if kind == "stratified" else "iid"
    seeds = settings.seeds if kind == "stratified" else settings.iid_seeds
    found = []
    for seed in range(settings.seed, settings.seed + seeds):
        answer = engine.predict(rows, sampling=Sampling(num_samples, seed, draw=how))
        assert isinstance(answer, Classification)
        found.append(answer)
    return Answers(
        np.stack([answer.mean for answer in found]),
        np.stack([answer.standard_error for answer in found]),
        np.stack([answer.mutual_information for answer in found]),
        np.stack([answer.mutual_information_corrected for answer in found]),
    )


def _compared(iid: Answers, even: Answers, exact: Classification) -> dict[str, float]:
    deviation_BC = even.mean.std(axis=0, ddof=1)
    varies_BC = np.sqrt(exact.variance) > _VARIES
    alive_BC = deviation_BC > 0
    rms_BC = np.sqrt(np.square(even.error).mean(axis=0))
    mean_BC = even.error.mean(axis=0)
    iid_rms_BC = np.sqrt(np.square(iid.error).mean(axis=0))
    information = float(exact.mutual_information.mean())

    def error(answers: Answers) -> float:
        return float(np.square(answers.mean - exact.mean).mean(axis=0).sum())

    def bias(information_SB: NDArray[np.float64]) -> float:
        return float(information_SB.mean()) / information - 1

    def ratio(part_BC: NDArray[np.float64], chosen_BC: NDArray[np.bool_]) -> float:
        found = part_BC[chosen_BC] / deviation_BC[chosen_BC]
        return float(np.median(found)) if found.size else float("nan")

    return {
        "gain": error(iid) / error(even),
        "information_bias_iid": bias(iid.information),
        "information_bias": bias(even.information),
        "corrected_information_bias": bias(even.corrected),
        "standard_error_rms": ratio(rms_BC, alive_BC),
        "standard_error_rms_varying": ratio(rms_BC, alive_BC & varies_BC),
        "standard_error_mean_varying": ratio(mean_BC, alive_BC & varies_BC),
        "iid_formula": ratio(iid_rms_BC, alive_BC & varies_BC),
        "outputs": float(alive_BC.sum()),
        "outputs_varying": float((alive_BC & varies_BC).sum()),
    }


def smallest_p(sites: tuple[Site, ...], num_samples: int, units: int = 20_000) -> float:
    """Of all tests of all sites and samples, times their number; at most 1."""
    found: list[float] = []
    for site in sites:
        drawn = draw(site, 0, range(num_samples), (units,), kind="stratified").numpy()
        for sample in drawn:
            if site.distribution != "bernoulli":
                name = "norm" if site.distribution == "normal" else "uniform"
                found.append(float(stats.kstest(sample, name).pvalue))
                continue
            keep = site.bernoulli_mean
            both = int((sample[::2] * sample[1::2]).sum())
            found.append(float(stats.binomtest(int(sample.sum()), units, keep).pvalue))
            found.append(float(stats.binomtest(both, units // 2, keep**2).pvalue))
    return min(1.0, min(found) * len(found))


def _show(name: str, found: dict[str, object]) -> None:
    by_samples = found["by_samples"]
    assert isinstance(by_samples, dict)
    names = (
        *("gain", "information_bias_iid", "information_bias", "corrected_information_bias"),
        *("standard_error_rms", "standard_error_mean_varying", "iid_formula"),
    )
    rows = [
        (name, number, *(figures[key] for key in names)) for number, figures in by_samples.items()
    ]
    print_table(f"{name}: smallest p {found['smallest_p']:.3g}", HEAD, rows)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--seed", type=int, default=0, help="of training, and the first of the draws")
    return made


if __name__ == "__main__":
    main()
