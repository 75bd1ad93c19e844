"""Concrete dropout on a noisy line: learned p and both kinds of uncertainty as N grows.

    python benchmarks/evidence/concrete_dropout.py --data ../shared/data

y = 2x + 8 + Normal(0, 1), x ~ Normal(0, 1). 1-1024-1024-1024 with two heads, concrete dropout in
front of every map, inputs and heads included; p starts at 0.1; length-scale 1e-4; batch 20; Adam.
Weights start as in the source, Glorot uniform, and biases at 0. K = 20 samples of every test row
are drawn by the engine from the exported bundle, with `masks="independent"`: a mask of its own for
every row, as in the source. The rows are drawn here; --data is taken for the sake of one command
line and not read.

Three settings differ from the source, the same for every N; README.md says why. The rate is
one-cycle with the peak 2e-3, the p of the input learns at ten times it, and there are 10,000 test
rows. As in the source: `--schedule constant --learning-rate 1e-3 --input-rate-factor 1`.

    RMSE            of the mean over the K samples
    noise           RMSE of the true line on the same test rows: what nothing can beat
    epistemic std   root of the mean over rows of the variance of the K means
    aleatoric std   root of the mean over rows and samples of exp(log variance)
    p, hidden       mean of the four layers in front of maps that take 1024 units

Source: Gal, Hron, Kendall 2017, arXiv:1705.07832, and the authors' notebook.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from record import parser, print_table, training_bar, write
from torch import Tensor, nn

from dubito.engine import Engine, Regression
from dubito_nn import export
from dubito_nn.dropout import ConcreteFamily
from dubito_nn.networks import MLP
from dubito_nn.training import gaussian_nll, seeded, train
from dubito_nn.training.loop import Schedule

# num_rows: epochs, and what was published: RMSE and its error, p, epistemic, aleatoric
EPOCHS = {10: 2000, 100: 200, 1000: 20, 10_000: 2}
REFERENCE = {
    10: (1.901, 0.243, 0.40, 1.278, 1.257),
    100: (1.258, 0.044, 0.236, 0.716, 1.317),
    1000: (1.036, 0.014, 0.232, 0.644, 1.222),
    10_000: (1.0037, 0.005, 0.15, 0.531, 1.125),
}
NAMES = (
    "rmse",
    "rmse_error",
    "rmse_of_truth",
    "drop_prob_hidden",
    "epistemic_std",
    "aleatoric_std",
)


@dataclass(frozen=True)
class Settings:
    """Of the published experiment, but for rates, test rows, repeats and seeds."""

    width: int = 1024
    batch_size: int = 20
    learning_rate: float = 2e-3
    schedule: Schedule = "one_cycle"
    input_rate_factor: float = 10.0
    length_scale: float = 1e-4
    drop_prob_init: float = 0.1
    num_samples: int = 20
    test_rows: int = 10_000
    repeats: int = 3
    seed: int = 0


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train for every N and repeat, measure; write the record and return its figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(
        learning_rate=options.learning_rate,
        schedule=options.schedule,
        input_rate_factor=options.input_rate_factor,
        test_rows=options.test_rows,
        repeats=options.repeats,
        seed=options.seed,
    )
    epochs = EPOCHS
    if options.quick:
        settings = replace(settings, width=16, repeats=1, test_rows=50)
        epochs = {10: 4}
    start = time.perf_counter()
    figures: dict[str, dict[str, float]] = {}
    runs: dict[str, list[dict[str, float]]] = {}
    for num_rows, passes in epochs.items():
        runs[str(num_rows)] = [
            measured(num_rows, passes, settings, settings.seed + repeat)
            for repeat in range(settings.repeats)
        ]
        figures[str(num_rows)] = _summary(runs[str(num_rows)])
    _show(figures)
    write(
        options.results,
        "concrete_dropout",
        settings={**asdict(settings), "epochs": epochs},
        figures={"mean": figures, "runs": runs},
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def measured(num_rows: int, epochs: int, settings: Settings, seed: int) -> dict[str, float]:
    """Train on N rows, export, and measure on new rows with the engine."""
    generator = np.random.default_rng(seed)
    x, y = _line(num_rows, generator)
    test_x, test_y = _line(settings.test_rows, generator)
    family = ConcreteFamily(num_rows, settings.length_scale, settings.drop_prob_init)
    hidden = (settings.width,) * 3
    with seeded(seed):
        network = MLP(1, hidden, 1, dropout=family, drop_inputs=True, heteroscedastic=True)
        _initialise(network)
    with training_bar(f"N = {num_rows}, seed {seed}") as show:
        result = train(
            network,
            x,
            y,
            loss=gaussian_nll,
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            rate_factors={"body.0.p_logit": settings.input_rate_factor},
            schedule=settings.schedule,
            seed=seed,
            progress=show,
        )
    answers = _answers(network, x, test_x, settings, seed)
    error = answers.mean - test_y.numpy()
    drop_probs = list(result.drop_probs.values())
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "rmse_of_truth": float((test_y - (2.0 * test_x + 8.0)).square().mean().sqrt()),
        "epistemic_std": float(np.sqrt(answers.epistemic_variance.mean())),
        "aleatoric_std": float(np.sqrt(answers.aleatoric_variance.mean())),
        "drop_prob_input": drop_probs[0],
        "drop_prob_hidden": float(np.mean(drop_probs[1:])),
        **{f"drop_prob of {path}": p for path, p in result.drop_probs.items()},
    }


def _answers(network: MLP, x: Tensor, test_x: Tensor, settings: Settings, seed: int) -> Regression:
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(
            network,
            x[:4],
            Path(folder) / "line.dubito",
            task="regression",
            output="mean_and_log_variance",
        )
    engine = Engine.load(bundle, num_samples=settings.num_samples, seed=seed, masks="independent")
    answers = engine.predict(test_x)
    assert isinstance(answers, Regression)
    return answers


def _initialise(network: MLP) -> None:
    """Glorot uniform weights and biases of 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def _line(num_rows: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rows of y = 2x + 8 + Normal(0, 1), both (N, 1)."""
    x = generator.standard_normal((num_rows, 1))
    y = 2.0 * x + 8.0 + generator.standard_normal((num_rows, 1))
    return torch.from_numpy(x).float(), torch.from_numpy(y).float()


def _summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Means over the repeats, and the standard error of the RMSE."""
    means = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    errors = [run["rmse"] for run in runs]
    deviation = float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0
    return {**means, "rmse_error": deviation / len(errors) ** 0.5}


def _show(figures: dict[str, dict[str, float]]) -> None:
    rows: list[tuple[object, ...]] = []
    for num_rows, found in figures.items():
        rmse, error, *others = REFERENCE[int(num_rows)]
        rows.append((num_rows, "published", rmse, error, "", *others))
        rows.append((num_rows, "here", *(found[name] for name in NAMES)))
    head = ("N", "", "RMSE", "± se", "noise", "hidden p", "epistemic", "aleatoric")
    print_table("Concrete dropout, y = 2x + 8 + N(0, 1)", head, rows)


def _parser() -> argparse.ArgumentParser:
    made, default = parser(__doc__), Settings()
    made.add_argument("--learning-rate", type=float, default=default.learning_rate)
    made.add_argument("--schedule", choices=get_args(Schedule), default=default.schedule)
    made.add_argument("--input-rate-factor", type=float, default=default.input_rate_factor)
    made.add_argument("--test-rows", type=int, default=default.test_rows)
    made.add_argument("--repeats", type=int, default=default.repeats)
    made.add_argument("--seed", type=int, default=default.seed, help="of the first repeat")
    return made


if __name__ == "__main__":
    main()
