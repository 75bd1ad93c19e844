"""The count of operations, against products that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from dubito.engine import Engine
from dubito.engine.cost import cost
from dubito_nn import export


def test_matrix_products_are_counted_in_the_part_they_run_in(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Linear(20, 30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 5), nn.Dropout(0.2)
    )
    bundle = export(
        network,
        torch.randn(4, 20),
        tmp_path / "network.dubito",
        task="classification",
        output="logits",
    )
    counted = cost(Engine.load(bundle))
    assert counted.prefix == 2 * 20 * 30
    assert counted.suffix == 2 * 30 * 5
    assert counted.prefix_share == pytest.approx(0.8)
    assert counted.over_loop(10) == pytest.approx((1200 + 10 * 300) / (10 * 1500))


def test_a_recurrent_layer_in_front_of_the_dropout_belongs_to_the_prefix(tmp_path: Path) -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, 2, dropout=0.3, batch_first=True)
            self.last = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.lstm(x)[0][:, -1])

    bundle = export(
        Sequence(),
        torch.randn(4, 5, 4),
        tmp_path / "sequence.dubito",
        task="classification",
        output="logits",
    )
    counted = cost(Engine.load(bundle))
    gates = 4 * 6
    assert counted.prefix == 2 * 5 * gates * (4 + 6)
    assert counted.suffix == 2 * 5 * gates * (6 + 6) + 2 * 6 * 2
