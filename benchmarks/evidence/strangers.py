"""Pairs of data and plain networks, each with rows of several kinds of strangeness.

    far         numbers of six standard deviations, a column or pixel at a time
    noise       uniform over the range of every column, or of every pixel or word
    shuffled    every column from a row of its own
    near        two deviations added to or taken from every column; a picture upside down
    other       pictures of other things; sequences of other chains
    left out    classes that the network has not learnt

Of every other pair the default score may not have been chosen. Tables are standardised by the rows
that train; half of a table's rows, or all but 3,000, train.

Dimensions: B rows, F columns, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from data import Digits
from numpy.typing import NDArray
from plain_networks import (
    SIDE,
    Encoder,
    Kind,
    Noisy,
    convolutions,
    normalised_convolutions,
    perceptron,
)
from sklearn import datasets
from torch import Tensor, nn
from uci import FOLDERS, read_split

Half = Literal["choose", "confirm"]
Floats = NDArray[np.float64]
Table = tuple[Floats, NDArray[np.int64] | Floats]
NUM_STRANGE = 500


@dataclass(frozen=True, eq=False)
class Pair:
    """Data and a network.

    Args:
        kind: what the network states.
        build: makes the network.
        rows: to train on, with `truths`.
        held_out: usual rows that training has not seen, with `held_out_truths`.
        strange: rows by kind of strangeness.
        epochs: of training.
    """

    kind: Kind
    build: Callable[[], nn.Module]
    rows: Tensor
    truths: Tensor
    held_out: Tensor
    held_out_truths: NDArray[np.int64] | Floats
    strange: Mapping[str, Tensor]
    epochs: int


@dataclass(frozen=True)
class Entry:
    """A pair by name, in one of the halves; made when it is needed."""

    name: str
    half: Half
    make: Callable[[], Pair]


def table(
    data: Table,
    build: Callable[[int, int], nn.Module],
    *,
    kind: Kind = "classification",
    left_out: tuple[int, ...] = (),
    epochs: int = 60,
) -> Pair:
    """A pair on a table; `build` takes numbers of inputs and outputs."""
    order = np.random.default_rng(0).permutation(len(data[0]))
    x, y = (part[order] for part in data)
    strange = {}
    is_out = np.isin(y, left_out)
    x, y, out = x[~is_out], y[~is_out], x[is_out]
    count = len(x) - 3000 if len(x) > 6000 else len(x) // 2
    mean, deviation = x[:count].mean(0), x[:count].std(0)
    scaled = (x - mean) / np.where(deviation > 0, deviation, 1)
    train, held = scaled[:count], scaled[count:]
    if left_out:
        strange["left out"] = ((out - mean) / np.where(deviation > 0, deviation, 1))[:NUM_STRANGE]
    few = held[:NUM_STRANGE]
    strange["far"] = 6 * np.random.default_rng(2).normal(size=few.shape)
    low, high = train.min(0), train.max(0)
    strange["noise"] = np.random.default_rng(3).uniform(low, high, few.shape)
    strange["shuffled"] = shuffled(held)[:NUM_STRANGE]
    strange["near"] = few + 2 * np.random.default_rng(4).choice([-1, 1], few.shape)
    truth: NDArray[np.int64] | Floats = np.unique(y, return_inverse=True)[1]
    if kind != "classification":
        truth = ((y - y[:count].mean()) / y[:count].std())[:, None]
    outputs = int(truth.max()) + 1 if kind == "classification" else 1
    return Pair(
        kind,
        lambda: build(x.shape[1], outputs),
        _tensor(train),
        torch.from_numpy(truth[:count]).to(torch.int64 if kind == "classification" else None),
        _tensor(held),
        truth[count:],
        {name: _tensor(rows) for name, rows in strange.items()},
        epochs,
    )


def pictures(
    own: Digits,
    other: Digits,
    build: Callable[[int], nn.Module],
    epochs: int,
    *,
    shape: tuple[int, ...] = (1, SIDE, SIDE),
    left_out: tuple[int, ...] = (),
    num_rows: int = 12_000,
) -> Pair:
    """A pair on pictures; the held-out rows are the last 3,000 of the training part."""
    images, labels = own.images.numpy(), own.labels.numpy()
    is_out = np.isin(labels, left_out)
    x, label = images[~is_out], np.unique(labels[~is_out], return_inverse=True)[1]
    held, size = x[-3000:], (NUM_STRANGE, images.shape[1])
    few = held[:NUM_STRANGE]
    normal = np.random.default_rng(2).normal(size=size)
    strange = {
        "far": held.mean(0) + 6 * held.std() * normal,
        "noise": np.random.default_rng(3).uniform(0, 1, size),
        "shuffled": shuffled(held)[:NUM_STRANGE],
        "near": few.reshape(-1, SIDE, SIDE)[:, ::-1].reshape(size),
        "other": other.images.numpy()[:NUM_STRANGE],
    }
    if left_out:
        strange["left out"] = images[is_out][:NUM_STRANGE]
    return Pair(
        "classification",
        lambda: build(int(label.max()) + 1),
        _tensor(x[:num_rows]).reshape(-1, *shape),
        torch.from_numpy(label[:num_rows]),
        _tensor(held).reshape(-1, *shape),
        label[-3000:],
        {name: _tensor(rows).reshape(-1, *shape) for name, rows in strange.items()},
        epochs,
    )


def chains(classes: int, words: int, spread: float, seed: int, epochs: int) -> Pair:
    """An encoder that tells Markov chains apart; `far` is one word over and over."""
    length, generator = 32, np.random.default_rng(seed)
    chain = generator.dirichlet(np.full(words, spread), (classes + 3, words)).cumsum(-1)

    def drawn(of: int, count: int) -> NDArray[np.int64]:
        rows = np.zeros((count, length), np.int64)
        rows[:, 0] = generator.integers(0, words, count)
        for place in range(1, length):
            below = generator.random((count, 1)) > chain[of][rows[:, place - 1]]
            rows[:, place] = np.minimum(below.sum(1), words - 1)
        return rows

    order = generator.permutation(1200 * classes)
    x = np.concatenate([drawn(of, 1200) for of in range(classes)])[order]
    label = np.repeat(np.arange(classes), 1200)[order]
    count = len(x) * 6 // 10
    one = generator.integers(0, words, (NUM_STRANGE, 1))
    strange = {
        "far": np.repeat(one, length, axis=1),
        "noise": generator.integers(0, words, (NUM_STRANGE, length)),
        "shuffled": shuffled(x[count:])[:NUM_STRANGE],
        "other": np.concatenate([drawn(classes + of, 167) for of in range(3)]),
    }
    return Pair(
        "classification",
        lambda: Encoder(length, classes, words),
        torch.from_numpy(x[:count]),
        torch.from_numpy(label[:count]),
        torch.from_numpy(x[count:]),
        label[count:],
        {name: torch.from_numpy(rows) for name, rows in strange.items()},
        epochs,
    )


def shuffled(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Every column in an order of its own."""
    return np.random.default_rng(1).permuted(x, axis=0)


def entries(folder: Path, digits: Digits, garments: Digits) -> list[Entry]:
    """Every pair, those to choose by first; `folder` holds the UCI sets."""
    handwritten = datasets.load_digits(return_X_y=True)
    breast, diabetes = datasets.load_breast_cancer, datasets.load_diabetes
    uci = {name: lambda name=name: _uci(folder, name) for name in FOLDERS}
    flat = {"shape": (SIDE * SIDE,)}

    def net(*settings: float) -> Callable[[int, int], nn.Module]:
        return lambda inputs, outputs: perceptron(inputs, outputs, *settings)  # type: ignore[arg-type]

    def lines(classes: int) -> nn.Module:
        return Encoder(SIDE, classes)

    choose: dict[str, Callable[[], Pair]] = {
        "breast cancer, perceptron": lambda: table(breast(return_X_y=True), net(32, 0.2, 1)),
        "digits, perceptron": lambda: table(handwritten, net(64, 0.3), left_out=(8, 9)),
        "20 made classes, perceptron": lambda: table(_made(6000, 24, 20, 12, 1), net(128, 0.5)),
        "concrete, perceptron": lambda: table(uci["concrete"](), net(64, 0.1), **_NUMBERS),
        "energy, inputs dropped": lambda: table(uci["energy"](), net(64, 0.1, 2, 0.05), **_NUMBERS),
        "MNIST, convolutions": lambda: pictures(digits, garments, convolutions, 3),
        "garments, dropout before the head": lambda: pictures(
            garments, digits, normalised_convolutions, 4
        ),
        "garments, perceptron, inputs dropped": lambda: pictures(
            garments,
            digits,
            lambda classes: perceptron(SIDE * SIDE, classes, 256, 0.5, 2, 0.2),
            8,
            left_out=(8, 9),
            **flat,
        ),
        "MNIST, encoder": lambda: pictures(digits, garments, lines, 3, num_rows=9000),
        "4 chains of words, encoder": lambda: chains(4, 20, 0.3, 0, 12),
    }
    confirm: dict[str, Callable[[], Pair]] = {
        "2 made classes, perceptron": lambda: table(_made(3000, 20, 2, 8, 7), net(64, 0.3)),
        "numbers and categories, perceptron": lambda: table(_mixed(), net(64, 0.2)),
        "digits, inputs dropped": lambda: table(handwritten, net(64, 0.5, 1, 0.2), left_out=(0, 1)),
        "boston, perceptron": lambda: table(uci["boston"](), net(50, 0.1, 1), **_NUMBERS),
        "diabetes, mean and noise": lambda: table(
            diabetes(return_X_y=True),
            lambda inputs, _: Noisy(inputs),
            kind="mean_and_log_variance",
        ),
        "20 made classes again, perceptron": lambda: table(
            _made(6000, 30, 20, 16, 11), net(96, 0.25, 1)
        ),
        "garments, channels dropped": lambda: pictures(
            garments,
            digits,
            lambda classes: convolutions(classes, channels=0.1, pool=0.0, head=0.3),
            3,
            left_out=(5, 7),
        ),
        "MNIST, dropout before the head": lambda: pictures(
            digits, garments, normalised_convolutions, 3, left_out=(3, 4)
        ),
        "MNIST, perceptron": lambda: pictures(
            digits,
            garments,
            lambda classes: perceptron(SIDE * SIDE, classes, 256, 0.5),
            6,
            **flat,
        ),
        "garments, encoder": lambda: pictures(garments, digits, lines, 3, num_rows=9000),
        "8 chains of words, encoder": lambda: chains(8, 30, 0.2, 3, 8),
    }
    halves: dict[Half, dict[str, Callable[[], Pair]]] = {"choose": choose, "confirm": confirm}
    return [Entry(name, half, make) for half, some in halves.items() for name, make in some.items()]


_NUMBERS = {"kind": "mean", "epochs": 150}


def _made(rows: int, columns: int, classes: int, informative: int, seed: int) -> Table:
    made: Table = datasets.make_classification(
        *(rows, columns),
        n_informative=informative,
        n_redundant=columns // 4,
        n_classes=classes,
        n_clusters_per_class=1,
        class_sep=1.5,
        random_state=seed,
    )
    return made


def _mixed() -> Table:
    """Skewed numbers beside categories of 5 and of 3, one column each; five classes."""
    generator = np.random.default_rng(5)
    z, first = generator.normal(size=(3000, 4)), generator.integers(0, 5, 3000)
    second = (z[:, 0] > 0).astype(int) + (z[:, 1] > 0.5)
    dependent = np.c_[z[:, 0] + 0.3 * generator.normal(size=3000), z[:, 1] * z[:, 2]]
    x = np.c_[np.exp(z[:, :2]), z[:, 2:], dependent, np.eye(5)[first], np.eye(3)[second]]
    score = np.c_[z, z[:, 0] * z[:, 1] + first - 2] @ generator.normal(size=(5, 5))
    return x, (score + 0.5 * generator.gumbel(size=(3000, 5))).argmax(1)


def _uci(folder: Path, name: str) -> Table:
    split = read_split(folder, name, 0)
    inputs = torch.cat([split.inputs, split.test_inputs]).double().numpy()
    return inputs, torch.cat([split.targets, split.test_targets]).double().numpy()


def _tensor(rows: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32))
