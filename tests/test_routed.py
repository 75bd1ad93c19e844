"""Mixtures of experts that sort the tokens of the whole batch, served row by row."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export

EXPERTS, CHOSEN, WIDTH = 4, 2, 8


class Experts(nn.Module):
    """Each row goes to two of four small layers, as libraries compute it."""

    def __init__(self, capacity: int | None = None) -> None:
        super().__init__()
        self.capacity = capacity
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.weight = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * WIDTH))
        self.bias = nn.Parameter(torch.randn(EXPERTS, 2 * WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        share, experts = self.router(x).softmax(-1).topk(CHOSEN)
        expert, order = torch.sort(experts.reshape(-1))
        counts = torch.histc(expert.float(), EXPERTS, 0, EXPERTS - 1)
        ends = torch.cumsum(counts, 0, dtype=torch.int32)
        grouped = functional.grouped_mm(x[order // CHOSEN], self.weight, offs=ends)
        grouped.add_(self.bias[expert])
        gate, up = grouped.chunk(2, dim=-1)
        out = functional.silu(gate) * up * share.reshape(-1)[order].unsqueeze(-1)
        if self.capacity is not None:
            out = out * (torch.arange(len(order)) < self.capacity).unsqueeze(-1)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return out[back].view(-1, CHOSEN, WIDTH).sum(1)


def _network(experts: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, WIDTH), nn.Dropout(0.3), experts, nn.Linear(WIDTH, 3))


def test_rows_sorted_by_their_experts_are_answered_where_they_stand(tmp_path):
    network, rows = _network(Experts()), torch.randn(7, 8)
    path = tmp_path / "network.dubito"
    bundle = export(network, rows, path, task="classification", output="logits")
    used = {node.op for program in (bundle.sampling, bundle.point) for node in program.nodes}
    assert used.isdisjoint({"aten.sort.default", "aten.histc.default", "aten.arange.default"})
    engine = Engine.load(path, timing_limit_s=0)
    answered = engine.sample(rows.numpy(), sampling=Sampling(1, method="point"))[0]
    with torch.no_grad():
        expected = network.eval()(rows)
    torch.testing.assert_close(answered, expected)


def test_an_order_that_decides_more_than_the_groups_is_refused_with_the_remedy(tmp_path):
    network = _network(Experts(capacity=10_000))  # beyond which the order would cut rows
    said = r"module `2` sorts tokens of all rows by their experts.*aten\.mul\.Tensor.*batched_mm"
    with pytest.raises(ExportError, match=re.compile(said, re.DOTALL)):
        export(network, torch.randn(7, 8), tmp_path / "x", task="classification", output="logits")
    assert not (tmp_path / "x").exists()
