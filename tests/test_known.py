"""Networks that look at their own weights: what depends on neither inputs nor draws is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Engine
from dubito_nn import ExportError, export

from .test_export_refusals import Forward


class Looking(nn.Module):
    """A small network with parameters, buffers and a plain tensor to look at."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(0.5)
        self.rate = nn.Parameter(torch.tensor(0.3))
        self.register_buffer("mask", torch.arange(8) % 3 > 0)
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 5, 0], [1, 2, 3, 4, 6]]))
        self.register_buffer("steps", torch.tensor(7.0))
        self.plain = torch.arange(8) > 4
        self._forward = forward

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def a_rate_read_as_a_number(network: nn.Module, x: Tensor) -> Tensor:
    drop_prob = torch.sigmoid(network.rate).item()
    return network.head(functional.dropout(network.inner(x), drop_prob, network.training))


def a_branch_on_a_parameter(network: nn.Module, x: Tensor) -> Tensor:
    return network.head(network.dropout(network.inner(x) if network.rate > 0.1 else x))


def a_mask_in_a_buffer(network: nn.Module, x: Tensor) -> Tensor:
    kept = network.inner(x)[:, network.mask]
    return network.head(network.dropout(x + kept.sum(1, keepdim=True)))


def a_mask_that_is_no_buffer(network: nn.Module, x: Tensor) -> Tensor:
    return network.head(network.dropout(functional.pad(x[:, network.plain], (0, 5))))


def a_graph_of_fixed_edges(network: nn.Module, x: Tensor) -> Tensor:
    source, target = network.edges
    nodes = int(network.edges.max()) + 1
    degree = torch.bincount(target, minlength=nodes).clamp(min=1)
    summed = x.new_zeros(x.shape[0], nodes).index_add(1, target, x[:, source])
    return network.head(functional.pad(network.dropout(summed / degree), (0, 8 - nodes)))


def a_mask_made_of_numbers(network: nn.Module, x: Tensor) -> Tensor:
    mask = torch.triu(torch.full((8, 8), float("-inf")), diagonal=1)
    causal = bool((mask.isinf() == ~torch.ones(8, 8, dtype=torch.bool).tril()).all())
    rows, columns = torch.where(mask == 0)
    return network.head(network.dropout(x * (2 if causal else 1))[:, rows[columns == 0]])


def parts_that_are_equal(network: nn.Module, x: Tensor) -> Tensor:
    source, target = network.edges
    x = -x if torch.equal(source, target) or not torch.allclose(network.rate, network.rate) else x
    return network.head(network.dropout(x)) * len(torch.unique(network.edges))


def weights_changed_by_a_mask(network: nn.Module, x: Tensor) -> Tensor:
    weight = network.inner.weight.clone()
    weight[:, network.mask] = 0
    return network.head(network.dropout(functional.linear(x, weight)))


def factors_of_weights(network: nn.Module, x: Tensor) -> Tensor:
    covariance = network.inner.weight @ network.inner.weight.T + torch.eye(8)
    whitened = torch.linalg.solve(torch.linalg.cholesky(covariance), x.unsqueeze(2)).squeeze(2)
    turned = whitened @ torch.matrix_exp(covariance.triu(1) - covariance.triu(1).T)
    return network.head(network.dropout(turned @ torch.linalg.eigh(covariance)[1]))


def an_array_of_numpy(network: nn.Module, x: Tensor) -> Tensor:
    return network.head(network.dropout(network.inner(x + x.new_tensor(np.arange(8.0)))))


LOOKING = [
    a_rate_read_as_a_number,
    a_branch_on_a_parameter,
    a_mask_in_a_buffer,
    a_mask_that_is_no_buffer,
    a_graph_of_fixed_edges,
    a_mask_made_of_numbers,
    parts_that_are_equal,
    weights_changed_by_a_mask,
    factors_of_weights,
    an_array_of_numpy,
]


def served(network: nn.Module, x: Tensor, path: Path) -> Engine:
    """The network exported and loaded; both prove it, and a graph that looked is still itself."""
    torch.manual_seed(0)
    export(network, x, path, task="regression", output="mean")
    engine = Engine.load(path)
    bundle = engine.bundle
    with torch.no_grad():
        result = bundle.point.run({bundle.manifest.inputs[0].name: x}, bundle.weights)["output"]
        torch.testing.assert_close(result, network.eval()(x), atol=1e-5, rtol=1e-5)
    return engine


@pytest.mark.parametrize("forward", LOOKING, ids=lambda forward: forward.__name__)
def test_a_network_may_look_at_its_own_weights(forward, tmp_path):
    torch.manual_seed(0)
    served(Looking(forward), torch.randn(4, 8), tmp_path / "network.dubito")


def test_torchs_encoder_takes_torchs_own_causal_mask(tmp_path):
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.head(self.encoder(x, mask=mask)[:, 2])

    torch.manual_seed(0)
    engine = served(Causal(), torch.randn(4, 5, 8), tmp_path / "network.dubito")
    assert len(engine.manifest.sites) == 4


@pytest.mark.parametrize(
    "look",
    [
        lambda network, x: x if x.sum() > 0 else -x,
        lambda network, x: x * (x[0] * network.rate).sum().item(),
        lambda network, x: x if torch.rand(1) < network.rate else -x,
        lambda network, x: x[:, network.mask & (x[0] > 0)].sum(1, keepdim=True) + x,
        lambda network, x: x * torch.zeros(8).add_(x[0]).sum().item(),
        lambda network, x: (network.steps.add_(1), x if network.steps > 3 else -x)[1],
    ],
    ids=["x", "x by a weight", "a draw", "a mask of x", "x written over", "a counter"],
)
def test_what_depends_on_an_input_a_draw_or_a_state_is_not_known(look, tmp_path):
    network = Looking(lambda n, x: n.head(n.dropout(look(n, x))))
    with pytest.raises(ExportError, match=r"data-dependent.*torch.where or a mask"):
        export(network, torch.randn(4, 8), tmp_path / "x", task="regression", output="mean")
    assert network.steps == 7
