"""Warnings of the export: there when they should be, and not when they should not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn import export
from dubito_nn.advice import TEXTS
from dubito_nn.dropout import (
    DropBlock2d,
    DropConnect,
    GaussianDropout,
    RecurrentDropoutGRU,
    RecurrentDropoutLSTM,
    VariationalLSTM,
)
from dubito_nn.networks import CNN, MLP

DOCUMENT = Path(__file__).parent.parent / "docs" / "warnings.md"


def mlp(first: float, last: float = 0.5, *, on_input: float = 0.0, at_end: float = 0.0):
    layers: list[nn.Module] = [nn.Dropout(on_input)] if on_input else []
    layers += [nn.Linear(8, 16), nn.ReLU()] + ([nn.Dropout(first)] if first else [])
    layers += [nn.Linear(16, 16), nn.ReLU()] + ([nn.Dropout(last)] if last else [])
    layers += [nn.Linear(16, 3)] + ([nn.Dropout(at_end)] if at_end else [])
    return nn.Sequential(*layers)


def cnn(*behind: nn.Module, channels: int = 4) -> nn.Sequential:
    """A convolution, what stands behind it, and a head with dropout before it."""
    body = [nn.Conv2d(2, channels, 3), nn.ReLU(), *behind, nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(
        *body, nn.Linear(4 * channels, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)
    )


def normalised(p: float, *, before: bool) -> nn.Sequential:
    drop, norm = nn.Dropout2d(p), nn.BatchNorm2d(4)
    return cnn(*((drop, nn.Conv2d(4, 4, 1), norm) if before else (norm, nn.ReLU(), drop)))


class DropBlock(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        seeds = torch.bernoulli(torch.full_like(x, 0.1))
        kept = 1 - functional.max_pool2d(seeds, 3, stride=1, padding=1)
        return x * kept


class Encoder(nn.Module):
    def __init__(self, attention: float, p: float = 0.1) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, p, batch_first=True)
        self.layer.self_attn.dropout = attention
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Loop(nn.Module):
    """A recurrence over five steps that drops its state, its update, or its output."""

    def __init__(self, what: str, cell: type[nn.RNNCellBase] | None = None) -> None:
        super().__init__()
        self.what, self.drop, self.last = what, nn.Dropout(0.3), nn.Dropout(0.3)
        self.cell = cell(4, 6) if cell else None
        self.inner, self.recurrent, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = memory = x.new_zeros(x.shape[0], 6)
        once = self.drop(torch.ones_like(state)) if self.what in ("once", "repeated") else state
        masks = self.drop(torch.ones(x.shape[0], 5, 6)) if self.what == "cut" else state
        if self.what == "repeated":
            masks = once.unsqueeze(1).expand(-1, 5, -1)
        for step in range(5):
            if isinstance(self.cell, nn.LSTMCell):
                state, memory = self.cell(x[:, step], (state, memory))
            elif self.cell is not None:
                state = self.cell(x[:, step], state)
            else:
                update = torch.tanh(self.inner(x[:, step]) + self.recurrent(state))
                state = 0.5 * state + self.drop(update) if self.what == "update" else update
            if self.what == "state":
                state = self.drop(state)
            elif self.what == "once":
                state = state * once
            elif self.what in ("cut", "repeated"):
                state = state * masks[:, step]
        return self.head(self.last(state))


class Layers(nn.Module):
    """An RNN with dropout between its layers, and maybe before the head."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.rnn, self.drop = nn.GRU(4, 6, 2, dropout=0.3, batch_first=True), nn.Dropout(p)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.rnn(x)[0][:, -1]
        return self.head(self.drop(outputs) if self.drop.p else outputs)


class Ours(nn.Module):
    """One of our recurrent layers, dropout, a head."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn, self.drop, self.head = rnn, nn.Dropout(0.3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.rnn(x)[0][:, -1]))


class Words(nn.Module):
    """Words dropped before they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.drop_prob = 0.4

    def forward(self, ids: Tensor) -> Tensor:
        if self.training:
            kept = torch.bernoulli(torch.full(ids.shape, 1 - self.drop_prob)).bool()
            ids = torch.where(kept, ids, torch.zeros_like(ids))
        return self.head(functional.dropout(self.embedding(ids).mean(1), 0.3, self.training))


class Residual(nn.Module):
    """Stochastic depth, whose rates rise from 0."""

    class Path(nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.drop_prob = p

        def forward(self, x: Tensor) -> Tensor:
            if not self.training or self.drop_prob == 0:
                return x
            kept = x.new_empty(x.shape[0], 1).bernoulli_(1 - self.drop_prob)
            return x * kept / (1 - self.drop_prob)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.paths = nn.ModuleList(self.Path(p) for p in (0.0, 0.25, 0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block, path in zip(self.blocks, self.paths, strict=True):
            x = x + path(torch.relu(block(x)))
        return self.head(x)


class Connect(nn.Module):
    """Weights of the last layer dropped."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(8, 8), nn.Linear(8, 3), last

    def forward(self, x: Tensor) -> Tensor:
        layer = self.two if self.last else self.one
        weight = functional.dropout(layer.weight, 0.5, self.training)
        if self.last:
            return functional.linear(torch.relu(self.one(x)), weight, self.two.bias)
        return self.two(torch.relu(functional.linear(x, weight, self.one.bias)))


@dataclass(frozen=True)
class Case:
    """A network, one row of its input, and what the export says, module by code."""

    build: Callable[[], nn.Module]
    row: tuple[int, ...]
    found: dict[str, str]


IMAGE, FLAT, TIME = (2, 8, 8), (8,), (5, 4)
CASES = {
    "hidden layers, p 0.5": Case(lambda: mlp(0.5), FLAT, {}),
    "inputs, p 0.2": Case(lambda: mlp(0.5, on_input=0.2), FLAT, {}),
    "inputs, p 0.3": Case(lambda: mlp(0.5, on_input=0.3), FLAT, {"input-rate": "`0` (p = 0.3)"}),
    "very high": Case(lambda: mlp(0.5, 0.8), FLAT, {"very-high-rate": "`5` (p = 0.8)"}),
    "high": Case(lambda: mlp(0.5, 0.79), FLAT, {}),
    "output": Case(lambda: mlp(0.5, at_end=0.2), FLAT, {"output-dropout": "`7` (p = 0.2)"}),
    "first layer alone": Case(lambda: mlp(0.5, 0.0), FLAT, {"no-dropout-at-the-end": "`5`"}),
    "idle": Case(lambda: nn.Sequential(nn.Dropout(0.0), mlp(0.5)), FLAT, {"idle-dropout": "`0`"}),
    "channels": Case(lambda: cnn(nn.Dropout2d(0.3)), IMAGE, {}),
    "channels, p 0.4": Case(
        lambda: cnn(nn.Dropout2d(0.4)), IMAGE, {"convolution-rate": "`2` (p = 0.4)"}
    ),
    "elements of a map": Case(
        lambda: cnn(nn.GroupNorm(2, 4), nn.Dropout(0.2)),
        IMAGE,
        {"element-after-convolution": "`3` (p = 0.2)"},
    ),
    "features of a map": Case(
        lambda: nn.Sequential(cnn(), nn.Linear(3, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)),
        IMAGE,
        {},
    ),
    "blocks of a map": Case(lambda: cnn(DropBlock()), IMAGE, {}),
    "our blocks of a map": Case(lambda: cnn(DropBlock2d(0.3, 3)), IMAGE, {}),
    "our blocks of a map, p 0.5": Case(  # of which one seed in twenty-five drops a block
        lambda: cnn(DropBlock2d(0.5, 3)), IMAGE, {"convolution-rate": "`2` (p = 0.5)"}
    ),
    "after batch-norm": Case(lambda: normalised(0.3, before=False), IMAGE, {}),
    "after batch-norm, p 0.35": Case(
        lambda: normalised(0.35, before=False), IMAGE, {"batch-norm-rate": "`4` (p = 0.35)"}
    ),
    "before batch-norm": Case(
        lambda: normalised(0.2, before=True),
        IMAGE,
        {"variance-shift": "`2` (p = 0.2, before `4`)"},
    ),
    "alpha before batch-norm": Case(
        lambda: nn.Sequential(
            *(nn.Linear(8, 8), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(8, 8)),
            *(nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)),
        ),
        FLAT,
        {},
    ),
    "before layer-norm": Case(
        lambda: nn.Sequential(
            *(nn.Linear(8, 8), nn.Dropout(0.2), nn.LayerNorm(8), nn.Linear(8, 8)),
            *(nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)),
        ),
        FLAT,
        {},
    ),
    "attention": Case(lambda: Encoder(0.2), (4, 8), {}),
    "attention, p 0.25": Case(
        lambda: Encoder(0.25), (4, 8), {"attention-rate": "`layer.self_attn` (p = 0.25)"}
    ),
    "state": Case(lambda: Loop("state"), TIME, {"recurrent-state": "`drop` (p = 0.3)"}),
    "state of an LSTM cell": Case(
        lambda: Loop("state", nn.LSTMCell), TIME, {"recurrent-state": "`drop` (p = 0.3)"}
    ),
    "state of a GRU cell": Case(
        lambda: Loop("state", nn.GRUCell), TIME, {"recurrent-state": "`drop` (p = 0.3)"}
    ),
    "state, masks cut from one draw": Case(
        lambda: Loop("cut"), TIME, {"recurrent-state": "`drop` (p = 0.3)"}
    ),
    "state, one mask repeated": Case(lambda: Loop("repeated"), TIME, {}),
    "state, one mask": Case(lambda: Loop("once"), TIME, {}),
    "state of a cell, one mask": Case(lambda: Loop("once", nn.GRUCell), TIME, {}),
    "update of the state": Case(lambda: Loop("update"), TIME, {}),
    "between layers of an RNN": Case(
        lambda: Layers(0.0), TIME, {"idle-dropout": "`drop`", "no-dropout-at-the-end": "`head`"}
    ),
    "between layers and at the end": Case(lambda: Layers(0.3), TIME, {}),
    "words": Case(Words, (6,), {}),
    "stochastic depth": Case(Residual, FLAT, {}),
    "a relu behind the last layer": Case(
        lambda: mlp(0.2).append(nn.ReLU()), FLAT, {"held-scores": "`relu` in module `7`"}
    ),
    "weights of the last layer": Case(lambda: Connect(last=True), FLAT, {}),
    "weights of the first layer": Case(
        lambda: Connect(last=False), FLAT, {"no-dropout-at-the-end": "`two`"}
    ),
    "our dropout of states": Case(
        lambda: Ours(RecurrentDropoutLSTM(4, 6, 0.3, on="state")),
        TIME,
        {"recurrent-state": "`rnn.dropout` (p = 0.3)"},
    ),
    "our dropout of updates": Case(
        lambda: Ours(RecurrentDropoutGRU(4, 6, 0.3, on="update")), TIME, {}
    ),
    "our variational dropout": Case(lambda: Ours(VariationalLSTM(4, 6, 0.2)), TIME, {}),
    "weights dropped by row": Case(
        lambda: nn.Sequential(
            DropConnect(nn.Linear(8, 6), 0.5, per="row"), nn.Dropout(), nn.Linear(6, 3)
        ),
        FLAT,
        {},
    ),
    "Gaussian noise on a map": Case(lambda: cnn(GaussianDropout(0.4)), IMAGE, {}),
    "our MLP": Case(lambda: MLP(8, (8, 8), 3), FLAT, {}),
    "our CNN": Case(lambda: CNN((2, 8, 8), channels=(4, 4), hidden=8, num_classes=3), (128,), {}),
}


def warnings_of(network: nn.Module, example: Tensor, folder: Path, **options) -> tuple[str, ...]:
    path = folder / "network.dubito"
    declared = {"task": "classification", "output": "logits"}
    return export(network, example, path, **declared, **options).manifest.warnings


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_warned_of_what_it_does_and_of_nothing_else(name, tmp_path):
    case = CASES[name]
    torch.manual_seed(0)
    example = torch.randint(20, (3, 6)) if name == "words" else torch.randn(3, *case.row)
    found = warnings_of(case.build(), example, tmp_path)
    expected = [
        f"{text.title}: {case.found[code]}: {text.remedy}"
        for code, text in TEXTS.items()
        if code in case.found
    ]
    assert list(found) == expected


def test_every_kind_of_warning_is_in_the_table_above() -> None:
    assert {code for case in CASES.values() for code in case.found} == set(TEXTS)


def test_modules_with_the_same_finding_share_one_line(tmp_path):
    layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.8)) for _ in range(7)]
    (warning,) = warnings_of(nn.Sequential(*layers, nn.Linear(8, 3)), torch.randn(3, 8), tmp_path)
    assert "`4.2` (p = 0.8) and 2 more: " in warning


def test_dropout_put_behind_modules_at_export_is_looked_at_too(tmp_path):
    found = warnings_of(mlp(0.5), torch.randn(3, 8), tmp_path, drop_prob={"6": 0.25})
    assert [warning.split(":")[0] for warning in found] == [
        "dropout injected at export",
        TEXTS["output-dropout"].title,
    ]


def test_every_warning_is_documented_with_its_title() -> None:
    documented = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", DOCUMENT.read_text(), re.M))
    assert documented == {code: text.title for code, text in TEXTS.items()}
