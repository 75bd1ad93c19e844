"""Whether the flag flags: scores on plain networks, chosen on half of the pairs, then confirmed.

Flow: pairs of data and networks (`strangers.py`) -> bundles -> passes and features of usual and of
strange rows -> for every split of the held-out rows, a flag for every score -> the area under the
ROC curve of each score, the shares that the default flags, and its false alarms.

    python benchmarks/evidence/flags.py --data ../shared/data --kept kept/flags

Dimensions: T samples, B rows, N strange rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from data import mnist
from numpy.typing import NDArray
from plain_networks import bundle_of
from record import parser, print_table, write
from sklearn.metrics import roc_auc_score
from strangers import Entry, Half, Pair, entries

from dubito.calibration import splits
from dubito.calibration.flags.flagging import Flagging
from dubito.calibration.flags.scorer import OVERALL, FittedScore
from dubito.calibration.heads import Head, head_of
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Engine, Sampling

SAMPLING = Sampling(num_samples=32)
NUM_ROWS, NUM_USUAL, ALPHA = 1000, 2000, 0.05
NUM_SPLITS, NUM_ALARMS, QUICK = 5, 40, ("breast cancer, perceptron", "2 made classes, perceptron")
LEAST_SHARE, LEAST_AREA = 0.9, 0.95
"""Goals: of the best score's area on each kind; on far and noise rows."""

Areas = dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False)
class Taken:
    """All passes and features of a pair's rows."""

    head: Head
    usual: Sampled
    strange: Mapping[str, Sampled]

    @classmethod
    def of(cls, pair: Pair, path: Path) -> Taken:
        """Those of the network in a bundle."""
        engine = Engine.load(path, num_samples=SAMPLING.num_samples)
        head = head_of(engine.manifest)

        def sampled(rows: object, truth: NDArray[np.generic] | None) -> Sampled:
            raw = engine.sample(rows, sampling=SAMPLING)  # type: ignore[arg-type]
            passes = tuple(part.numpy() for part in head.parts(raw, engine.manifest))
            features = engine.feature_maps(rows).numpy()  # type: ignore[arg-type]
            taken = Sampled(passes, truth, features)  # type: ignore[arg-type]
            return head.checked(taken, SAMPLING)

        strange = {name: sampled(rows, None) for name, rows in pair.strange.items()}
        return cls(head, sampled(pair.held_out, pair.held_out_truths), strange)


@dataclass
class Found:
    """Figures of a pair, means over the splits.

    Args:
        areas: under the ROC curve, by kind of strangeness and score.
        flagged: share of the strange rows that the default flags.
        false_alarms: of the default, among usual rows that no fit has seen; over more splits, as
            one of few rows says little.
    """

    areas: Areas
    flagged: dict[str, float]
    false_alarms: float

    def share_of_best(self, kind: str) -> float:
        """Of the best other score's area, what the default has."""
        areas = self.areas[kind]
        return areas[OVERALL] / max(area for name, area in areas.items() if name != OVERALL)


def found(taken: Taken, num_splits: int, num_alarms: int) -> Found:
    """The figures of a pair."""
    each = [_of_split(taken, seed, taken.head.scores.named) for seed in range(num_splits)]
    alarms = [_of_split(taken, seed, (OVERALL,)) for seed in range(num_splits, num_alarms)]
    kinds, names = taken.strange, each[0].areas[next(iter(taken.strange))]
    return Found(
        {
            kind: {name: _mean(one.areas[kind][name] for one in each) for name in names}
            for kind in kinds
        },
        {kind: _mean(one.flagged[kind] for one in each) for kind in kinds},
        _mean(one.false_alarms for one in [*each, *alarms]),
    )


def _of_split(taken: Taken, seed: int, names: Sequence[str]) -> Found:
    order = np.random.default_rng(seed).permutation(len(taken.usual))
    rows, fresh = taken.usual.take(order[:NUM_ROWS]), order[NUM_ROWS:][:NUM_USUAL]
    family = taken.head.scores
    areas: Areas = {kind: {} for kind in taken.strange}
    flagged, false_alarms = dict[str, float](), 0.0
    for name in names:
        terms = Terms(SAMPLING, ALPHA, 0.9, seed, score=name)
        parts = taken.head.split(rows, terms)
        head = taken.head.scaled(rows, parts[splits.FIT], terms)
        flagging = Flagging(family, name, ALPHA, seed)
        flag = flagging.fit(head.source(rows), None, head.groups(rows), parts)
        fitted = flag.fitted or FittedScore()
        unseen = [rows.take(parts[splits.REPORT]), taken.usual.take(fresh)]
        usual_B = np.concatenate(
            [fitted.score(name, head.source(some)) for some in unseen if len(some)]
        )
        for kind, some in taken.strange.items():
            strange_N = fitted.score(name, head.source(some))
            areas[kind][name] = _area(usual_B, strange_N)
            if name == OVERALL:
                flagged[kind] = float(flag.detector.flags(strange_N).mean())
                false_alarms = float(flag.detector.flags(usual_B).mean())
    return Found(areas, flagged, false_alarms)


def _area(usual_B: NDArray[np.float64], strange_N: NDArray[np.float64]) -> float:
    is_strange = np.r_[np.zeros(len(usual_B)), np.ones(len(strange_N))]
    return float(roc_auc_score(is_strange, np.nan_to_num(np.r_[usual_B, strange_N])))


def _mean(values: Iterator[float]) -> float:
    return float(np.mean(list(values)))


def _rows(name: str, figures: Found) -> Iterator[tuple[object, ...]]:
    for kind, areas in figures.areas.items():
        others = {other: area for other, area in areas.items() if other != OVERALL}
        best = max(others, key=lambda other: others[other])
        first = next(iter(areas))
        yield (
            *(name, kind, areas[OVERALL], figures.flagged[kind], areas[first]),
            *(areas["mahalanobis"], areas["knn"], areas["combined"], f"{best} {others[best]:.3f}"),
            *(figures.share_of_best(kind), figures.false_alarms),
        )


def missed(figures: Mapping[str, Found]) -> list[str]:
    """The goals that are missed, in words."""
    lines = []
    for name, one in figures.items():
        for kind, areas in one.areas.items():
            if (share := one.share_of_best(kind)) < LEAST_SHARE:
                lines.append(f"{name}, {kind}: {share:.3f} of the best score's area")
            if kind in ("far", "noise") and areas[OVERALL] < LEAST_AREA:
                lines.append(f"{name}, {kind}: area {areas[OVERALL]:.3f}")
        if not 0.03 <= one.false_alarms <= 0.07:
            lines.append(f"{name}: false alarms {one.false_alarms:.3f}")
    return lines


def _figures(entry: Entry, kept: Path, *, is_quick: bool) -> Found:
    pair = entry.make()
    path = kept / f"{entry.name.replace(' ', '_').replace(',', '')}.dubito"
    bundle_of(pair.build, pair.kind, pair.rows, pair.truths, pair.epochs, path)
    splits_of = (1, 1) if is_quick else (NUM_SPLITS, NUM_ALARMS)
    return found(Taken.of(pair, path), *splits_of)


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    """Train what is not kept, measure, print, write the record, and return its figures."""
    options = parser(__doc__)
    options.add_argument("--kept", type=Path, help="the folder of the networks, to be kept")
    options.add_argument("--half", choices=["choose", "confirm"], help="only that half")
    asked = options.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    start = time.process_time()
    images = [mnist(asked.data, name) for name in ("mnist", "fashion_mnist")]
    figures: dict[Half, dict[str, Found]] = {"choose": {}, "confirm": {}}
    with TemporaryDirectory() as folder:
        kept = asked.kept or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        for entry in entries(asked.data / "uci_regression", *images):
            if asked.half in (None, entry.half) and (entry.name in QUICK or not asked.quick):
                figures[entry.half][entry.name] = _figures(entry, kept, is_quick=asked.quick)
    _show(figures)
    record = {
        half: {name: asdict(one) for name, one in of_half.items()} | {"missed": missed(of_half)}
        for half, of_half in figures.items()
    }
    write(
        asked.results,
        "flags",
        settings={
            "num_rows": NUM_ROWS,
            "num_samples": SAMPLING.num_samples,
            "alpha": ALPHA,
            "splits": NUM_SPLITS,
            "splits_of_false_alarms": NUM_ALARMS,
            "seed": 0,
        },
        figures=record,
        seconds=time.process_time() - start,
        is_quick=asked.quick,
    )
    return dict(record)


def _show(figures: Mapping[Half, Mapping[str, Found]]) -> None:
    head = ("pair", "strange", "overall", "flagged", "outputs", "mahalanobis", "knn", "combined")
    head = (*head, "best", "of best", "false alarms")
    for half, of_half in figures.items():
        lines = [line for name, one in of_half.items() for line in _rows(name, one)]
        print_table(f"area under the ROC curve, {half}", head, lines)
        print(*(f"missed: {line}" for line in missed(of_half)), sep="\n")


if __name__ == "__main__":
    main()
