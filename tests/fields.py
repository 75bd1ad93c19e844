"""Fields with a known noise, and a tiny network that was trained on some: numbers at positions.

Two numbers stand at each of 4 x 4 positions. Of every row the noise is partly common to all its
positions, so that these depend on each other.

Dimensions: B rows, 4 x 4 positions, 2 outputs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito_nn import Bundle, export

SIDE = 4
NOISE = (0.3, 0.8)
"""Standard deviation of the noise of either output."""
SCALE = ((1.0, -2.0), (2.0, 0.5))
"""Mean and standard deviation by which targets are standardised in training."""

Floats = NDArray[np.float64]


def fields(count: int, seed: int) -> tuple[NDArray[np.float32], Floats]:
    """Rows (B, 1, 4, 4), and targets with the outputs last, (B, 4, 4, 2)."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, 1, SIDE, SIDE)).astype(np.float32)
    x = rows[:, 0].astype(np.float64)
    beside = np.pad(x, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
    clean = np.stack([1 + 2 * x, beside - 2], axis=-1)
    common = generator.normal(size=(count, 1, 1, 2))
    own = generator.normal(size=clean.shape)
    return rows, clean + np.array(NOISE) * (np.sqrt(0.6) * common + np.sqrt(0.4) * own)


def network(num_columns: int = 2) -> nn.Sequential:
    """Maps of the rows' size."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.05), nn.Conv2d(12, num_columns, 1)
    )


def trained(count: int = 400, steps: int = 150) -> nn.Sequential:
    """A network that knows the fields well, trained within a second or two."""
    torch.manual_seed(0)
    rows, target = fields(count, seed=1000)
    shift, factor = map(np.array, SCALE)
    goal = torch.from_numpy(((target - shift) / factor).astype(np.float32)).movedim(-1, 1)
    net, x = network(), torch.from_numpy(rows)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.mse_loss(net(x), goal).backward()
        optimiser.step()
    return net


def exported(net: nn.Module, path: Path, **declared: object) -> Bundle:
    """As a bundle; the outputs on axis 1 unless declared otherwise."""
    rows: Tensor = torch.from_numpy(fields(4, seed=0)[0])
    said = {"task": "regression", "output": "mean", "output_axis": 1} | declared
    return export(net, rows, path, **said)  # type: ignore[arg-type]
