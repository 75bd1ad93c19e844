"""Coverage and size of sets and intervals, beside MAPIE's on the same rows.

    pip install --no-deps mapie==1.6.0
    python benchmarks/bench_conformal.py [--splits 60]

A small network is trained on some rows of scikit-learn's digits and one on some of its diabetes;
the others are sampled once and dealt out anew for every split: n held out, the rest asked about.
Both sides get the same probabilities, quantiles and deviations of the same rows. It ends with 1
where coverage of ours falls below what was asked for by more than 4.5 standard errors, or a set or
interval of ours is more than 5 % larger than MAPIE's at the same settings.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore, RAPSConformityScore, ResidualNormalisedScore
from mapie.regression import ConformalizedQuantileRegressor, SplitConformalRegressor
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from tables import put_between_markers
from torch import nn

from dubito.calibration.promises import draws, intervals
from dubito.calibration.promises.conformal import ConformalScores
from dubito.calibration.promises.sets import SetRule, choose_penalty
from dubito.calibration.scaling.noise import fit_noise
from dubito.calibration.scaling.scaling import fit_scaling, mean_probabilities
from dubito.engine import Engine, Sampling
from dubito.engine.heads.numbers import mean_and_variance
from dubito.recipes.demo import DIABETES, DIGITS, DatasetRows, Recipe
from dubito_nn.networks import MLP, Standardise

ROOT = Path(__file__).parent
ALPHAS = (0.05, 0.1, 0.2)
NUM_ROWS = {"normalised": (100, 200), "cqr": (100, 200)}
NUM_ROWS_OF_SETS = (240, 480)
SAMPLING = Sampling(num_samples=64)
LARGEST = 1.05  # times MAPIE's size

Floats = NDArray[np.float64]
Answer = tuple[float, float]
"""Coverage of the rows asked about, and mean size or width."""


class Given(ClassifierMixin, RegressorMixin, BaseEstimator):
    """A fitted estimator for MAPIE whose rows are what it answers: all columns, or one of them."""

    def __init__(self, column: int | None = None) -> None:
        self.column = column
        self.fitted_ = True
        self.classes_ = np.arange(10)
        self.n_features_in_ = 10

    def fit(self, X: Floats, y: Floats) -> Given:
        return self

    def predict_proba(self, X: Floats) -> Floats:
        return X

    def predict(self, X: Floats) -> Floats:
        return X.argmax(axis=-1) if self.column is None else X[:, self.column]


@dataclass(frozen=True)
class Asked:
    """One split at one setting: rows held out, rows asked about, α, and a seed for draws."""

    known: NDArray[np.int64]
    fresh: NDArray[np.int64]
    alpha: float
    seed: int


Side = Callable[[Asked], Answer]


def main() -> int:
    """Measure, print, write the results and the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=60)
    splits = parser.parse_args().splits
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (count, sides) in (digits(Path(folder)) | diabetes(Path(folder))).items():
            for num_rows in NUM_ROWS.get(name, NUM_ROWS_OF_SETS):
                for alpha in ALPHAS:
                    rows.append(measured(name, count, num_rows, alpha, sides, splits))
                    print(line(rows[-1]))
    result = {
        "splits": splits,
        "num_samples": SAMPLING.num_samples,
        "versions": {name: version(name) for name in ("mapie", "torch", "dubito")},
        "rows": rows,
    }
    (ROOT / "results" / "bench_conformal.json").write_text(json.dumps(result, indent=1) + "\n")
    put_between_markers(ROOT / "README.md", "bench_conformal", section(result))
    bad = [row for row in rows if not is_good(row)]
    print(f"{len(rows)} settings, {len(bad)} that miss: {[line(row) for row in bad]}")
    return 1 if bad else 0


def measured(
    name: str, count: int, num_rows: int, alpha: float, sides: tuple[Side, Side], splits: int
) -> dict[str, object]:
    """Mean coverage and size of both sides over the splits."""
    generator = np.random.default_rng(num_rows)
    answers: list[tuple[Answer, Answer]] = []
    for seed in range(splits):
        order = generator.permutation(count)
        asked = Asked(order[:num_rows], order[num_rows:], alpha, seed)
        answers.append((sides[0](asked), sides[1](asked)))
    ours_SA, theirs_SA = np.array(answers).transpose(1, 0, 2)
    return {
        "kind": name,
        "num_rows": num_rows,
        "alpha": alpha,
        "coverage": ours_SA[:, 0].mean(),
        "coverage_error": ours_SA[:, 0].std() / np.sqrt(splits),
        "size": ours_SA[:, 1].mean(),
        "mapie_coverage": theirs_SA[:, 0].mean(),
        "mapie_size": theirs_SA[:, 1].mean(),
    }


def is_good(row: dict[str, object]) -> bool:
    """Whether it covers as asked, in sets no larger than MAPIE's by more than 5 %."""
    coverage, error, size, other, alpha = (
        float(row[key])  # type: ignore[arg-type]
        for key in ("coverage", "coverage_error", "size", "mapie_size", "alpha")
    )
    return coverage >= 1 - alpha - 4.5 * error and size <= LARGEST * other


def line(row: dict[str, object]) -> str:
    """A setting as a line of the table."""
    size, other = float(row["size"]), float(row["mapie_size"])  # type: ignore[arg-type]
    cells = [
        f"{row['kind']} | {row['num_rows']} | {row['alpha']}",
        f"{row['coverage']:.3f} ± {row['coverage_error']:.3f} | {row['mapie_coverage']:.3f}",
        f"{size:.4g} | {other:.4g} | {size / other:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def section(result: dict[str, object]) -> str:
    """The table, and what it was measured with."""
    rows: list[dict[str, object]] = result["rows"]  # type: ignore[assignment]
    versions: dict[str, str] = result["versions"]  # type: ignore[assignment]
    return "\n".join(
        [
            "| kind | n | α | coverage | MAPIE's | size | MAPIE's | size / MAPIE's |",
            "|---|---|---|---|---|---|---|---|",
            *map(line, rows),
            "",
            f"Means over {result['splits']} splits, T = {result['num_samples']}; "
            f"{', '.join(f'{name} {number}' for name, number in versions.items())}.",
        ]
    )


def held_back(recipe: Recipe, num_train: int, build: Callable[[DatasetRows], nn.Module]) -> Recipe:
    """The recipe with few rows to train on and all others as its test rows."""
    own = recipe.splits()
    parts = (own.train, own.calibration, own.test)
    inputs = np.concatenate([part.inputs for part in parts])
    targets = np.concatenate([part.targets for part in parts])
    first = DatasetRows(inputs[:num_train], targets[:num_train])
    splits = replace(own, train=first, test=DatasetRows(inputs[num_train:], targets[num_train:]))
    return replace(recipe, splits=lambda: splits, build=build, augment=None, epochs=20)


def digits(folder: Path) -> dict[str, tuple[int, tuple[Side, Side]]]:
    """Each kind of set: rows to deal out, ours, MAPIE's."""
    recipe = held_back(DIGITS, 200, lambda rows: MLP(rows.inputs.shape[1], (32,), 10))
    engine = Engine.load(recipe.export_to(folder / "digits.dubito"))
    rows = recipe.splits().test
    logits_TBC = engine.sample(rows.inputs, sampling=SAMPLING).double().numpy()
    label_B = rows.targets.astype(np.int64)
    scaling = fit_scaling("temperature", logits_TBC[:, :200], label_B[:200])
    mean_BC, label_B = mean_probabilities(logits_TBC, scaling)[200:], label_B[200:]
    mean_BC /= mean_BC.sum(axis=-1, keepdims=True)
    uniform_B = draws.by_content({"x": rows.inputs[200:]}, 0)
    peers: dict[str, Callable[[], object]] = {
        "lac": lambda: "lac",
        "aps": APSConformityScore,
        "raps": RAPSConformityScore,
    }
    return {
        kind: (
            len(label_B),
            (
                ours_of_sets(kind, mean_BC, label_B, uniform_B),
                mapie_of_sets(score, mean_BC, label_B, is_random=kind != "lac"),
            ),
        )
        for kind, score in peers.items()
    }


def ours_of_sets(kind: str, mean_BC: Floats, label_B: NDArray[np.int64], uniform_B: Floats) -> Side:
    """Our sets; like MAPIE, raps chooses its penalty on a tenth of the n rows."""

    def side(asked: Asked) -> Answer:
        rule, known = SetRule(kind), asked.known  # type: ignore[arg-type]
        if kind == "raps":
            chosen, known = np.split(known, [len(known) // 10])
            rule = choose_penalty(
                mean_BC[chosen], label_B[chosen], uniform_B[chosen], 1 - asked.alpha
            )
        held_out = rule.fit(mean_BC[known], label_B[known], uniform_B[known])
        fresh = asked.fresh
        sets_BC = rule.sets(held_out, mean_BC[fresh], uniform_B[fresh], 1 - asked.alpha)
        return judged_sets(sets_BC, label_B[fresh])

    return side


def mapie_of_sets(
    score: Callable[[], object], mean_BC: Floats, label_B: NDArray[np.int64], *, is_random: bool
) -> Side:
    """MAPIE's sets, with the last label included at random where it knows that."""

    def side(asked: Asked) -> Answer:
        mapie = SplitConformalClassifier(
            Given(), 1 - asked.alpha, score(), prefit=True, random_state=asked.seed
        )
        mapie.conformalize(mean_BC[asked.known], label_B[asked.known])
        more = {"conformity_score_params": {"include_last_label": "randomized"}}
        sets_BC1 = mapie.predict_set(mean_BC[asked.fresh], **(more if is_random else {}))[1]
        return judged_sets(sets_BC1[..., 0], label_B[asked.fresh])

    return side


def judged_sets(sets_BC: NDArray[np.bool_], label_B: NDArray[np.int64]) -> Answer:
    """Coverage and mean size."""
    is_in_B = sets_BC[np.arange(len(label_B)), label_B]
    return float(is_in_B.mean()), float(sets_BC.sum(axis=-1).mean())


def diabetes(folder: Path) -> dict[str, tuple[int, tuple[Side, Side]]]:
    """Each kind of interval: rows to deal out, ours, MAPIE's."""

    def build(rows: DatasetRows) -> nn.Module:
        network = MLP(rows.inputs.shape[1], (32,), 1, heteroscedastic=True)
        return nn.Sequential(Standardise(torch.from_numpy(rows.inputs)), network)

    recipe = held_back(DIABETES, 120, build)
    engine = Engine.load(recipe.export_to(folder / "diabetes.dubito"))
    rows = recipe.splits().test
    raw = engine.sample(rows.inputs, sampling=SAMPLING)
    mean_TBD, own_TBD = (part.numpy() for part in mean_and_variance(raw, engine.manifest))
    target_BD = rows.targets.astype(np.float64)
    noise = fit_noise(mean_TBD[:, :40], np.log(own_TBD[:, :40]), target_BD[:40])
    variance_TBD = noise.component_variance(np.log(own_TBD))[:, 40:]
    mean_TBD, target_BD = mean_TBD[:, 40:], target_BD[40:]
    ends = {alpha: intervals.quantile_ends(mean_TBD, variance_TBD, 1 - alpha) for alpha in ALPHAS}
    mean_BD = mean_TBD.mean(axis=0)
    deviation_BD = np.sqrt(mean_TBD.var(axis=0) + variance_TBD.mean(axis=0))
    known = mean_BD, deviation_BD, target_BD
    return {
        "normalised": (len(target_BD), (ours_normalised(*known), mapie_normalised(*known))),
        "cqr": (len(target_BD), (ours_cqr(ends, *known), mapie_cqr(ends, *known))),
    }


def ours_normalised(mean_BD: Floats, deviation_BD: Floats, target_BD: Floats) -> Side:
    """Mean ± Q σ."""

    def side(asked: Asked) -> Answer:
        known, fresh, variance_BD = asked.known, asked.fresh, deviation_BD**2
        held_out = intervals.fit_normalised(mean_BD[known], variance_BD[known], target_BD[known])
        ends = intervals.normalised(held_out, mean_BD[fresh], variance_BD[fresh], 1 - asked.alpha)
        return judged_intervals(*ends, target_BD[fresh])

    return side


def mapie_normalised(mean_BD: Floats, deviation_BD: Floats, target_BD: Floats) -> Side:
    """The same by MAPIE, which is given σ for its model of the residuals."""

    def side(asked: Asked) -> Answer:
        columns_BK = np.hstack([mean_BD, deviation_BD])
        score = ResidualNormalisedScore(Given(1), prefit=True)
        mapie = SplitConformalRegressor(Given(0), 1 - asked.alpha, score, prefit=True)
        mapie.conformalize(columns_BK[asked.known], target_BD[asked.known, 0])
        found_B21 = mapie.predict_interval(columns_BK[asked.fresh])[1]
        return judged_intervals(found_B21[:, 0], found_B21[:, 1], target_BD[asked.fresh])

    return side


Ends = dict[float, intervals.Ends]


def ours_cqr(ends: Ends, mean_BD: Floats, deviation_BD: Floats, target_BD: Floats) -> Side:
    """Quantiles of the mixture, moved."""

    def side(asked: Asked) -> Answer:
        low_BD, high_BD = ends[asked.alpha]
        known, fresh = asked.known, asked.fresh
        held_out: ConformalScores = intervals.fit_quantiles(
            (low_BD[known], high_BD[known]), target_BD[known]
        )
        moved = intervals.widened(held_out, (low_BD[fresh], high_BD[fresh]), 1 - asked.alpha)
        return judged_intervals(*moved, target_BD[fresh])

    return side


def mapie_cqr(ends: Ends, mean_BD: Floats, deviation_BD: Floats, target_BD: Floats) -> Side:
    """The same by MAPIE, with one correction for both ends."""

    def side(asked: Asked) -> Answer:
        columns_BK = np.hstack([*ends[asked.alpha], mean_BD])
        estimators = [Given(column) for column in range(3)]
        mapie = ConformalizedQuantileRegressor(estimators, 1 - asked.alpha, prefit=True)
        mapie.conformalize(columns_BK[asked.known], target_BD[asked.known, 0])
        found = mapie.predict_interval(columns_BK[asked.fresh], symmetric_correction=True)[1]
        return judged_intervals(found[:, 0], found[:, 1], target_BD[asked.fresh])

    return side


def judged_intervals(low_BD: Floats, high_BD: Floats, target_BD: Floats) -> Answer:
    """Coverage and mean width."""
    is_in_BD = (low_BD <= target_BD) & (target_BD <= high_BD)
    return float(is_in_BD.mean()), float((high_BD - low_BD).mean())


if __name__ == "__main__":
    sys.exit(main())
