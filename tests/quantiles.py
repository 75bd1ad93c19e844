"""A network of quantiles that is trained in a second, and rows of what it was trained on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import nn

from dubito_nn import export
from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import pinball_loss, seeded, train

Floats = NDArray[np.float64]

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
DECLARED = {"task": "regression", "output": "quantiles", "quantile_levels": LEVELS}
MEAN, DEVIATION = 20.0, 3.0  # by which targets are standardised in training


def build() -> nn.Module:
    """Two numbers of a row to the quantiles of one."""
    return MLP(2, (32, 32), len(LEVELS), dropout=StandardFamily(0.1))


def rows(count: int, seed: int) -> tuple[NDArray[np.float32], Floats]:
    """Inputs (B, 2), and targets (B, 1) whose noise grows with the second of them."""
    generator = np.random.default_rng(seed)
    inputs = generator.uniform(-1, 1, (count, 2))
    return inputs.astype(np.float32), target(inputs, generator.uniform(size=(count, 1)))


def target(inputs: Floats, level: Floats | float) -> Floats:
    """The true quantiles (B, 1)."""
    deviation_B1 = 0.2 + 0.8 * np.abs(inputs[:, 1:])
    return MEAN + DEVIATION * (np.sin(2 * inputs[:, :1]) + deviation_B1 * ndtri(level))


@cache
def trained() -> nn.Module:
    """The network, trained once a process."""
    inputs, targets = rows(2000, 0)
    standardised = torch.from_numpy((targets - MEAN) / DEVIATION).float()
    with seeded(0):
        network = build()
    loss, given = pinball_loss(LEVELS), torch.from_numpy(inputs)
    train(network, given, standardised, loss=loss, epochs=30, learning_rate=1e-2)
    return network


def exported(path: Path) -> Path:
    """Its bundle, whose figures are in units of the target."""
    scale = ([MEAN], [DEVIATION])
    example = torch.from_numpy(rows(4, 9)[0])
    export(trained(), example, path, target_scale=scale, **DECLARED)  # type: ignore[arg-type]
    return path
