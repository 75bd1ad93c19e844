import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from dubito_nn.training import (
    cross_entropy,
    in_turn,
    mixup,
    seeded,
    smoothed_cross_entropy,
    squared_error,
)


def test_mixup_of_two_rows_is_their_convex_combination_in_inputs_and_targets_alike() -> None:
    x = torch.eye(50)
    with seeded(0):
        mixed, y = mixup(0.4)(x, x.clone())
    # Rows of the unit matrix: what is mixed can be read off the places of the two numbers.
    torch.testing.assert_close(mixed, y)
    torch.testing.assert_close(mixed.sum(1), torch.ones(50))
    assert int((mixed > 0).sum(1).max()) == 2
    share = mixed.diagonal()
    assert float(share.min()) < 0.5 < float(share.max())


def test_the_shares_of_mixup_follow_the_beta_distribution() -> None:
    # False-alarm rate 1e-6.
    x = torch.zeros(4000, 1)
    x[0] = 1.0
    with seeded(1):
        other_is_zero, _ = mixup(0.7)(torch.ones(4000, 1), torch.zeros(4000, 1))
        x = torch.arange(4000.0)[:, None]
        mixed, _ = mixup(0.7)(torch.cat([x, x.square()], 1), x)
    torch.testing.assert_close(other_is_zero, torch.ones(4000, 1))
    # The two coordinates of a mixed row give its share: with u = x, v = x_other,
    # m₁ = λu + (1-λ)v and m₂ = λu² + (1-λ)v²  =>  v = (m₂ - u m₁) / (m₁ - u).
    u, (m1, m2) = x[:, 0].double(), mixed.double().T
    moved = (m1 - u).abs() > 1.0
    v = (m2 - u * m1)[moved] / (m1 - u)[moved]
    share = ((m1[moved] - v) / (u[moved] - v)).clamp(0.0, 1.0)
    kept = share[(share > 0.05) & (share < 0.95)].numpy()
    low, high = stats.beta.cdf([0.05, 0.95], 0.7, 0.7)
    uniform = (stats.beta.cdf(kept, 0.7, 0.7) - low) / (high - low)
    assert stats.kstest(uniform, "uniform").pvalue > 1e-6


def test_mixup_turns_class_indices_into_probabilities_and_leaves_probabilities_so() -> None:
    labels = torch.tensor([0, 1, 2, 1])
    with seeded(0):
        _, q = mixup(0.4, num_classes=3)(torch.randn(4, 2), labels)
    assert q.shape == (4, 3)
    torch.testing.assert_close(q.sum(1), torch.ones(4))
    with seeded(0):
        _, again = mixup(0.4, num_classes=3)(
            torch.randn(4, 2), functional.one_hot(labels, 3).float()
        )
    torch.testing.assert_close(q, again)


def test_mixup_takes_images_and_keeps_their_type() -> None:
    with seeded(0):
        x, _ = mixup(0.4)(torch.randn(4, 1, 3, 3), torch.randn(4, 1))
    assert x.shape == (4, 1, 3, 3)
    assert x.dtype == torch.float32


def test_augmentations_in_turn_see_what_the_one_before_made() -> None:
    def double(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2.0 * x, y

    def add_one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1.0, -y

    x, y = in_turn(double, add_one)(torch.ones(2, 1), torch.ones(2, 1))
    assert torch.equal(x, torch.full((2, 1), 3.0))
    assert torch.equal(y, -torch.ones(2, 1))


def test_label_smoothing_equals_its_formula_for_indices_and_for_probabilities() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    one_hot = functional.one_hot(labels, 4).double()
    q = 0.9 * one_hot + 0.1 / 4
    expected = -(q * logits.log_softmax(1)).sum(1).mean()
    loss = smoothed_cross_entropy(0.1)
    torch.testing.assert_close(loss(logits, labels), expected)
    torch.testing.assert_close(loss(logits, one_hot), expected)
    torch.testing.assert_close(
        smoothed_cross_entropy(0.0)(logits, labels), cross_entropy(logits, labels)
    )


def test_the_smallest_smoothed_loss_is_the_entropy_of_the_smoothed_target() -> None:
    logits = torch.log(torch.tensor([[0.9 + 0.1 / 2, 0.1 / 2]]))
    loss = smoothed_cross_entropy(0.1)(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(stats.entropy([0.95, 0.05]), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_a_share_that_cannot_be_drawn_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="positive alpha"):
        mixup(alpha)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label smoothing"):
        smoothed_cross_entropy(smoothing)


def test_a_pair_of_heads_is_refused_by_the_losses_of_one() -> None:
    with pytest.raises(TypeError, match="use gaussian_nll"):
        smoothed_cross_entropy(0.1)((torch.zeros(2, 1), torch.zeros(2, 1)), torch.zeros(2, 1))
    assert squared_error(torch.zeros(2, 1), torch.ones(2, 1)).item() == 1.0
