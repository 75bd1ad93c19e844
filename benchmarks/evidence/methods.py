"""Methods that are fitted: last-layer Laplace and distilled passes, each against its reference.

Six parts, each of which `--only` names:

    reference  the numbers of laplace-torch in `tests/data/laplace`: variances, probit, best prior
    large      1,000 classes of 512 features: memory and time a row
    fashion    LeNet-5 without dropout: NLL, ECE, and AUROC of MNIST by mutual information
    uci        sets of UCI, one hidden layer of 50 units without dropout, by LLPR
    distilled  a network of garments with dropout: a head against T = 256 (`methods_distilled`)
    swapped    the same for a network of digits

The network sees all but the last 5,000 training rows, which choose the prior where `held_out` says
so; 10,000 training rows without labels make the curvature. Test rows are only judged.

Dimensions: T samples, B rows, C classes.
Source: Daxberger et al. 2021, arXiv:2106.14806; Bigi et al. 2024, arXiv:2403.02251.
"""

from __future__ import annotations

import math
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from data import Digits, mnist
from garments import Learns
from methods_distilled import distilled
from numpy.typing import NDArray
from record import parser, print_table, training_bar, write
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from uci import read_split

from dubito.engine import Engine, Sampling
from dubito.engine.laplace import (
    Labelled,
    Posterior,
    RowsAtMap,
    fit_classes,
    fit_numbers,
)
from dubito.engine.laplace.drawn_maps import DrawnMaps
from dubito.engine.laplace.posterior import probit
from dubito_nn import export
from dubito_nn.training import cross_entropy, seeded, train

PARTS = ("reference", "large", "fashion", "uci", "distilled", "swapped")
REFERENCE = Path(__file__).parents[2] / "tests/data/laplace/kron_last_layer.npz"
SETS = ("boston", "concrete", "energy", "yacht")
_HELD_OUT, _CURVATURE = 5000, 10_000
_BINS = 15
_WIDE = 8  # columns of a table
_SEED = 0

Figures = dict[str, float]


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """Measure what is asked for, print it and write the record."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    made.add_argument("--epochs", type=int, default=15, help="of LeNet-5")
    made.add_argument("--dropout-epochs", type=int, default=18, help="of the network with dropout")
    made.add_argument("--rows", type=int, default=10_000, help="that a head is distilled from")
    made.add_argument("--judged", type=int, default=10_000, help="test rows that judge it")
    made.add_argument("--kept", type=Path, default=None, help="folder of the networks with dropout")
    made.add_argument("--splits", type=int, default=5, help="of each set of UCI")
    asked = made.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    began = time.perf_counter()
    figures: dict[str, object] = {}
    if "reference" in asked.only:
        figures["reference"] = reference()
    if "large" in asked.only:
        figures["large"] = large(16 if asked.quick else 512)
    if "fashion" in asked.only:
        figures["fashion"] = fashion(asked.data, asked.epochs, is_quick=asked.quick)
    if "uci" in asked.only:
        sets, splits = (("yacht",), 1) if asked.quick else (SETS, asked.splits)
        figures["uci"] = {name: uci(asked.data, name, splits, asked.quick) for name in sets}
    parts: dict[str, Learns] = {"distilled": "garments", "swapped": "digits"}
    for part in [name for name in parts if name in asked.only][: 1 if asked.quick else 2]:
        data, counts = (asked.data, parts[part]), (asked.dropout_epochs, asked.rows, asked.judged)
        figures[part] = distilled(*data, *counts, kept=asked.kept, is_quick=asked.quick)
    for part, found in figures.items():
        _show(part, found)
    names = ("epochs", "splits", "dropout_epochs", "rows", "judged", "only")
    settings = {"seed": _SEED, **{name: getattr(asked, name) for name in names}}
    seconds = time.perf_counter() - began
    write(
        asked.results,
        "methods" if len(asked.only) == len(PARTS) else "_".join(("methods", *asked.only)),
        settings=settings,
        figures=figures,
        seconds=seconds,
        is_quick=asked.quick,
    )
    return figures


def reference() -> Figures:
    """How far what is served is from laplace-torch on one small network."""
    with np.load(REFERENCE) as stored:
        known = dict(stored)
    hidden, last = (
        _layer(known[f"{name}_weight"], known[f"{name}_bias"]) for name in ("hidden", "last")
    )
    network = nn.Sequential(hidden, nn.ReLU(), last)
    engine = _engine(network, torch.from_numpy(known["rows"]).float(), "logits")
    seen = _at_map(engine, torch.from_numpy(known["rows"]).float())
    options = {"num_training_rows": len(known["rows"]), "has_bias": True}
    norm = engine.fits.last_map.squared_norm(engine.made_up_rows())
    prior = float(known["prior_precision"])
    fitted = fit_classes(seen.seen, **options, squared_norm=norm, prior_precision=prior)  # type: ignore[arg-type]
    best = fit_classes(seen.seen, **options, squared_norm=norm)  # type: ignore[arg-type]
    asked = {"input": torch.from_numpy(known["asked"]).float()}
    features, scores = engine.fits.last_map.run(asked)
    variances = fitted.posterior.variances(features)
    expected = torch.from_numpy(known["covariance"]).diagonal(dim1=1, dim2=2)
    probs = probit(scores.double(), variances)
    return {
        "variance, largest relative difference": float((variances / expected - 1).abs().max()),
        "probit, largest difference": float(
            (probs - torch.from_numpy(known["probit"])).abs().max()
        ),
        "best prior, relative difference": abs(
            float(str(best.report["prior_precision"])) / float(known["best_prior_precision"]) - 1
        ),
    }


def large(num_rows: int, num_classes: int = 1000, num_features: int = 512) -> Figures:
    """Memory and time of drawn maps of many classes, T = 64; and of their closed variances.

    Times are those of the processor: they hold on a busy machine too.
    """
    generator = torch.Generator().manual_seed(_SEED)

    def turned(size: int) -> Tensor:
        square = torch.randn(size, size, generator=generator, dtype=torch.float64)
        rotation: Tensor = torch.linalg.qr(square).Q
        return rotation

    variance = torch.rand(num_classes, num_features + 1, generator=generator).double()
    posterior = Posterior(turned(num_features), turned(num_classes), variance)
    before = _peak_mb()
    maps = DrawnMaps(posterior, torch.device("cpu"), 128 * 2**20)
    rows = torch.randn(num_rows, num_features, generator=generator)
    key = Sampling(64).key

    def drawn() -> None:
        for some in maps.noise(rows, 64, key):
            some.sum()

    began = time.process_time()
    drawn()
    first_s = time.process_time() - began
    began = time.process_time()
    drawn()
    again_s = time.process_time() - began
    began = time.process_time()
    posterior.variances(rows)
    closed_s = time.process_time() - began
    return {
        "memory, MB": _peak_mb() - before,
        "first call of a seed, ms of a processor a row": 1000 * first_s / num_rows,
        "later calls, ms of a processor a row": 1000 * again_s / num_rows,
        "closed variances, ms of a processor a row": 1000 * closed_s / num_rows,
    }


class LeNet(nn.Module):
    """LeNet-5 with rectified units: (B, 784) -> (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        )
        self.head = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.body(x.reshape(-1, 1, 28, 28)))
        return logits


def fashion(folder: Path, epochs: int, *, is_quick: bool) -> Mapping[str, Figures]:
    """Point pass and fits of one trained network, on garments and on digits."""
    garments, digits = mnist(folder, "fashion_mnist"), mnist(folder)
    if is_quick:
        garments, digits, epochs = garments.first(900), digits.first(200), 6
    held_out = min(_HELD_OUT, len(garments.images) // 3)
    with seeded(_SEED):
        network = LeNet()
    training = garments.images[:-held_out], garments.labels[:-held_out]
    with training_bar("LeNet-5") as show:
        train(
            network,
            *training,
            loss=cross_entropy,
            epochs=epochs,
            batch_size=16 if is_quick else 128,
            learning_rate=1e-3,
            seed=_SEED,
            progress=show,
        )
    engine = _engine(network, garments.images, "logits")
    return _judged(engine, garments, digits, len(training[0]))


def _judged(
    engine: Engine, garments: Digits, digits: Digits, num_training_rows: int
) -> Mapping[str, Figures]:
    held_out = len(garments.images) - num_training_rows
    seen = _at_map(engine, garments.images[:_CURVATURE])
    last = _at_map(engine, garments.images[-held_out:], keeps_rows=True)
    labelled = Labelled(
        torch.from_numpy(last.features), torch.from_numpy(last.scores), garments.labels[-held_out:]
    )
    norm = engine.fits.last_map.squared_norm(engine.made_up_rows())
    options = {"num_training_rows": num_training_rows, "has_bias": True, "squared_norm": norm}
    figures = {"point": _of_method(engine, garments, digits, Sampling(1, method="point"))}
    for number, rows in ((1, None), (2, labelled)):
        fitted = fit_classes(seen.seen, **options, held_out=rows)  # type: ignore[arg-type]
        engine.fits.put(number, fitted.posterior)
        sampling = Sampling(64, method="laplace", fit=number)
        name = f"laplace, {fitted.report['chosen_by']}"
        prior = float(str(fitted.report["prior_precision"]))
        figures[name] = _of_method(engine, garments, digits, sampling) | {"prior": prior}
    return figures


def _of_method(engine: Engine, garments: Digits, digits: Digits, sampling: Sampling) -> Figures:
    near, far = (
        engine.predict(rows, sampling=sampling)
        for rows in (garments.test_images, digits.test_images)
    )
    own = near.mean[np.arange(len(near.mean)), garments.test_labels.numpy()]

    def auroc(name: str) -> float:
        scores = np.concatenate([getattr(near, name), getattr(far, name)])
        is_far = np.repeat([0, 1], [len(near.mean), len(far.mean)])
        return float(roc_auc_score(is_far, scores))

    return {
        "accuracy": float((near.mean.argmax(1) == garments.test_labels.numpy()).mean()),
        "nll": float(-np.log(np.maximum(own, 1e-300)).mean()),
        "ece": _ece(near.mean, garments.test_labels.numpy()),
        "auroc, entropy": auroc("predictive_entropy"),
        "auroc, mutual information": auroc("mutual_information"),
    }


def _ece(probs_BC: NDArray[np.float64], label_B: NDArray[np.int64]) -> float:
    """Expected calibration error over 15 bins of equal width."""
    confidence_B = probs_BC.max(1)
    is_right_B = probs_BC.argmax(1) == label_B
    bin_B = np.minimum((confidence_B * _BINS).astype(int), _BINS - 1)
    gaps = (
        abs(is_right_B[bin_B == one].mean() - confidence_B[bin_B == one].mean())
        * (bin_B == one).mean()
        for one in np.unique(bin_B)
    )
    return float(sum(gaps))


def uci(folder: Path, name: str, splits: int, is_quick: bool) -> Figures:
    """NLL and coverage at 90 % of LLPR beside one noise for all rows, mean over splits.

    A fifth of the training rows is held out for α and ς, and for the one noise; the others shape
    the spread without their targets.
    """
    runs = [_split(folder, name, number, is_quick) for number in range(splits)]
    figures = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    gains = [run["nll, one noise"] - run["nll"] for run in runs]
    deviation = float(np.std(gains, ddof=1)) if splits > 1 else 0.0
    return figures | {"gain": float(np.mean(gains)), "± se": deviation / splits**0.5}


def _split(folder: Path, name: str, number: int, is_quick: bool) -> Figures:
    split = read_split(folder / "uci_regression", name, number)
    shift, factor = split.inputs.mean(0), split.inputs.std(0).clamp_min(1e-6)
    mean, deviation = split.targets.mean(), split.targets.std()
    rows, test_rows = ((part - shift) / factor for part in (split.inputs, split.test_inputs))
    targets, test_targets = (
        ((part - mean) / deviation)[:, None] for part in (split.targets, split.test_targets)
    )
    kept = len(rows) // 5 if is_quick else len(rows) * 4 // 5
    with seeded(number):
        network = nn.Sequential(nn.Linear(rows.shape[1], 50), nn.ReLU(), nn.Linear(50, 1))
    _fit_mean(network, rows[:kept], targets[:kept], 5 if is_quick else 400, number)
    engine = _engine(network, rows, "mean")
    at_map = _at_map(engine, rows, keeps_rows=True)
    features, scores = (torch.from_numpy(part[kept:]) for part in (at_map.features, at_map.scores))
    labelled = Labelled(features, scores, targets[kept:])
    fitted = fit_numbers(at_map.seen, labelled, num_training_rows=len(rows), has_bias=True)
    features, scores = engine.fits.last_map.run({"input": test_rows})
    squared = (test_targets - scores).double().square()
    one = (targets[kept:] - labelled.scores).double().square().mean().expand_as(squared)
    own, known = (fitted.posterior.variances(part) for part in (features, labelled.features))
    found = {"nll": own, "nll, one noise": one}
    (alpha,), least = fitted.report["alpha"], fitted.report["regularizer"] ** 2
    u_BG, of_G = fitted.posterior.directions(features.double()).square(), fitted.posterior.variance
    eigen_G = (alpha**2 / of_G[0] - least).clamp_min(0)
    tried = [u_BG @ (1 / (eigen_G + least * 1.5**k))[:, None] for k in range(-40, 41)]
    tried = [h_B1 * (squared / h_B1).mean() for h_B1 in tried]
    found["nll, α and ς of the test rows"] = min(tried, key=lambda v: _normal_nll(squared, v))
    found["nll, one noise of the test rows"] = squared.mean().expand_as(squared)
    return {
        **{key: _normal_nll(squared, v) + math.log(float(deviation)) for key, v in found.items()},
        "coverage at 90 %": float((squared <= 1.6449**2 * own).double().mean()),
        "coverage at 90 %, one noise": float((squared <= 1.6449**2 * one).double().mean()),
        "coverage at 90 %, conformal": _covered(squared / own, labelled, known),
    }


def _covered(ratio: Tensor, labelled: Labelled, variance: Tensor) -> float:
    """How many rows intervals hold that are as wide as the held-out rows ask for.

    Of these the spread was fitted too, each judged with itself: some are a little too narrow.
    """
    held_out = (labelled.truths - labelled.scores).double().square() / variance
    rank = math.ceil(0.9 * (len(held_out) + 1))
    threshold = held_out.flatten().sort().values[min(rank, len(held_out)) - 1]
    return float((ratio <= threshold).double().mean())


def _fit_mean(network: nn.Module, rows: Tensor, targets: Tensor, epochs: int, seed: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), 3e-3, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for some in torch.randperm(len(rows), generator=generator).split(64):
            optimiser.zero_grad()
            (network(rows[some]) - targets[some]).square().mean().backward()
            optimiser.step()


def _normal_nll(squared: Tensor, variance: Tensor) -> float:
    terms = squared / variance + variance.log() + math.log(2 * math.pi)
    return 0.5 * float(terms.mean())


def _engine(network: nn.Module, rows: Tensor, output: str) -> Engine:
    task = "regression" if output == "mean" else "classification"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.dubito"
        export(network, rows[:4], path, task=task, output=output, deterministic=True)  # type: ignore[arg-type]
        return Engine.load(path)


def _at_map(engine: Engine, rows: Tensor, *, keeps_rows: bool = False) -> RowsAtMap:
    (spec,) = engine.manifest.inputs
    blocks = ({spec.name: part} for part in rows.split(500))
    return engine.fits.look(blocks, keeps_rows=keeps_rows, check=lambda: None)


def _layer(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return layer


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _show(part: str, found: object) -> None:
    assert isinstance(found, Mapping)
    nested = {k: v for k, v in found.items() if isinstance(v, Mapping)}
    if not nested:
        print_table(part, ("figure", "here"), list(found.items()))
        return
    names = list(dict.fromkeys(name for figures in nested.values() for name in figures))
    if len(names) > _WIDE:
        for key, figures in nested.items():
            print_table(f"{part}: {key}", ("figure", "here"), list(figures.items()))
        return
    rows = [(key, *(figures.get(name, "") for name in names)) for key, figures in nested.items()]
    print_table(part, ("", *names), rows)


if __name__ == "__main__":
    main()
