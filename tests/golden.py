"""What Dubito answered when it was last known to be right: bundles and replies under `tests/data`.

    python -m tests.golden          renews them, for a new torch or a change that is meant

One network for every kind of head, of weights that are whole numbers over 16, so that export makes
the same bytes on every machine; predict, calibrate, evaluate and select over HTTP, in a few
configurations each. `tests/test_golden.py` compares.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito.settings import Settings
from dubito_nn import export

from .conftest import Server
from .http import upload

FOLDER = Path(__file__).parent / "data" / "golden"
ANSWERS = FOLDER / "answers.json"
NUM_HELD_OUT, NUM_ASKED, NUM_POOL = 520, 5, 12
Json = dict[str, Any]


def dense(num_outputs: int, *last: nn.Module) -> nn.Module:
    """A perceptron on 4 numbers."""
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, num_outputs), *last
    )


def convolution(num_outputs: int) -> nn.Module:
    """A map of the input's size, with channels dropped."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Dropout2d(0.25),
        nn.Conv2d(4, num_outputs, 3, padding=1),
    )


class Pair(nn.Module):
    """Means and log-variances of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.log_variance = dense(8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)


@dataclass(frozen=True)
class Case:
    """A kind of head: its network, what is declared of it, and what is asked.

    `chosen_by` holds what a strategy asks for beside its name; `truth` draws truths of the held-out
    rows from their means and uniform numbers of the same shape.
    """

    build: Callable[[], nn.Module]
    declared: Mapping[str, Any]
    shape: tuple[int, ...] = (4,)
    fits: tuple[Json, ...] = ({},)
    strategies: tuple[str, ...] = ("entropy", "bald", "batchbald")
    chosen_by: Mapping[str, Json] = field(default_factory=dict)
    truth: Callable[[NDArray[np.float64], NDArray[np.float64]], object] = field(
        default=lambda mean, uniform: drawn_classes(mean, uniform).tolist()
    )


def drawn_classes(mean: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """A class of each distribution, from its own probabilities."""
    return (uniform[..., :1] > mean.cumsum(-1)[..., :-1]).sum(-1)


def drawn_labels(mean: NDArray[np.float64], uniform: NDArray[np.float64]) -> object:
    """Which labels are on, from their own probabilities."""
    return (uniform < mean).astype(int).tolist()


def drawn_targets(mean: NDArray[np.float64], uniform: NDArray[np.float64]) -> object:
    """Targets about the means, uniform within 2 on either side."""
    return (mean + 4 * uniform - 2).tolist()


CLASSES = {"task": "classification", "output": "logits"}
CASES = {
    "classes": Case(
        lambda: dense(3),
        CLASSES | {"classes": ("ant", "bee", "cat")},
        fits=(
            {},
            {"scaling": "vector", "sets": "raps", "ood_score": "combined"},
            {"scaling": "isotonic", "sets": "aps", "per_class": True, "target_acceptance": 0.6},
            {"scaling": "none", "ood_score": "mahalanobis", "target_risk": 0.7},
        ),
        strategies=(
            *("entropy", "margin", "variation_ratio", "bald", "batchbald"),
            *("power_bald", "coreset", "badge", "random"),
        ),
    ),
    "log-probs": Case(
        lambda: dense(3, nn.LogSoftmax(-1)), {"task": "classification", "output": "log_probs"}
    ),
    "one-sigmoid": Case(
        lambda: dense(1),
        {"task": "classification", "output": "sigmoid_logits", "classes": ("no", "yes")},
    ),
    "labels": Case(
        lambda: dense(3),
        {"task": "multilabel", "output": "sigmoid_logits", "classes": ("a", "b", "c")},
        fits=({}, {"position_share": 0.6, "scaling": "isotonic"}),
        truth=drawn_labels,
    ),
    "places": Case(
        lambda: convolution(3),
        CLASSES | {"class_axis": 1},
        shape=(1, 3, 3),
        fits=({}, {"position_share": 0.5}),
        strategies=("entropy", "bald"),
    ),
    "number": Case(
        lambda: dense(1),
        {"task": "regression", "output": "mean", "target_scale": ([10.0], [2.0])},
        fits=({}, {"intervals": "cqr", "target_acceptance": 0.5}, {"noise_precision": 0.5}),
        strategies=("variance", "bald", "batchbald", "expected_improvement", "thompson"),
        chosen_by={"expected_improvement": {"incumbent": 10.0}},
        truth=drawn_targets,
    ),
    "numbers": Case(
        Pair,
        {"task": "regression", "output": "mean_and_log_variance"},
        fits=({}, {"intervals": "cqr"}),
        strategies=("variance", "bald"),
        truth=drawn_targets,
    ),
}
ASKED: tuple[Json, ...] = (
    {},
    {"num_samples": 48, "seed": 3, "draw": "iid"},
    {"method": "point"},
    {"method": "moments"},
    {"tolerance": 0.05, "num_samples": 64},
    {"masks": "independent"},
)


def built(case: Case) -> nn.Module:
    """The network, its weights sixteenths from -1 to 1."""
    network, numbers = case.build().eval(), np.random.default_rng(0)
    for parameter in network.parameters():
        whole = numbers.integers(-16, 17, tuple(parameter.shape))
        parameter.data = torch.from_numpy(whole / 16).float()
    return network


def rows(case: Case, count: int, seed: int) -> NDArray[np.float32]:
    """Rows of eighths."""
    whole = np.random.default_rng(seed).integers(-16, 17, (count, *case.shape))
    return (whole / 8).astype(np.float32)


def exported(name: str, path: Path) -> Path:
    """The bundle of a case."""
    case = CASES[name]
    export(built(case), torch.from_numpy(rows(case, 4, 0)), path, **case.declared)
    return path


def answers(client: httpx.Client, name: str) -> Iterator[tuple[str, Json]]:
    """Every question to a model that was just uploaded, and what it was answered."""
    case, model = CASES[name], f"/v1/models/{name}"

    def ask(action: str, body: Json, unsaid: Json | None = None) -> tuple[str, Json]:
        reply = client.post(f"{model}/{action}", json=(unsaid or {}) | body)
        said = {key: value for key, value in body.items() if key not in GIVEN}
        return f"{name} {action} {json.dumps(said)}", {
            "status": reply.status_code,
            **{
                key: known_then(key, value)
                for key, value in reply.json().items()
                if key != "request_id"
            },
        }

    asked = {"inputs": rows(case, NUM_ASKED, 1).tolist()}
    for options in ASKED:
        yield ask("predict", asked | options)
    held_out = {"inputs": rows(case, NUM_HELD_OUT, 2).tolist()}
    _, raw = ask("predict", held_out | {"outputs": ["mean"]})
    mean = np.array(raw["outputs"]["mean"])
    truth = case.truth(mean, np.random.default_rng(3).random(mean.shape))
    key = "targets" if case.declared["task"] == "regression" else "labels"
    unsaid = DEFAULT_THEN[case.declared["task"]]
    if "class_axis" in case.declared:  # sets of positions are never empty
        unsaid = DEFAULT_THEN["multilabel"]
    strange = {"ood_inputs": (8 * rows(case, 20, 4)).tolist()}
    for number, options in enumerate(case.fits, 1):
        yield ask("calibrate", held_out | strange | {key: truth} | options, unsaid)
        _, predicted = ask("predict", asked | {"coverage": 0.8})
        yield f"{name} predict with calibration {number}", predicted
        yield ask("evaluate", held_out | strange | {key: truth})
    pool = {"inputs": rows(case, NUM_POOL, 5).tolist(), "k": 3, "seed": 1}
    for strategy in case.strategies:
        yield ask("select", pool | {"strategy": strategy} | case.chosen_by.get(strategy, {}))


GIVEN = ("inputs", "labels", "targets", "ood_inputs")
DEFAULT_THEN = {
    "classification": {
        "ood_score": "predictive_entropy",
        "scaling": "temperature",
        "empty_sets": True,
    },
    "multilabel": {"ood_score": "predictive_entropy", "scaling": "temperature"},
    "regression": {"ood_score": "epistemic_variance"},
}
"""What a calibration was where nothing was named, when these answers were written, by task."""


def known_then(field: str, value: Json) -> Json:
    """A field of a reply without what later builds added to it."""
    if field != "ood":
        return value
    return {key: one for key, one in value.items() if key not in ("made_rows", "blind_to")}


def answered(client: httpx.Client, name: str) -> Json:
    """All answers of a model, by what was asked."""
    upload(client, name, FOLDER / f"{name}.dubito").raise_for_status()
    return dict(answers(client, name))


def as_text(found: Mapping[str, Json]) -> str:
    """A line for each question, so that a change shows what it changes."""
    lines = [
        f"{json.dumps(asked)}: {json.dumps(shortened(answer))}"
        for of_model in found.values()
        for asked, answer in of_model.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def shortened(value: object) -> object:
    """Numbers with nine digits, which is more than is compared."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: shortened(one) for key, one in value.items()}
    return [shortened(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    """Write bundles and answers anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Settings(data_dir=Path(folder), num_samples=32))
        server.start()
        try:
            with httpx.Client(base_url=server.url, timeout=60) as client:
                found = {}
                for name in CASES:
                    exported(name, FOLDER / f"{name}.dubito")
                    found[name] = answered(client, name)
                    print(name, len(found[name]), file=sys.stderr)
        finally:
            server.stop()
    ANSWERS.write_text(as_text(found))


if __name__ == "__main__":
    main()
