"""Rewritten graphs: the same function, with less to do."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito.engine.planning.rewrite import rewritten
from dubito_nn import Bundle, Program, export
from dubito_nn.dropout import DropBlock2d, StochasticDepth


def exported(network: nn.Module, shape: Sequence[int], folder: Path) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(
            network,
            torch.randn(4, *shape),
            folder / "network.dubito",
            task="classification",
            output="logits",
        )


def head(channels: int, places: int) -> tuple[nn.Module, ...]:
    return nn.Flatten(), nn.Linear(channels * places, 3)


def operators(program: Program) -> Counter[str]:
    return Counter(node.op for node in program.nodes)


def new(bundle: Bundle) -> Program:
    return rewritten(bundle.sampling, bundle.sites, bundle.weights)[0]


def settled(network: nn.Module) -> nn.Module:
    """Norms with statistics that are not the initial ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.running_mean)
            module.running_var = torch.rand_like(module.running_var) + 0.5
            if module.affine:
                module.weight.data = torch.randn_like(module.weight)
                module.bias.data = torch.randn_like(module.bias)
    return network


class Residual(nn.Module):
    """A branch with DropBlock, switched as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.BatchNorm2d(2), DropBlock2d(0.2, 3)
        )
        self.path = StochasticDepth(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(self.branch(x))


NETWORKS = {
    "norm after a convolution": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), *head(4, 36)
    ),
    "norm after a grouped one": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.3), *head(4, 36)
    ),
    "norm after a masked channel": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Dropout2d(0.3), nn.BatchNorm2d(4), *head(4, 36)
    ),
    "mask, pool, relu": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Dropout2d(0.3), nn.MaxPool2d(2), nn.ReLU(), *head(4, 9)
    ),
    "mask of units, pool": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Dropout(0.3), nn.MaxPool2d(2), *head(4, 9)
    ),
    "two masks": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Dropout2d(0.3), nn.Dropout(0.2), *head(4, 36)
    ),
    "residual": lambda: nn.Sequential(Residual(), nn.ReLU(), Residual(), *head(2, 64)),
    "alpha": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.AlphaDropout(0.3), nn.ReLU(), nn.MaxPool2d(2), *head(4, 9)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rewritten_graph_is_the_same_function_of_rows_and_draws(
    name: str, tmp_path: Path
) -> None:
    bundle = exported(settled(NETWORKS[name]()), (2, 8, 8), tmp_path)
    inputs = {bundle.manifest.inputs[0].name: torch.randn(5, 2, 8, 8)}
    program, weights = rewritten(bundle.sampling, bundle.sites, bundle.weights)
    for seed in range(3):

        def draws(
            index: int, size: tuple[int, ...], dtype: torch.dtype, seed: int = seed
        ) -> Tensor:
            generator = torch.Generator().manual_seed(100 * seed + index)
            drawn = torch.rand(size, generator=generator)
            if bundle.sites[index].distribution == "bernoulli":
                drawn = (drawn < 0.7).float()
            return drawn.to(dtype)

        with torch.no_grad():
            old = bundle.sampling.run(inputs, bundle.weights, draws)["output"]
            got = program.run(inputs, weights, draws)["output"]
        torch.testing.assert_close(got, old, atol=1e-5, rtol=1e-5)


def test_a_norm_becomes_part_of_the_convolution_and_its_weights_are_let_go(tmp_path: Path) -> None:
    bundle = exported(settled(NETWORKS["norm after a convolution"]()), (2, 8, 8), tmp_path)
    assert operators(new(bundle))["aten.batch_norm.default"] == 0
    placed = Engine.load(bundle).placed
    assert sum(tensor.ndim == 4 for tensor in placed.weights.values()) == 1


def test_a_norm_behind_a_mask_stays(tmp_path: Path) -> None:
    bundle = exported(settled(NETWORKS["norm after a masked channel"]()), (2, 8, 8), tmp_path)
    assert operators(new(bundle))["aten.batch_norm.default"] == 1


def test_pool_and_relu_behind_a_mask_of_channels_run_once_per_row(tmp_path: Path) -> None:
    bundle = exported(NETWORKS["mask, pool, relu"](), (2, 8, 8), tmp_path)
    engine = Engine.load(bundle)
    plan = engine.pieces("shared", engine.read_inputs(torch.randn(1, 2, 8, 8))).execution.plan
    once = {node.op for node in plan.prefix}
    assert {"aten.max_pool2d.default", "aten.relu.default", "aten.conv2d.default"} <= once


def test_a_mask_of_units_is_not_moved_behind_a_pool_over_them(tmp_path: Path) -> None:
    bundle = exported(NETWORKS["mask of units, pool"](), (2, 8, 8), tmp_path)
    names = [node.op for node in new(bundle).nodes]
    assert names.index("aten.mul.Tensor") < names.index("aten.max_pool2d.default")


def test_masks_are_multiplied_with_each_other_first(tmp_path: Path) -> None:
    bundle = exported(NETWORKS["two masks"](), (2, 8, 8), tmp_path)
    engine = Engine.load(bundle)
    plan = engine.pieces("shared", engine.read_inputs(torch.randn(1, 2, 8, 8))).execution.plan
    assert [node.op for node in plan.suffix].count("aten.mul.Tensor") == 1


def test_the_switch_of_a_branch_stays_apart_from_the_masks_in_it(tmp_path: Path) -> None:
    bundle = exported(settled(NETWORKS["residual"]()), (2, 8, 8), tmp_path)
    engine = Engine.load(bundle)
    pieces = engine.pieces("shared", engine.read_inputs(torch.randn(1, 2, 8, 8)))
    assert [type(option.form).__name__ for option in pieces.options] == ["Skipped"] * 2
    assert engine.sample(torch.randn(2, 2, 8, 8), sampling=Sampling(4)).shape == (4, 2, 3)


def test_what_only_gave_a_size_is_left_out(tmp_path: Path) -> None:
    bundle = exported(settled(NETWORKS["residual"]()), (2, 8, 8), tmp_path)
    assert operators(bundle.sampling)["aten.new_zeros.default"] > 0
    assert operators(new(bundle))["aten.new_zeros.default"] == 0
