"""What fits and reports came to when they were last known to be right, for every kind of head.

    python -m tests.golden_records          renews `tests/data/golden/records.json`

`tests/test_golden_records.py` compares. Rows are made up here, without a network, so that choices
which rarely meet (a score chosen on strange rows, sets per class, labels left out) are all fitted.

Dimensions: T samples, B rows, P positions, C classes, D outputs, N strange rows, F features.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from dubito.calibration.choices import DEFAULTS, Choices
from dubito.calibration.promises.policy import Target
from dubito.calibration.record import Calibration
from dubito.engine.calling.sampling import Sampling
from dubito.report import Evaluation

from . import fits
from .golden import FOLDER, shortened

RECORDS = FOLDER / "records.json"
NUM_ROWS, NUM_FRESH, NUM_STRANGE = 700, 60, 60
Floats = NDArray[np.float64]
Json = dict[str, Any]
Record = tuple[Calibration, Evaluation]

TERMS = {"sampling": Sampling(num_samples=9), "alpha": 0.1, "coverage": 0.8, "seed": 5}
EVERY = slice(0, NUM_ROWS)
FRESH = slice(NUM_ROWS, NUM_ROWS + NUM_FRESH)


def passes(*shape: int, seed: int, spread: float = 0.4) -> Floats:
    """Nine passes about numbers of their own, (T, *shape)."""
    generator = np.random.default_rng(seed)
    drawn: Floats = 2 * generator.normal(size=shape) + spread * generator.normal(size=(9, *shape))
    return drawn


def features(count: int, seed: int, shift: float = 0.0) -> Floats:
    """Features of five numbers, (count, F)."""
    return shift + np.random.default_rng(seed).normal(size=(count, 5))


def classes_of(logits: Floats, seed: int) -> NDArray[np.int64]:
    """Classes drawn from the mean distribution, less sure than the passes are."""
    mean = softmax(0.6 * logits, axis=-1).mean(axis=0)
    uniform = np.random.default_rng(seed).random((*mean.shape[:-1], 1))
    return (uniform > mean.cumsum(axis=-1)[..., :-1]).sum(axis=-1)


FEATURES = {"features": features(NUM_ROWS, 3), "ood_features": features(NUM_STRANGE, 4, 2.0)}


def classes(**asked: Any) -> Record:
    """One class per row, of four."""
    logits = passes(NUM_ROWS + NUM_FRESH, 4, seed=0)
    label, strange = classes_of(logits, 1), passes(NUM_STRANGE, 4, seed=2, spread=2.0)
    # as all sets could be when the records were written
    asked["choices"] = replace(asked.get("choices", DEFAULTS), empty_sets=True)
    record = fits.fit_classification(
        logits[:, EVERY], label[EVERY], strange=strange, **TERMS | asked
    )
    extra = {"features": features(NUM_FRESH, 6)} if record.needs_features else {}
    return record, fits.evaluate_classification(
        logits[:, FRESH], label[FRESH], calibration=record, coverage=0.7, **extra
    )


def positions(head: str, **asked: Any) -> Record:
    """Six labels, or classes at six positions of which one in six is unlabelled."""
    logits = passes(NUM_ROWS + NUM_FRESH, 6, 2 if head == "multilabel" else 3, seed=7)
    label, strange = classes_of(logits, 8), passes(NUM_STRANGE, *logits.shape[2:], seed=9)
    if head == "dense":
        label[np.arange(len(label)), np.arange(len(label)) % 6] = -1
    record = fits.fit_positions(
        logits[:, EVERY], label[EVERY], head, strange=2 * strange, **TERMS | asked
    )
    extra = {"features": features(NUM_FRESH, 6)} if record.needs_features else {}
    return record, fits.evaluate_positions(
        logits[:, FRESH], label[FRESH], head, calibration=record, coverage=0.7, **extra
    )


def numbers(num_outputs: int, *, is_noisy: bool, **asked: Any) -> Record:
    """Numbers, with log-variances of their own or without."""
    means = passes(NUM_ROWS + NUM_FRESH, num_outputs, seed=10)
    own = passes(*means.shape[1:], seed=11) / 4 if is_noisy else None
    noise = np.random.default_rng(12).normal(size=means.shape[1:])
    target = means.mean(axis=0) + 1.5 * noise
    record = fits.fit_regression(
        means[:, EVERY],
        None if own is None else own[:, EVERY],
        target[EVERY],
        strange=passes(NUM_STRANGE, num_outputs, seed=13, spread=3.0),
        **TERMS | asked,
    )
    extra = {"features": features(NUM_FRESH, 6)} if record.needs_features else {}
    return record, fits.evaluate_regression(
        means[:, FRESH],
        None if own is None else own[:, FRESH],
        target[FRESH],
        calibration=record,
        coverage=0.7,
        **extra,
    )


CASES: dict[str, Callable[[], Record]] = {
    "classes": classes,
    "classes, vector and raps per class": lambda: classes(
        choices=Choices(scaling="vector", sets="raps", per_class=True)
    ),
    "classes, isotonic and aps, a chosen score": lambda: classes(
        choices=Choices(scaling="isotonic", sets="aps"), score="auto", **FEATURES
    ),
    "classes, nothing fitted, combined, a risk": lambda: classes(
        choices=Choices(scaling="none"), score="combined", target=Target(risk=0.6), **FEATURES
    ),
    "classes, relative distance, a share": lambda: classes(
        score="relative_mahalanobis", target=Target(acceptance=0.5), **FEATURES
    ),
    "labels": lambda: positions("multilabel"),
    "labels, isotonic, combined, a risk": lambda: positions(
        "multilabel",
        choices=Choices(scaling="isotonic"),
        score="combined",
        target=Target(risk=0.99),
        share=0.6,
        **FEATURES,
    ),
    "places, vector, a chosen score, a share": lambda: positions(
        "dense",
        choices=Choices(scaling="vector"),
        score="auto",
        target=Target(acceptance=0.5),
        share=0.5,
        **FEATURES,
    ),
    "places, nothing fitted": lambda: positions(
        "dense", choices=Choices(scaling="none"), score="energy_spread"
    ),
    "a number": lambda: numbers(1, is_noisy=False),
    "a number of a given noise, cqr, a share": lambda: numbers(
        1,
        is_noisy=False,
        noise_precision=0.4,
        choices=Choices(intervals="cqr"),
        target=Target(acceptance=0.5),
    ),
    "a number with a noise of its own, combined": lambda: numbers(
        1, is_noisy=True, score="combined", target=Target(acceptance=0.5), **FEATURES
    ),
    "numbers with noises of their own, cqr, a chosen score": lambda: numbers(
        2, is_noisy=True, choices=Choices(intervals="cqr"), score="auto", **FEATURES
    ),
}


def found(name: str) -> Json:
    """The summary of a fit, and the report on fresh rows."""
    record, report = CASES[name]()
    fresh = asdict(report)
    del fresh["confusion"]  # which the records are older than; `test_report.py` counts it
    return {"record": record.summary(), "fresh": json.loads(json.dumps(fresh))}


def main() -> None:
    """Write the records anew."""
    lines = [f"{json.dumps(name)}: {json.dumps(shortened(found(name)))}" for name in CASES]
    RECORDS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
