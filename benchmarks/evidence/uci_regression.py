"""UCI regression on the standard splits: error and log-likelihood of MC dropout.

    python benchmarks/evidence/uci_regression.py --data ../shared/data --kept uci_rounds

One hidden layer of 50 ReLU units, dropout on inputs and hidden units, 4000 epochs of Adam at 1e-3,
batch 128, squared error, inputs and target standardised on the rows trained on. For each split:

    the first 80 % of its training rows: a network for each p of a grid
    the last 20 %: τ of each by `fit_noise`; the p of highest likelihood
    all of its training rows: a network with that p, exported, with the τ already fitted
    its test rows: T = 10,000 passes by the engine

    RMSE  of the mean over the passes, target units
    LL    log 1/T Σ_t N(y; ŷ_t, 1/τ), mean over the rows, target units, in nats

The networks of several splits are trained side by side, each as if alone (`side_by_side.py`). What
is done is kept in `--kept` after each round of splits, and a later run goes on from there; the
`seconds` of the record are processor time.

Sources: Hernandez-Lobato and Adams 2015, arXiv:1502.05336, for the splits; Gal and Ghahramani 2016,
arXiv:1506.02142, for the network and the protocol.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from record import parser, print_table, training_bar, write
from side_by_side import SideBySide
from torch import Tensor, nn
from uci import NAMES, Split, read_split

from dubito.calibration.scaling.noise import Noise, fit_noise
from dubito.engine import Engine, Regression
from dubito.report.likelihood import mixture_nll
from dubito_nn import export
from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import MLP, Standardise
from dubito_nn.training import sampled_outputs, seeded, squared_error, train
from dubito_nn.training.loop import Schedule

# RMSE, its standard error, LL, its standard error; goal of RMSE and of LL
REFERENCE = {
    "boston": (2.904, 0.177, -2.402, 0.042),
    "concrete": (4.826, 0.161, -2.937, 0.025),
    "energy": (0.539, 0.014, -1.212, 0.005),
    "yacht": (0.666, 0.049, -1.250, 0.015),
}
LIKELIHOOD_GOAL = {"boston": -2.402, "concrete": -2.937, "energy": -1.00, "yacht": -1.15}


@dataclass(frozen=True)
class Settings:
    """Of the published experiment; T on the validation rows and the rounds are ours."""

    hidden: int = 50
    drop_probs: tuple[float, ...] = (0.005, 0.01, 0.05, 0.1)
    epochs: int = 4000
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    validation_share: float = 0.2
    validation_samples: int = 500
    num_samples: int = 10_000
    splits_at_once: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """What the validation rows of a split say."""

    drop_prob: float
    noise_precision: float
    log_likelihood: float


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Choose, train, measure on every split; write the record and return the means."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(
        seed=options.seed, schedule=options.schedule, splits_at_once=options.splits_at_once
    )
    counts = dict.fromkeys(options.sets, options.splits)
    if options.quick:
        settings = replace(settings, epochs=2, drop_probs=(0.05, 0.1), validation_samples=8)
        settings, counts = replace(settings, num_samples=32), {"yacht": 2}
    rounds = Rounds(options.data / "uci_regression", options.kept, options.record_kept)
    runs = rounds.runs(counts, settings, options.workers)
    figures = {name: _summary(found) for name, found in runs.items()}
    _show(figures)
    write(
        options.results,
        "uci_regression",
        settings=asdict(settings),
        figures={"mean": figures, "runs": runs},
        seconds=sum(run["seconds"] for each in runs.values() for run in each),
        is_quick=options.quick,
    )
    return figures


@dataclass(frozen=True)
class Rounds:
    """Splits in rounds, each kept when it is done.

    Args:
        folder: of the sets.
        kept: folder of finished rounds; None keeps none.
        is_record_only: rounds that are not kept are left out.
    """

    folder: Path
    kept: Path | None
    is_record_only: bool

    def runs(
        self, counts: Mapping[str, int], settings: Settings, workers: int
    ) -> dict[str, list[dict[str, float]]]:
        """The figures of the first splits of each set; sets without any are left out.

        Args:
            counts: splits by set.
            settings: of all of them.
            workers: processes; each takes one round after the other.
        """
        asked = [
            (name, range(first, min(first + settings.splits_at_once, count)), settings)
            for name, count in counts.items()
            for first in range(0, count, settings.splits_at_once)
        ]
        if workers == 1:
            made = [self._round(*each) for each in asked]
        else:
            with ProcessPoolExecutor(
                workers, get_context("spawn"), torch.set_num_threads, (1,)
            ) as (processes):
                made = list(processes.map(self._round, *zip(*asked, strict=True)))
        found: dict[str, list[dict[str, float]]] = {}
        for (name, *_), runs in zip(asked, made, strict=True):
            if runs:
                found.setdefault(name, []).extend(runs)
        return found

    def _round(self, name: str, numbers: range, settings: Settings) -> list[dict[str, float]]:
        done = f"{name}_{settings.schedule}_{numbers[0]}_{numbers[-1]}.json"
        path = None if self.kept is None else self.kept / done
        if path is not None and path.exists():
            kept: list[dict[str, float]] = json.loads(path.read_text())
            return kept
        if self.is_record_only:
            return []
        splits = [read_split(self.folder, name, each) for each in numbers]
        found = measured(splits, settings, f"{name} {numbers[0]}-{numbers[-1]}")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found))
        return found


def measured(splits: Sequence[Split], settings: Settings, label: str) -> list[dict[str, float]]:
    """Choose p and τ of each split, train on all of its training rows, measure on the others."""
    start = time.process_time()
    choices = _choices(splits, settings, f"{label}, choosing")
    parts = [_Part.of(split.inputs, split.targets) for split in splits]
    drop_probs = [choice.drop_prob for choice in choices]
    networks = _trained(parts, drop_probs, settings, f"{label}, final").give_back()
    runs = [
        _figures(split, part, network, choice, settings)
        for split, part, network, choice in zip(splits, parts, networks, choices, strict=True)
    ]
    seconds = (time.process_time() - start) / len(runs)
    return [{**run, "seconds": seconds} for run in runs]


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows that networks are trained on, and how they are standardised."""

    inputs: Tensor
    targets: Tensor
    standardise: Standardise
    centre: float
    deviation: float

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor) -> _Part:
        centre, deviation = float(targets.mean()), float(targets.std(correction=0))
        return cls(inputs, targets, Standardise(inputs), centre, deviation)

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Both standardised, (N, F) and (N,)."""
        return self.standardise(self.inputs), (self.targets - self.centre) / self.deviation


def _choices(splits: Sequence[Split], settings: Settings, label: str) -> list[Choice]:
    """For each split the p, and its τ, of the highest likelihood on the last training rows."""
    fit = round((1.0 - settings.validation_share) * len(splits[0].inputs))
    parts = [_Part.of(split.inputs[:fit], split.targets[:fit]) for split in splits]
    repeated = [part for part in parts for _ in settings.drop_probs]
    drop_probs = [*settings.drop_probs] * len(splits)
    module = _trained(repeated, drop_probs, settings, label)
    asked = [
        part.standardise(split.inputs[fit:])
        for part, split in zip(parts, splits, strict=True)
        for _ in settings.drop_probs
    ]
    samples = sampled_outputs(
        module,
        torch.stack(asked, dim=1),
        num_samples=settings.validation_samples,
        seed=settings.seed,
    )
    mean_TBS = torch.stack([sample for sample in samples if isinstance(sample, Tensor)]).numpy()
    trials = iter(np.moveaxis(mean_TBS, 2, 0))
    choices = []
    for part, split in zip(parts, splits, strict=True):
        target_B1 = split.targets[fit:].double().numpy()[:, None]
        tried = [
            _choice(p, part.centre + part.deviation * next(trials)[..., None], target_B1)
            for p in settings.drop_probs
        ]
        choices.append(max(tried, key=lambda choice: choice.log_likelihood))
    return choices


def _choice(p: float, mean_TB1: NDArray[np.float64], target_B1: NDArray[np.float64]) -> Choice:
    noise = fit_noise(mean_TB1, None, target_B1)
    return Choice(p, 1.0 / noise.variance[0], _log_likelihood(mean_TB1, noise, target_B1))


def _trained(
    parts: Sequence[_Part], drop_probs: Sequence[float], settings: Settings, label: str
) -> SideBySide:
    """One network for each part, with its p."""
    num_features, hidden = parts[0].inputs.shape[1], (settings.hidden,)
    with seeded(settings.seed):
        networks = [
            MLP(num_features, hidden, 1, dropout=StandardFamily(drop_prob=p), drop_inputs=True)
            for p in drop_probs
        ]
    module = SideBySide(networks)
    inputs, targets = zip(*(part.rows for part in parts), strict=True)
    with training_bar(label) as show:
        train(
            module,
            torch.stack(inputs, dim=1),
            torch.stack(targets, dim=1),
            loss=squared_error,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            schedule=settings.schedule,
            seed=settings.seed,
            progress=show,
        )
    return module


def _figures(
    split: Split, part: _Part, network: MLP, choice: Choice, settings: Settings
) -> dict[str, float]:
    """The figures on the test rows of the network as a bundle, in the engine."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(
            nn.Sequential(part.standardise, network),
            split.inputs[:4],
            Path(folder) / "network.dubito",
            task="regression",
            output="mean",
            target_scale=(part.centre, part.deviation),
        )
    engine = Engine.load(bundle, num_samples=settings.num_samples, seed=settings.seed)
    answers = engine.predict(split.test_inputs, keep_samples=True)
    assert isinstance(answers, Regression)
    assert answers.samples is not None
    target_B1 = split.test_targets.double().numpy()[:, None]
    noise = Noise.of_precision(choice.noise_precision, 1)
    return {
        "split": float(split.number),
        "rmse": float(np.sqrt(np.square(answers.mean - target_B1).mean())),
        "log_likelihood": _log_likelihood(answers.samples, noise, target_B1),
        "drop_prob": choice.drop_prob,
        "noise_precision": choice.noise_precision,
        "validation_log_likelihood": choice.log_likelihood,
    }


def _log_likelihood(
    mean_TB1: NDArray[np.float64], noise: Noise, target_B1: NDArray[np.float64]
) -> float:
    variance_TB1 = noise.component_variance(None)
    return -float(mixture_nll(mean_TB1, variance_TB1, target_B1).mean())


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the splits and their standard errors."""
    summary = {"splits": float(len(runs))}
    for name in ("rmse", "log_likelihood"):
        found = np.array([run[name] for run in runs])
        deviation = float(found.std(ddof=1)) if len(found) > 1 else 0.0
        summary |= {name: float(found.mean()), f"{name}_error": deviation / len(found) ** 0.5}
    return summary


def _show(figures: dict[str, dict[str, float]]) -> None:
    rows: list[tuple[object, ...]] = []
    for name, found in figures.items():
        rows.append((name, "published", "20", *REFERENCE[name]))
        rows.append((name, "here", *found.values()))
    head = ("set", "", "splits", "RMSE", "± se", "LL", "± se")
    print_table("UCI regression, MC dropout", head, rows)


def _parser() -> argparse.ArgumentParser:
    made, default = parser(__doc__), Settings()
    made.add_argument("--sets", nargs="+", choices=NAMES, default=NAMES, help="which data")
    made.add_argument("--splits", type=int, default=20, help="of each set, from the first")
    made.add_argument("--splits-at-once", type=int, default=default.splits_at_once)
    made.add_argument("--workers", type=int, default=1, help="rounds side by side, in processes")
    made.add_argument("--schedule", choices=("one_cycle", "constant"), default=default.schedule)
    made.add_argument("--kept", type=Path, default=None, help="where finished splits are kept")
    made.add_argument("--record-kept", action="store_true", help="train nothing, record those")
    made.add_argument("--seed", type=int, default=default.seed)
    return made


if __name__ == "__main__":
    main()
