"""Buffers that are overwritten before they are read, and what is written for nobody."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export


class Bayesian(nn.Module):
    """A linear layer with random weights, as the usual libraries write it: noise in a buffer."""

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.mean, self.rho = (
            nn.Parameter(torch.randn(3, 8)),
            nn.Parameter(torch.full((3, 8), -1.0)),
        )
        self.draw = draw
        self.register_buffer("eps", torch.zeros(3, 8), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def noise(self) -> Tensor:
        if self.draw == "data":
            return self.eps.data.normal_()
        if self.draw == "in place":
            self.eps.normal_(0.0, 1.0)
        elif self.draw == "copied":
            self.eps.copy_(torch.randn(3, 8))
        elif self.draw == "new":
            keeps = self.mean.data.new(self.mean.size()).fill_(0.5).bernoulli_()
            return keeps * 2 - 1  # mean 0 and variance 1, as the others
        elif self.draw == "mixed":
            self.eps.mul_(0.9).add_(torch.randn(3, 8))
        return self.eps

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        weight = self.mean + functional.softplus(self.rho) * self.noise()
        return functional.linear(x, weight)


@pytest.mark.parametrize("draw", ["data", "in place", "copied", "new"])
def test_noise_that_is_drawn_into_a_buffer_is_a_site(draw, tmp_path):
    torch.manual_seed(0)
    network, x, path = Bayesian(draw), torch.randn(2, 8), tmp_path / "network.dubito"
    bundle = export(network, x, path, task="regression", output="mean")
    (site,) = bundle.sites
    assert (site.batch_dim, site.shape) == (None, (3, 8))
    assert set(bundle.weights) <= {"mean", "rho"}
    assert network.calls == 0
    passes = (
        Engine.load(path).sample(x.numpy(), sampling=Sampling(num_samples=1024, seed=1)).double()
    )
    mean = functional.linear(x, network.mean).double()
    spread = functional.linear(x**2, functional.softplus(network.rho) ** 2).double().sqrt()
    z = (passes.mean(0) - mean) / spread * 32  # draws are stratified, so less than 1 as a rule
    assert z.abs().max() < 4.5
    # a variance of T draws is off by at most √(2 / T) of itself for normal sums
    assert ((passes.var(0) / spread**2 - 1).abs() < 5 * (2 / 1024) ** 0.5).all()


def test_a_buffer_that_outlives_a_pass_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"buffer `eps`.*reads it in the next.*outside"):
        export(
            Bayesian("mixed"), torch.randn(2, 8), tmp_path / "x", task="regression", output="mean"
        )


def test_an_input_may_be_overwritten(tmp_path):
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 3))
    x = torch.randn(4, 8)
    export(network, x, tmp_path / "x.dubito", task="regression", output="mean")
    assert (x < 0).any()
