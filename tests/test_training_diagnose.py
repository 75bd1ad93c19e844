import pytest
import torch
from torch import Tensor, nn

from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import CNN, MLP
from dubito_nn.training import (
    cross_entropy,
    diagnose,
    seeded,
    squared_error,
    train,
)


class _Fixed(nn.Module):
    """Three hidden units: relu(x), its double, and one that is never active; then a sum."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 3), nn.Linear(3, 1, bias=False)
        self.dropout = nn.Dropout(drop_prob)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0], [2.0], [0.0]]))
            self.first.bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
            self.last.weight.copy_(torch.tensor([[1.0, 1.0, 1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.dropout(self.first(x).relu()))
        return result


def _rows() -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1.0, 1.0, 200)[:, None]
    return x, 3.0 * x.relu()


def test_the_figures_of_a_network_written_by_hand_are_the_closed_forms() -> None:
    first, last = diagnose(_Fixed(), *_rows(), squared_error)
    assert (first.path, first.num_units, last.path, last.num_units) == ("first", 1, "last", 3)
    assert last.point == last.masked  # no dropout
    # Two units of three are zero in half of the rows, one always.
    assert last.point.sparsity == pytest.approx(2 / 3, abs=0.01)
    assert last.point.silent_units == pytest.approx(1 / 3)
    assert last.point.correlation == pytest.approx(1.0, abs=1e-5)
    x, _ = _rows()
    square = x.relu().square().mean().item()
    # Without unit 2 the error is 2 relu(x), without unit 1 relu(x), without unit 3 nothing.
    assert last.point.largest_sensitivity == pytest.approx(4.0 * square, rel=1e-4)
    assert last.point.mean_sensitivity == pytest.approx(5.0 * square / 3.0, rel=1e-4)
    assert last.mean_norm == last.largest_norm == pytest.approx(3.0**0.5)
    assert first.largest_norm == pytest.approx(2.0)
    assert first.mean_norm == pytest.approx(1.0)


def test_dropout_shows_in_the_figures_under_masks_alone() -> None:
    plain, dropped = (diagnose(_Fixed(p), *_rows(), squared_error)[1] for p in (0.0, 0.5))
    assert dropped.point == plain.point
    assert dropped.masked.sparsity == pytest.approx(2 / 3 + 1 / 6, abs=0.1)
    assert dropped.masked.correlation < 0.9


def test_units_trained_with_dropout_are_needed_less_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator)
    y = x[:, :1] + x[:, 1:2].abs()
    found = []
    for drop_prob in (0.0, 0.5):
        with seeded(0):
            network = MLP(8, (64,), 1, dropout=StandardFamily(drop_prob))
        train(network, x, y, loss=squared_error, epochs=60, learning_rate=1e-2)
        found.append(diagnose(network, x, y, squared_error)[1])
    assert found[1].point.largest_sensitivity < found[0].point.largest_sensitivity


def test_convolutions_are_looked_at_by_channel() -> None:
    with seeded(0):
        network = CNN((1, 8, 8), channels=(4, 6), hidden=10)
    x = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    layers = diagnose(network, x, torch.arange(20) % 10, cross_entropy, max_units=3)
    assert [layer.num_units for layer in layers] == [1, 4, 6 * 16, 10]
    assert all(0.0 <= layer.point.correlation <= 1.0 for layer in layers)


def test_a_diagnosis_is_the_same_at_each_call_and_leaves_no_trace() -> None:
    network = _Fixed(0.5).train()
    before = torch.get_rng_state()
    first, second = (diagnose(network, *_rows(), squared_error, seed=3) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_what_cannot_be_diagnosed_says_so() -> None:
    x, y = _rows()
    with pytest.raises(ValueError, match="at least 2 rows"):
        diagnose(_Fixed(), x[:1], y[:1], squared_error)
    with pytest.raises(ValueError, match="linear layers or convolutions"):
        diagnose(nn.ReLU(), x, y, squared_error)
