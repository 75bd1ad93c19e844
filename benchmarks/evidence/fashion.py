"""One MC-dropout network on Fashion-MNIST: calibrated, under shift, and asked about digits.

    python benchmarks/evidence/fashion.py --data ../shared/data --kept garments
    python benchmarks/evidence/fashion.py --data ../shared/data --swap --epochs 6

The network of `garments.py`, trained on the first 50,000 training rows, T = 32. All that is fitted
is fitted on the last 10,000, by `fit`: a temperature for the mean of the passes and another for one
pass with weight scaling (`point`), and the flag of each score. Test rows are looked at once, as
they are, and the first of them turned by an angle or with normal noise, clipped to [0, 1].
MNIST's test rows are what is out of distribution; no score is fitted or chosen on them.

With `--swap` it learns digits and is asked about garments (`fashion_swapped.json`).

    NLL, ECE     as in the report of a calibration: nats; 15 bins of equal width
    AUROC, FPR   Fashion-MNIST's test rows against MNIST's, the latter to be found; false alarms
                 where 95 % of the digits are found
    flagged      the share of Fashion-MNIST's test rows, and of digits, at 5 % false alarms

Sources: Ovadia et al. 2019, arXiv:1906.02530, for calibration under shift; Nado et al. 2021,
arXiv:2106.04015, for the reference; van Amersfoort et al. 2020, arXiv:2003.02037, for the digits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from data import Digits, mnist
from garments import SIDE, Learns, Training, bundle_of
from numpy.typing import NDArray
from record import parser, print_table, write
from torch import Tensor
from torch.nn import functional

from dubito.calibration.fit import fit
from dubito.calibration.flags.scorer import OF_CLASSES
from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.judge import judge
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Engine, Sampling
from dubito.report import Report

REFERENCE = {
    "nll": {"deterministic, accuracy 91.0 %": 0.321, "ensemble of 10": 0.200},
    "ece": {"variational": 0.011, "ensemble of 10": 0.010},
    "auroc": {"DUQ": 0.955, "deep ensembles": 0.861},
}
RECOMMENDED = "combined"  # where a network has features
STATES = ("before", "after")


@dataclass(frozen=True)
class Settings:
    """How it is asked and calibrated, and in which states test rows are shown."""

    num_samples: int = 32
    alpha: float = 0.05
    coverage: float = 0.9
    angles: tuple[float, ...] = (15.0, 30.0, 45.0, 60.0, 90.0)
    noises: tuple[float, ...] = (0.1, 0.2, 0.3)
    shifted_rows: int = 1000
    seed: int = 0

    @property
    def ways(self) -> dict[str, Sampling]:
        """The two methods."""
        point = Sampling(1, self.seed, method="point")
        return {"mc": Sampling(self.num_samples, self.seed), "point": point}


@dataclass(frozen=True, eq=False)
class Answers:
    """What the network says of some rows: the passes of each way, and the features."""

    logits: dict[str, NDArray[np.float32]]
    features: NDArray[np.float32]

    @classmethod
    def of(cls, engine: Engine, rows: Tensor, settings: Settings) -> Answers:
        """Ask the engine."""
        ways = settings.ways.items()
        logits = {way: engine.sample(rows, sampling=sampling).numpy() for way, sampling in ways}
        return cls(logits, engine.features(rows).numpy())

    def sampled(self, way: str, label_B: NDArray[np.int64] | None = None) -> Sampled:
        """The rows of one way, as fits and reports take them."""
        return Sampled((self.logits[way],), label_B, self.features)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The rows that calibrations are fitted on."""

    answers: Answers
    labels: NDArray[np.int64]
    settings: Settings

    def calibrated(self, way: str, score: str | None = None) -> Calibration:
        """Fit the temperature, the sets and the flag of one way."""
        asked = self.settings
        sampling, seed = asked.ways[way], asked.seed
        terms = Terms(sampling, asked.alpha, asked.coverage, seed, score=score)
        return fit(ClassHead(), self.answers.sampled(way, self.labels), terms)


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """Train, calibrate, measure; write the record and return its figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(seed=options.seed)
    training = Training(epochs=options.epochs, seed=options.seed)
    known, other = ("mnist", "fashion_mnist") if options.swap else ("fashion_mnist", "mnist")
    digits, strange = mnist(options.data, known), mnist(options.data, other).test_images
    if options.quick:
        training = replace(training, channels=(8, 8, 8), num_features=16, epochs=1, held_out=250)
        settings = replace(settings, num_samples=4, angles=(30.0,), noises=(0.2,), shifted_rows=20)
    start = time.process_time()
    learns: Learns = "digits" if options.swap else "garments"
    bundle, was_trained = bundle_of(digits, training, options.kept, options.device, learns)
    trained = time.process_time()
    engine = Engine.load(bundle, num_samples=settings.num_samples, seed=settings.seed)
    figures = measured(engine, digits, strange, training.held_out, settings)
    _show(figures)
    write(
        options.results,
        "fashion_swapped" if options.swap else "fashion",
        settings={**asdict(training), **asdict(settings)},
        figures={**figures, "reference": REFERENCE, "recommended": RECOMMENDED},
        seconds=time.process_time() - (start if was_trained else trained),
        is_quick=options.quick,
    )
    return figures


def measured(
    engine: Engine, digits: Digits, strange: Tensor, num_held_out: int, settings: Settings
) -> dict[str, object]:
    """Calibrate on the last training rows; measure on test rows, shifted ones and strange ones."""
    label_B = digits.labels[-num_held_out:].numpy()
    held_out = HeldOut(
        Answers.of(engine, digits.images[-num_held_out:], settings), label_B, settings
    )
    calibrations = {way: held_out.calibrated(way) for way in settings.ways}
    test, test_labels = digits.test_images, digits.test_labels.numpy()
    answers = Answers.of(engine, test, settings)
    shown = test[: settings.shifted_rows]
    shifts = {
        label: _reports(Answers.of(engine, rows, settings), test_labels[: len(rows)], calibrations)
        for label, rows in _shifted(shown, settings).items()
    }
    usual = judge(ClassHead(), answers.sampled("mc", test_labels), calibrations["mc"])
    return {
        "temperature": {way: found.head.logit_scaling for way, found in calibrations.items()},
        "held_out": {way: found.report.after for way, found in calibrations.items()},
        "test": _reports(answers, test_labels, calibrations),
        "bins": [asdict(one) for one in usual.bins],
        "shifts": shifts,
        "strange": _found(held_out, answers, test_labels, Answers.of(engine, strange, settings)),
    }


def _reports(
    answers: Answers, label_B: NDArray[np.int64], calibrations: Mapping[str, Calibration]
) -> dict[str, dict[str, Report]]:
    """The report of each way, before calibration and after it."""
    return {
        way: {
            state: judge(ClassHead(), answers.sampled(way, label_B), applied).report
            for state, applied in zip(STATES, (None, calibration), strict=True)
        }
        for way, calibration in calibrations.items()
    }


def _found(
    held_out: HeldOut, answers: Answers, label_B: NDArray[np.int64], strange: Answers
) -> dict[str, dict[str, float | None]]:
    """How well each score finds strange rows, and how many rows its flag takes."""
    figures = {}
    for name in OF_CLASSES.known(has_features=True):
        calibration = held_out.calibrated("mc", name)
        usual, odd = answers.sampled("mc", label_B), strange.sampled("mc")
        report = judge(ClassHead(), usual, calibration, strange=odd).report
        some_B = label_B[: len(strange.features)]  # the flag does not look at them
        asked = judge(ClassHead(), strange.sampled("mc", some_B), calibration).report
        figures[name] = {
            "auroc": report["ood_auroc"],
            "aupr": report["ood_aupr"],
            "fpr95": report["ood_fpr95"],
            "flagged": report["ood_flag_rate"],
            "strange_flagged": asked["ood_flag_rate"],
        }
    return figures


def _shifted(rows: Tensor, settings: Settings) -> dict[str, Tensor]:
    """The same rows in every state, as they are among them."""
    states = {"as they are": rows}
    states |= {f"turned by {angle:g}°": turned(rows, angle) for angle in settings.angles}
    generator = torch.Generator().manual_seed(settings.seed)
    for deviation in settings.noises:
        noise = deviation * torch.randn(rows.shape, generator=generator)
        states[f"noise {deviation:g}"] = (rows + noise).clamp(0.0, 1.0)
    return states


def turned(rows: Tensor, degrees: float) -> Tensor:
    """Turn flat images by an angle about their middle, with zeros from outside, bilinear."""
    angle = np.deg2rad(degrees)
    matrix = torch.tensor(
        [[np.cos(angle), -np.sin(angle), 0.0], [np.sin(angle), np.cos(angle), 0.0]]
    ).float()
    images = rows.view(-1, 1, SIDE, SIDE)
    grid = functional.affine_grid(
        matrix.expand(len(rows), 2, 3), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False).flatten(1)


def _show(figures: Mapping[str, object]) -> None:
    test, shifts, strange = (figures[name] for name in ("test", "shifts", "strange"))
    assert isinstance(test, dict)
    assert isinstance(shifts, dict)
    assert isinstance(strange, dict)
    names = ("accuracy", "nll", "ece", "brier", "ood_flag_rate")
    rows = [
        (f"{way}, {state}", *_cells(report[name] for name in names))
        for way, both in test.items()
        for state, report in both.items()
    ]
    print_table("Test rows", ("", *names), rows)
    columns = [(way, state) for state in STATES for way in test]
    head = ("", "accuracy", *(f"NLL, {way}, {state}" for way, state in columns))
    under_shift = [
        (
            label,
            *_cells([ways["mc"]["after"]["accuracy"], *(ways[a][b]["nll"] for a, b in columns)]),
        )
        for label, ways in shifts.items()
    ]
    print_table("Under shift", head, under_shift)
    found = [(name, *_cells(figures.values())) for name, figures in strange.items()]
    head = ("score", "AUROC", "AUPR", "FPR at 95 %", "flagged", "strange flagged")
    print_table("Strange rows among them", head, found)


def _cells(values: Iterable[float | None]) -> list[float | str]:
    return ["" if value is None else value for value in values]


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--swap", action="store_true", help="learn digits, ask about garments")
    made.add_argument("--epochs", type=int, default=Training.epochs)
    made.add_argument("--kept", type=Path, default=None, help="folder of the trained network")
    made.add_argument("--device", default="cpu", help="to train on, such as cuda")
    made.add_argument("--seed", type=int, default=0, help="of training, splits and draws")
    return made


if __name__ == "__main__":
    main()
