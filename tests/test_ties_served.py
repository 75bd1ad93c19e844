"""Rows that repeat, through the engine: equal answers in any company, for all there is to fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito.calibration.choices import Choices
from dubito.calibration.flags.scorer import OF_CLASSES, OF_NUMBERS
from dubito.calibration.heads import Request, head_of
from dubito.calibration.promises import draws
from dubito.calibration.promises.policy import Target
from dubito.calibration.record import Calibration
from dubito.engine import Classification, Engine, Sampling
from dubito.engine.calling.sampling import Draw
from dubito.engine.heads import class_logits
from dubito.engine.heads.logits import logits
from dubito.engine.heads.numbers import mean_and_variance
from dubito.monitoring.observing import observe
from dubito_nn import export

from . import fits
from .fits import fit_classification, fit_positions, fit_regression

Floats = NDArray[np.float64]


class Dense(nn.Module):
    """A class, or three numbers, at each of two positions."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = hidden(), nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x)).view(-1, 2, 3)


def hidden() -> nn.Module:
    return nn.Sequential(nn.Linear(NUM_KINDS, 64), nn.ReLU(), nn.Dropout(0.3))


NUM_KINDS = 8
KINDS = torch.eye(NUM_KINDS)
HEADS: dict[str, tuple[Callable[[], nn.Module], dict[str, object]]] = {
    "classification": (
        lambda: nn.Sequential(hidden(), nn.Linear(64, 3)),
        {"task": "classification", "output": "logits", "features": "0.1"},
    ),
    "multilabel": (
        lambda: nn.Sequential(hidden(), nn.Linear(64, 2)),
        {"task": "multilabel", "output": "sigmoid_logits"},
    ),
    "dense": (Dense, {"task": "classification", "output": "logits", "class_axis": -1}),
    "regression": (
        lambda: nn.Sequential(hidden(), nn.Linear(64, 2)),
        {"task": "regression", "output": "mean", "features": "0.1"},
    ),
    "dense_regression": (Dense, {"task": "regression", "output": "mean", "output_axis": -1}),
}


@pytest.fixture(scope="module", params=HEADS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    make, declared = HEADS[request.param]
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = tmp_path_factory.mktemp("ties") / "network.dubito"
        export(make(), torch.randn(4, NUM_KINDS), path, **declared)  # type: ignore[arg-type]
    return Engine.load(path)


def asked_of(head: str) -> Iterator[dict[str, object]]:
    """Every score, set, interval, policy and scaling of a head, each at least once."""
    has_features = head in ("classification", "regression")
    family = OF_NUMBERS if "regression" in head else OF_CLASSES
    names = family.known(has_features=has_features)
    targets = [Target(acceptance=0.5), Target()]
    fitted = [Choices(scaling=one) for one in ("temperature", "isotonic", "none")]
    if head == "classification":
        targets.append(Target(risk=0.5))
        fitted += [Choices("none", "aps"), Choices("vector", "raps"), Choices(per_class=True)]
    elif head == "regression":
        fitted = [Choices(), Choices(intervals="cqr")]
    elif head == "dense_regression":
        fitted = [Choices(), Choices(position_share=0.5)]
    for index in range(max(len(names), len(fitted))):
        yield {
            "choices": fitted[index % len(fitted)],
            "target": targets[index % len(targets)],
            "score": names[index % len(names)],
        }


def fitted(engine: Engine, sampling: Sampling, asked: dict[str, object]) -> Calibration:
    """A calibration on 560 rows of eight kinds; coverage 0.7, alpha 0.2."""
    generator = np.random.default_rng(4)
    kind_B = generator.permutation(np.arange(560) % NUM_KINDS)
    rows = KINDS[torch.from_numpy(kind_B)]
    passes, manifest = engine.sample(rows, sampling=sampling), engine.manifest
    has_features = manifest.features is not None
    common = {"sampling": sampling, "alpha": 0.2, "coverage": 0.7, "seed": 0, **asked}
    if has_features:
        common["features"] = engine.features(rows).numpy()
    if manifest.head == "regression":
        mean_TBD = mean_and_variance(passes, manifest)[0].numpy()
        target_BD = (kind_B[:, None] + generator.integers(0, 3, (560, 2))).astype(np.float64)
        return fit_regression(mean_TBD, None, target_BD, **common)  # type: ignore[arg-type]
    if manifest.head == "dense_regression":
        parts = head_of(manifest).parts(passes, manifest)
        drawn = generator.integers(0, 3, (560, 2, 3))
        target_BPD = (kind_B[:, None, None] + drawn).astype(np.float64)
        return fits.fitted(manifest.head, (parts[0].numpy(),), target_BPD, **common)
    if manifest.has_positions:
        label_BP = generator.integers(0, 2, (560, 2))
        logits_TBPC = class_logits(passes, manifest).numpy()
        return fit_positions(logits_TBPC, label_BP, manifest.head, **common)  # type: ignore[arg-type]
    uniform_B = draws.by_content({"x": rows.numpy()}, sampling.seed)
    logits_TBC = logits(passes, manifest.output).numpy()
    said_B = logits_TBC.mean(axis=0).argmax(axis=-1)
    label_B = np.where(generator.random(560) < 0.3, generator.integers(0, 3, 560), said_B)
    return fit_classification(logits_TBC, label_B, uniform_B=uniform_B, **common)  # type: ignore[arg-type]


def answers(engine: Engine, record: Calibration, rows: Tensor) -> tuple[list[object], Floats]:
    """What is decided of every row and kept for monitoring; and its scores."""
    head = record.head
    said = engine.predict(
        rows,
        sampling=record.sampling,
        temperature=head.logit_scaling,
        keep_samples=head.needs_passes(("interval",)),
    )
    feature_BF = engine.features(rows).numpy() if record.needs_features else None
    uniform_B = draws.by_content({"x": rows.numpy()}, record.sampling.seed)
    served = head.served(said, Request(features=feature_BF, uniform=uniform_B))
    kept = observe(served, record)
    assert kept is not None
    p_value_B = record.ood.p_values(kept.score)
    decisions = record.policy.decide(kept.is_flagged, served.uncertainty, served.set_sizes)
    shown: list[object] = [None] * len(rows)
    if isinstance(said, Classification):
        shown = list(zip(served.members.tolist(), said.label_index.tolist(), strict=True))
    told = zip(decisions, kept.is_flagged.tolist(), p_value_B.tolist(), shown, strict=True)
    return list(told), kept.score


@pytest.mark.parametrize("draw", ["stratified", "iid"])
def test_equal_rows_get_equal_answers_whoever_stands_beside_them(
    engine: Engine, draw: Draw
) -> None:
    """Alone, among up to 1,000 others, and in one request or in pieces, for all there is to fit."""
    head, sampling = engine.manifest.head, Sampling(num_samples=16, draw=draw)
    is_moved = False
    for asked in asked_of(head):
        record = fitted(engine, sampling, asked)
        alone = [answers(engine, record, KINDS[kind : kind + 1]) for kind in range(NUM_KINDS)]
        for size in (3, 104, 1000):
            kind_B = torch.arange(size) % NUM_KINDS
            for piece_b in kind_B.split(size if size < 1000 else 997):
                told, score_b = answers(engine, record, KINDS[piece_b])
                for kind, one, score in zip(piece_b.tolist(), told, score_b, strict=True):
                    assert one == alone[kind][0][0], (asked, size, kind)
                    is_moved |= bool(score != alone[kind][1][0])
    if not is_moved:
        pytest.skip("no figure moves with its neighbours here: this processor cannot tell")
