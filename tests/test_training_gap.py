import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import (
    Gap,
    Loss,
    advise,
    cross_entropy,
    gaussian_nll,
    mean_loss,
    measure_gap,
    seeded,
    squared_error,
    train,
)

Rows = tuple[Tensor, Tensor]


def _rows(num_train: int) -> tuple[Rows, Rows]:
    """A target of three of twenty features, with a product of two and noise of 0.5."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_train + 200, 20, generator=generator)
    y = 2.0 * x[:, :1] + x[:, 1:2] * x[:, 2:3] + 0.5 * torch.randn(len(x), 1, generator=generator)
    return (x[:num_train], y[:num_train]), (x[num_train:], y[num_train:])


def _trained(drop_prob: float, rows: Rows, epochs: int = 100) -> MLP:
    with seeded(0):
        network = MLP(20, (16,), 1, dropout=StandardFamily(drop_prob))
    train(network, *rows, loss=squared_error, epochs=epochs, batch_size=50, learning_rate=1e-2)
    return network


def test_too_much_dropout_is_found_and_less_of_it_is_indeed_better() -> None:
    rows, held_out = _rows(400)
    much, little = _trained(0.8, rows), _trained(0.1, rows)
    gap = measure_gap(much, rows, held_out, squared_error)
    advice = advise(gap)
    assert advice.verdict == "too_much"
    assert "lower p" in advice.text
    assert advise(measure_gap(little, rows, held_out, squared_error)).verdict == "about_right"
    assert mean_loss(little, *held_out, squared_error) < 0.5 * gap.validation


def test_too_little_dropout_is_found_where_rows_are_few() -> None:
    rows, held_out = _rows(60)
    advice = advise(measure_gap(_trained(0.05, rows), rows, held_out, squared_error))
    assert advice.verdict == "too_little"
    assert "raise p" in advice.text


def test_a_network_without_dropout_is_told_to_have_some() -> None:
    rows, held_out = _rows(60)
    gap = measure_gap(_trained(0.0, rows), rows, held_out, squared_error)
    assert gap.masked == gap.train
    advice = advise(gap)
    assert advice.verdict == "no_dropout"
    assert "all samples would be equal" in advice.text
    assert "held-out" in advice.text


def test_a_network_that_learned_nothing_is_told_so() -> None:
    rows, held_out = _rows(100)
    with seeded(0):
        untrained = MLP(20, (16,), 1)
    advice = advise(measure_gap(untrained, rows, held_out, squared_error))
    assert advice.verdict == "nothing_learned"


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ((2.0, 0.1, 0.3, 0.4), "about_right"),
        ((2.0, 0.1, 0.2, 1.5), "too_little"),
        ((2.0, 0.1, 1.2, 0.3), "too_much"),
        ((2.0, 0.1, 1.2, 1.5), "about_right"),
        ((2.0, 1.99, 2.0, 2.0), "nothing_learned"),
    ],
)
def test_a_verdict_follows_from_the_losses(
    losses: tuple[float, float, float, float], verdict: str
) -> None:
    constant, trained, masked, validation = losses
    gap = Gap(constant, trained, masked, validation, has_dropout=True)
    assert advise(gap).verdict == verdict
    assert f"{validation:.4g}" in advise(gap).text


def test_the_shares_are_those_of_what_was_learned() -> None:
    gap = Gap(constant=2.0, train=1.0, masked=1.25, validation=1.5, has_dropout=True)
    assert (gap.gap, gap.cost) == (0.5, 0.25)
    assert (gap.kept_held_out, gap.kept_under_masks) == (0.5, 0.75)
    assert math.isnan(Gap(1.0, 1.0, 1.0, 1.0, True).kept_held_out)


@pytest.mark.parametrize("kind", ["classes", "values", "noise"])
def test_the_best_constant_is_the_closed_form(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=generator), 3.0 * torch.randn(60, 1, generator=generator)
    labels = torch.arange(60) % 4 // 2 + (torch.arange(60) % 5 == 0)
    cases: dict[str, tuple[nn.Module, Tensor, Loss, float]] = {
        "classes": (
            MLP(4, (4,), 3),
            labels,
            cross_entropy,
            float(stats.entropy(torch.bincount(labels))),
        ),
        "values": (MLP(4, (4,), 1), y, squared_error, float(y.var(correction=0))),
        "noise": (
            MLP(4, (4,), 1, heteroscedastic=True),
            y,
            gaussian_nll,
            0.5 * math.log(2 * math.pi * math.e * float(y.var(correction=0))),
        ),
    }
    network, targets, loss, expected = cases[kind]
    gap = measure_gap(network, (x, targets), (x, targets), loss)
    assert gap.constant == pytest.approx(expected, abs=1e-3)


def test_measuring_changes_neither_network_nor_generator() -> None:
    rows, held_out = _rows(60)
    network = _trained(0.2, rows, epochs=1).train()
    before, weights = torch.get_rng_state(), [p.clone() for p in network.parameters()]
    first, second = (measure_gap(network, rows, held_out, squared_error) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(p, w) for p, w in zip(network.parameters(), weights, strict=True))
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gap_is_measured_where_the_network_lies() -> None:
    rows, held_out = _rows(60)
    network = _trained(0.2, rows, epochs=1)
    on_cpu = measure_gap(network, rows, held_out, squared_error)
    on_gpu = measure_gap(network.cuda(), rows, held_out, squared_error)
    assert on_gpu.train == pytest.approx(on_cpu.train, rel=1e-3)
    assert on_gpu.constant == pytest.approx(on_cpu.constant, rel=1e-3)
