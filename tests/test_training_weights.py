import math

import pytest
import torch
from torch import Tensor, nn

from dubito_nn.training import constrain_max_norm, l1_penalty, seeded, squared_error, train


def _norms(weight: Tensor, axis: int = 0) -> Tensor:
    return weight.detach().transpose(0, axis).flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (nn.Linear(6, 4), 0),
        (nn.Conv2d(3, 5, 3), 0),
        (nn.Conv1d(4, 6, 3, groups=2), 0),
    ],
    ids=["linear", "convolution", "groups"],
)
def test_max_norm_shrinks_long_units_to_the_bound_and_leaves_short_ones(
    layer: nn.Module, axis: int
) -> None:
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        weight.mul_(torch.rand_like(weight).sign())
    before = weight.detach().clone()
    bound = float(_norms(before, axis).median())
    constrain_max_norm(layer, bound)
    after = _norms(weight, axis)
    expected = _norms(before, axis).clamp(max=bound)
    torch.testing.assert_close(after, expected)
    kept = _norms(before, axis) < 0.999 * bound
    turned = weight.detach().transpose(0, axis), before.transpose(0, axis)
    assert torch.equal(turned[0][kept], turned[1][kept])


def test_max_norm_is_the_closed_form_of_a_three_four_five_triangle() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
        layer.bias.fill_(100.0)
    constrain_max_norm(layer, 1.0)
    torch.testing.assert_close(layer.weight.data, torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    assert torch.equal(layer.bias.data, torch.full((2,), 100.0))


def test_max_norm_leaves_zeros_and_embeddings_alone() -> None:
    network = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight.fill_(9.0)  # type: ignore[union-attr, operator]
        network[1].weight.zero_()  # type: ignore[union-attr, operator]
    constrain_max_norm(network, 1.0)
    assert torch.equal(network[0].weight, torch.full((3, 4), 9.0))  # type: ignore[arg-type]
    assert torch.equal(network[1].weight, torch.zeros(2, 4))  # type: ignore[arg-type]


def test_the_l1_penalty_sums_absolute_weights_once_each_without_biases() -> None:
    shared = nn.Linear(2, 2)
    with torch.no_grad():
        shared.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
    assert l1_penalty(nn.Sequential(shared, nn.ReLU(), shared)).item() == 10.0
    assert l1_penalty(nn.ReLU()).item() == 0.0


def test_training_with_l1_reaches_the_soft_threshold() -> None:
    # Minimum of mean (y - wx)² + l |w| for standardised x: w = sign(c) max(|c| - l/2, 0).
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, generator=generator)
    x = (x - x.mean()) / x.std(correction=0)
    y = 2.0 * x
    network = nn.Linear(1, 1)
    train(
        network,
        x,
        y,
        loss=squared_error,
        epochs=200,
        batch_size=400,
        learning_rate=0.1,
        l1=1.0,
    )
    assert network.weight.item() == pytest.approx(1.5, abs=1e-2)


def test_training_holds_the_norm_of_every_unit() -> None:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    with seeded(0):
        network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    train(network, x, 50.0 * x[:, :1], loss=squared_error, epochs=5, max_norm=0.5)
    for layer in (network[0], network[2]):
        assert float(_norms(layer.get_parameter("weight")).max()) <= 0.5 + 1e-6


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_clipping_bounds_the_gradient_of_the_step(clip_norm: float | None) -> None:
    network = nn.Linear(3, 1)
    x, y = torch.ones(1, 3), torch.full((1, 1), 1e4)
    train(network, x, y, loss=squared_error, epochs=1, clip_norm=clip_norm)
    length = math.hypot(*(float(p.grad.norm()) for p in network.parameters() if p.grad is not None))
    assert length > 1e4 if clip_norm is None else length == pytest.approx(clip_norm, rel=1e-4)


@pytest.mark.parametrize(
    "change", [{"l1": -1.0}, {"max_norm": 0.0}, {"clip_norm": -1.0}, {"max_norm": float("nan")}]
)
def test_bounds_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="change the one out of range"):
        train(
            nn.Linear(1, 1),
            torch.ones(2, 1),
            torch.ones(2, 1),
            loss=squared_error,
            epochs=1,
            **change,  # type: ignore[arg-type]
        )
    with pytest.raises(ValueError, match="limit above 0"):
        constrain_max_norm(nn.Linear(1, 1), 0.0)
