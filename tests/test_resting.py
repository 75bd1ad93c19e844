"""The point graph of networks that roll dice in evaluation mode as well: masks at their means."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dubito_nn import Bundle, export

RATES = torch.linspace(0.1, 0.9, 8)
Noise = Callable[[Tensor], Tensor]


class Noisy(nn.Module):
    """A linear map of noisy numbers, so that its mean is that of numbers at the noise's mean."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.head, self.dropout, self.noise = nn.Linear(8, 3), nn.Dropout(0.2), noise

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.noise(x) + self.dropout(x))


def _concrete(x: Tensor) -> Tensor:
    logit = torch.logit(RATES) + torch.logit(torch.rand_like(x), 1e-6)
    return x * (1 - torch.sigmoid(logit / 0.1))


# the mean of each noise in closed form, for x
NOISES: dict[str, tuple[Noise, Noise]] = {
    "rand < p": (lambda x: x * (torch.rand_like(x) < 0.36).float() / 0.36, lambda x: x),
    "rand < P": (lambda x: x * (torch.rand_like(x) < RATES), lambda x: x * RATES),
    "P > rand": (lambda x: x * (torch.rand_like(x) < RATES).to(x.dtype), lambda x: x * RATES),
    "rand > p": (lambda x: x * (torch.rand_like(x) > 0.3), lambda x: 0.7 * x),
    "bernoulli": (lambda x: x * torch.bernoulli(RATES.expand_as(x)), lambda x: x * RATES),
    "bernoulli by x": (lambda x: torch.bernoulli(x.sigmoid()), torch.sigmoid),
    "floor": (
        lambda x: x * (0.8 + torch.rand(x.shape[0], 1, device=x.device)).floor() / 0.8,
        lambda x: x,
    ),
    "where": (lambda x: torch.where(torch.rand_like(x) < 0.3, 2.0, x), lambda x: 0.6 + 0.7 * x),
    "masked_fill": (lambda x: x.masked_fill(torch.rand_like(x) < 0.3, 0.0), lambda x: 0.7 * x),
    "not": (lambda x: x * ~(torch.rand_like(x) < 0.3), lambda x: 0.7 * x),
    "around 0": (lambda x: x * (torch.empty_like(x).uniform_(-1, 1) < 0.4), lambda x: 0.7 * x),
    "rand < x": (lambda x: (torch.rand_like(x) < x.sigmoid()) * x, lambda x: x * x.sigmoid()),
    "log-normal": (
        lambda x: x * (torch.randn_like(x) * 0.8).exp(),
        lambda x: x * torch.tensor(0.32).exp(),
    ),
    "gaussian": (lambda x: x * (1 + 0.8 * torch.randn_like(x)), lambda x: x),
    "concrete": (_concrete, lambda x: x * (1 - _sigmoid_mean())),
}


def _sigmoid_mean() -> Tensor:
    """E sigmoid((logit P + logit u) / 0.1) over a fine grid of u."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    return (
        torch.sigmoid((torch.logit(RATES.double()) + torch.logit(u)[:, None]) / 0.1).mean(0).float()
    )


def point(bundle: Bundle, x: Tensor) -> Tensor:
    with torch.no_grad():
        return bundle.point.run({"x": x}, bundle.weights)["output"]


@pytest.mark.parametrize("name", NOISES)
def test_a_mask_that_is_drawn_in_evaluation_mode_stands_at_its_mean(name, tmp_path):
    torch.manual_seed(0)
    noise, mean = NOISES[name]
    network, x = Noisy(noise), torch.randn(4, 8)
    bundle = export(network, x, tmp_path / "x.dubito", task="regression", output="mean")
    with torch.no_grad():
        expected = network.head(mean(x) + x)
    torch.testing.assert_close(point(bundle, x), expected, atol=3e-3, rtol=3e-3)
    assert not any("evaluation mode" in warning for warning in bundle.manifest.warnings)


@pytest.mark.parametrize(
    "noise",
    [
        lambda x: x * torch.rand_like(x) ** (5 * torch.rand_like(x)),
        lambda x: x * RATES[torch.multinomial(x.softmax(1), 8, replacement=True)],
    ],
    ids=["two draws", "classes by the data"],
)
def test_where_the_mean_is_not_known_the_bundle_says_so(noise, tmp_path):
    network = Noisy(noise)
    bundle = export(
        network, torch.randn(4, 8), tmp_path / "x.dubito", task="regression", output="mean"
    )
    (warning,) = bundle.manifest.warnings
    assert "`(the network itself)`" in warning
    assert "method `point` is off there" in warning
