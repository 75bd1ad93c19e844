import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dubito_nn.training import noise_precision, squared_error, train, train_weight_decay
from dubito_nn.training import weight_decay as weight_decay_of

_positive = st.floats(1e-3, 1e3)


def test_the_precision_is_the_formula() -> None:
    # (1 - 0.05) · 0.01² / (2 · 455 · 1e-6)
    tau = noise_precision(drop_prob=0.05, length_scale=1e-2, num_rows=455, weight_decay=1e-6)
    assert tau == pytest.approx(0.95 * 1e-4 / (910.0 * 1e-6), rel=1e-12)


@given(st.floats(0.0, 0.99), _positive, st.integers(1, 10**6), _positive)
def test_precision_and_weight_decay_are_inverse_to_each_other(
    drop_prob: float, length_scale: float, num_rows: int, tau: float
) -> None:
    decay = weight_decay_of(
        drop_prob=drop_prob, length_scale=length_scale, num_rows=num_rows, noise_precision=tau
    )
    back = noise_precision(
        drop_prob=drop_prob, length_scale=length_scale, num_rows=num_rows, weight_decay=decay
    )
    assert back == pytest.approx(tau, rel=1e-9)


def test_the_decay_of_the_loop_gives_the_posterior_mean_of_the_linear_gaussian_model() -> None:
    # p = 0: y = w x + N(0, 1/τ) with the prior w ~ N(0, 1/l²) has the posterior mean
    # τ Σ x y / (τ Σ x² + l²), which training with the decay that stands for τ and l must reach.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 1, generator=generator)
    y = 3.0 * x + torch.randn(50, 1, generator=generator)
    tau, length_scale = 0.5, 4.0
    decay = train_weight_decay(
        drop_prob=0.0, length_scale=length_scale, num_rows=50, noise_precision=tau
    )
    network = nn.Linear(1, 1, bias=False)
    train(
        network,
        x,
        y,
        loss=squared_error,
        epochs=300,
        batch_size=50,
        learning_rate=0.1,
        weight_decay=decay,
    )
    expected = tau * (x * y).sum() / (tau * x.square().sum() + length_scale**2)
    assert network.weight.item() == pytest.approx(expected.item(), abs=1e-3)


def test_layers_that_scale_what_they_keep_need_the_larger_decay() -> None:
    known = {"length_scale": 0.1, "num_rows": 100, "noise_precision": 2.0}
    plain, scaled = (f(drop_prob=0.5, **known) for f in (weight_decay_of, train_weight_decay))  # type: ignore[operator]
    assert scaled == pytest.approx(4.0 * plain / 0.25, rel=1e-12)


@pytest.mark.parametrize("drop_prob", [-0.1, 1.0, 1.5])
def test_a_drop_probability_out_of_range_is_refused(drop_prob: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        noise_precision(drop_prob=drop_prob, length_scale=1.0, num_rows=10, weight_decay=1.0)


@pytest.mark.parametrize("change", [{"num_rows": 0}, {"length_scale": 0.0}, {"weight_decay": 0.0}])
def test_other_figures_out_of_range_are_refused(change: dict[str, float]) -> None:
    known = {"drop_prob": 0.1, "length_scale": 1.0, "num_rows": 10, "weight_decay": 1.0}
    with pytest.raises(ValueError, match="change the one out of range"):
        noise_precision(**{**known, **change})  # type: ignore[arg-type]
