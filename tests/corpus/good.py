"""Unusual bundles that are sound, each with rows to ask it about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from dubito_nn import export, preprocess

Rows = Tensor | dict[str, Tensor]
Make = Callable[[Path], Rows]
GOOD: dict[str, Make] = {}


def good(make: Make) -> Make:
    """Put a builder into the table: it writes the bundle and returns rows for it."""
    GOOD[make.__name__.strip("_").replace("_", " ")] = make
    return make


def _write(path: Path, network: nn.Module, rows: Rows, **options: Any) -> Rows:
    classification = {"task": "classification", "output": "logits"}
    example = tuple(rows.values()) if isinstance(rows, dict) else rows
    export(network, example, path, **(classification | options))
    return rows


def _perceptron(inputs: int = 4, hidden: int = 8, outputs: int = 3, p: float = 0.5) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(p), nn.Linear(hidden, outputs)
    )


class Of(nn.Module):
    """A network by a function of its inputs, with its parts as modules."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(self.parts, x)


@good
def one_logit(path: Path) -> Rows:
    return _write(path, _perceptron(outputs=1), torch.randn(4, 4), output="sigmoid_logits")


@good
def integer_inputs(path: Path) -> Rows:
    network = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Dropout(0.2), nn.Linear(40, 3))
    return _write(path, network, torch.randint(0, 50, (4, 5)))


@good
def truth_values_for_inputs(path: Path) -> Rows:
    network = Of(lambda parts, x: parts["net"](x.float()), net=_perceptron())
    return _write(path, network, torch.rand(6, 4) > 0.5)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _perceptron(9)

    def forward(self, image: Tensor, age: Tensor) -> Tensor:
        return self.net(torch.cat([image.flatten(1), age], 1))


@good
def two_inputs(path: Path) -> Rows:
    return _write(path, TwoInputs(), {"image": torch.randn(4, 2, 4), "age": torch.rand(4, 1)})


@good
def a_table_for_two_inputs(path: Path) -> Rows:
    image = preprocess.ArrayInput(scale=1 / 255, input="image")
    columns = (preprocess.Number("years", mean=40.0, scale=10.0, input="age"),)
    declared = [image, preprocess.TableInput(columns)]
    rows: Rows = {"image": torch.rand(4, 2, 4), "age": torch.rand(4, 1)}
    return _write(path, TwoInputs(), rows, preprocess=declared)


@good
def a_free_dimension(path: Path) -> Rows:
    network = Of(
        lambda parts, x: parts["out"](parts["drop"](parts["conv"](x).relu()).mean(-1)),
        **{"conv": nn.Conv1d(2, 4, 3), "drop": nn.Dropout(0.3), "out": nn.Linear(4, 3)},
    )
    return _write(path, network, torch.randn(4, 2, 12), free_dims={"x": {2: "length"}})


@good
def a_free_dimension_that_must_be_long(path: Path) -> Rows:
    network = Of(
        lambda parts, x: parts["out"](parts["drop"](parts["conv"](x).relu()).mean(-1)),
        **{"conv": nn.Conv1d(2, 4, 30), "drop": nn.Dropout(0.3), "out": nn.Linear(4, 3)},
    )
    return _write(path, network, torch.randn(4, 2, 50), free_dims={"x": {2: "length"}})


@good
def one_unit(path: Path) -> Rows:
    return _write(path, _perceptron(1, 1, 2), torch.randn(4, 1))


@good
def nearly_everything_dropped(path: Path) -> Rows:
    return _write(path, _perceptron(hidden=64, p=0.999), torch.randn(4, 4))


@good
def hardly_anything_dropped(path: Path) -> Rows:
    return _write(path, _perceptron(hidden=64, p=1e-4), torch.randn(4, 4))


class Deep(nn.Module):
    """A hundred layers of the same norm, so that the draws of each reach the output."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(100))
        self.norm, self.drop, self.out = nn.LayerNorm(4), nn.Dropout(0.3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.drop(self.norm(layer(x)))
        out: Tensor = self.out(x)
        return out


@good
def a_hundred_sites(path: Path) -> Rows:
    return _write(path, Deep(), torch.randn(4, 4))


@good
def long_names(path: Path) -> Rows:
    network = Of(lambda parts, x: parts["n" * 200](x), **{"n" * 200: _perceptron()})
    return _write(path, network, torch.randn(4, 4), classes=["c" * 5000, "d" * 5000, "e"])


@good
def classes_of_many_scripts(path: Path) -> Rows:
    classes = ["蚂蚁", "نحلة", "🐈 a cat's\nname"]
    return _write(path, _perceptron(), torch.randn(4, 4), classes=classes, notes="für später ☂")


@good
def double_precision(path: Path) -> Rows:
    return _write(path, _perceptron().double(), torch.randn(4, 4, dtype=torch.float64))


@good
def notes_of_no_characters(path: Path) -> Rows:
    return _write(path, _perceptron(), torch.randn(4, 4), notes="")


@good
def many_mebibytes(path: Path) -> Rows:
    return _write(path, _perceptron(1024, 2048, 10), torch.randn(4, 1024))


@good
def two_thousand_classes(path: Path) -> Rows:
    return _write(path, _perceptron(outputs=2000), torch.randn(4, 4))


@good
def features(path: Path) -> Rows:
    return _write(path, _perceptron(), torch.randn(4, 4), features="1")


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.noise = _perceptron(outputs=8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.noise(hidden)


@good
def a_pair_of_means_and_variances(path: Path) -> Rows:
    regression = {"task": "regression", "output": "mean_and_log_variance"}
    return _write(path, Pair(), torch.randn(4, 4), target_scale=([1.0, 2.0], 3.0), **regression)


def _recurrent(path: Path, kind: type[nn.Module], width: int, **options: Any) -> Rows:
    network = Of(
        lambda parts, x: parts["out"](parts["rnn"](x)[0][:, -1]),
        rnn=kind(3, 5, num_layers=2, dropout=0.3, batch_first=True, **options),
        out=nn.Linear(width, 3),
    )
    return _write(path, network, torch.randn(4, 6, 3))


@good
def a_gru(path: Path) -> Rows:
    return _recurrent(path, nn.GRU, 5)


@good
def a_bidirectional_lstm(path: Path) -> Rows:
    return _recurrent(path, nn.LSTM, 10, bidirectional=True)


@good
def a_transformer(path: Path) -> Rows:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    network = Of(
        lambda parts, x: parts["out"](parts["encoder"](x).mean(1)),
        encoder=nn.TransformerEncoder(layer, 2),
        out=nn.Linear(8, 3),
    )
    return _write(path, network, torch.randn(4, 5, 8))


class DropConnect(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept = dropout(self.first.weight, 0.4, self.training)
        out: Tensor = self.out(linear(x, kept, self.first.bias).relu())
        return out


@good
def a_draw_without_rows(path: Path) -> Rows:
    return _write(path, DropConnect(), torch.randn(4, 4))


class Buffers(nn.Module):
    """No parameter at all; a table with infinities hides what may not be seen."""

    mask: Tensor
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
        self.register_buffer("table", torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        seen = (x.unsqueeze(1) + self.mask).softmax(-1)
        return dropout(seen.mean(1), 0.5, self.training) @ self.table


@good
def buffers_alone(path: Path) -> Rows:
    return _write(path, Buffers(), torch.randn(4, 4))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(7, 8), nn.Dropout(0.3)
        self.out = nn.Linear(8, 7)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.drop(self.embed(x).mean(1)))
        return out


@good
def tied_weights(path: Path) -> Rows:
    return _write(path, Tied(), torch.randint(0, 7, (4, 5)))


@good
def a_convolution_with_batch_norm(path: Path) -> Rows:
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten()),
        nn.Linear(4 * 36, 3),
    )
    return _write(path, network, torch.randn(4, 1, 8, 8))
