"""Random operators that are lifted by inverse transform: their moments are those of torch's own."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, distributions, nn
from torch.nn import functional

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export
from dubito_nn.capturing.pooled import fractional_pool
from dubito_nn.lifting.draws import random_draws
from dubito_nn.lifting.tabulated import (
    binomial_table,
    count_of,
    gamma_of,
    gamma_table,
    poisson_table,
)

TABLE = torch.linspace(-1, 1, 8) ** 3
RATES = torch.linspace(0.3, 4, 8)
STEPS = {
    "a class": lambda x: TABLE[torch.multinomial(x.softmax(1), 1)[:, 0]],
    "different classes": lambda x: TABLE[torch.multinomial(x.softmax(1), 3)].prod(1),
    "classes again": lambda x: TABLE[torch.multinomial(x.softmax(1), 3, replacement=True)].prod(1),
    "Categorical": lambda x: TABLE[distributions.Categorical(logits=x).sample()],
    "gumbel_softmax": lambda x: functional.gumbel_softmax(x, tau=0.5) @ TABLE,
    "Gumbel": lambda x: distributions.Gumbel(x[:, 0], torch.ones(())).rsample(),
    "exponential_": lambda x: torch.empty_like(x[:, 0]).exponential_(2.0),
    "log_normal_": lambda x: torch.empty_like(x[:, 0]).log_normal_(0.1, 0.5),
    "cauchy_": lambda x: torch.empty_like(x[:, 0]).cauchy_(0.2, 0.5).atan(),
    "geometric_": lambda x: torch.empty_like(x[:, 0]).geometric_(0.4),
    "rrelu": lambda x: functional.rrelu(x, 0.1, 0.6, training=True).sum(1),
    "randperm": lambda x: x @ (TABLE * TABLE[torch.randperm(8)]),
    "generator=None": lambda x: x @ torch.rand(8, generator=None),
    "Gamma": lambda x: distributions.Gamma(0.7, 2.0).sample((x.shape[0],)) * x[:, 0],
    "Dirichlet": lambda x: distributions.Dirichlet(RATES).rsample(x.shape[:1]) @ TABLE,
    "Student's t": lambda x: distributions.StudentT(3.0).rsample((x.shape[0],)).atan(),
    "Poisson by class": lambda x: torch.poisson(RATES.expand(x.shape)) @ TABLE,
    "Binomial": lambda x: distributions.Binomial(6, torch.tensor(0.3)).sample((x.shape[0],)),
    "fractional pooling": lambda x: (
        functional.fractional_max_pool2d(x.view(-1, 1, 1, 8), (1, 2), (1, 5)).flatten(1) @ TABLE[:5]
    ),
    "Laplace": lambda x: distributions.Laplace(x[:, 0], torch.ones(())).rsample(),
}


SHARED = {"randperm", "generator=None"}  # one set of numbers for all rows of a call


class Drawing(nn.Module):
    """One column of output per way to draw."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.inner, self.steps = nn.Linear(8, 8), [STEPS[name] for name in names]

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        return torch.stack([step(inner) for step in self.steps], dim=1)


@pytest.mark.parametrize(("is_shared", "rows", "calls"), [(False, 4096, 1), (True, 1, 1024)])
def test_draws_by_inverse_transform_have_the_moments_of_torchs_own(
    is_shared, rows, calls, tmp_path
):
    torch.manual_seed(0)
    names = sorted(SHARED if is_shared else set(STEPS) - SHARED)
    network, x = Drawing(names), torch.randn(3, 8)
    bundle = export(network, x, tmp_path / "x.dubito", task="regression", output="mean")
    assert len(bundle.sites) == len(names) + ("Student's t" in names)
    many = x.repeat(rows, 1)
    lifted, eager = [], []
    with torch.no_grad():
        for _ in range(calls):
            draws = random_draws(bundle.sites)
            lifted.append(bundle.sampling.run({"x": many}, bundle.weights, draws)["output"])
            eager.append(network(many))
    passes = [torch.cat(parts).double().view(rows * calls, 3, -1) for parts in (lifted, eager)]
    for power in (1, 2):
        means = [(values**power).mean(0) for values in passes]
        errors = [(values**power).var(0) / len(values) for values in passes]
        z = (means[0] - means[1]) / (errors[0] + errors[1]).sqrt()
        # 130 numbers in all: one beyond 5 standard errors in 10,000 runs
        assert z.abs().max() < 5, dict(zip(names, z.abs().amax(0).tolist(), strict=True))


@pytest.mark.parametrize("a", [0.02, 0.5, 1.0, 7.5, 4000.0])
def test_quantiles_of_gamma_are_exact(a):
    normal = torch.linspace(-7, 7, 20_001, dtype=torch.float64)
    ours = gamma_of(gamma_table(torch.tensor(a, dtype=torch.float64)), normal).numpy()
    exact = np.where(
        normal > 0,
        stats.gamma.isf(stats.norm.sf(normal), a),
        stats.gamma.ppf(stats.norm.cdf(normal), a),
    )
    normal_numbers = exact > 1e-290  # below lie the last that float64 has
    assert normal_numbers[-8000:].all()
    assert np.abs(ours[normal_numbers] - np.log(exact[normal_numbers])).max() < 1e-6


@pytest.mark.parametrize(
    ("axes", "sizes", "kernel", "out"), [(2, (9, 8), (2, 3), (4, 3)), (3, (7, 6, 8), 2, (3, 3, 1))]
)
def test_fractional_pooling_by_gathers_is_torchs_own(axes, sizes, kernel, out):
    x, samples = torch.randn(3, 2, *sizes), torch.rand(3, 2, axes)
    theirs = getattr(functional, f"fractional_max_pool{axes}d_with_indices")
    expected = theirs(x, kernel, out, _random_samples=samples)
    ours = fractional_pool(axes, True, x, kernel, out, _random_samples=samples)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_counts_are_those_of_the_inverse_distribution_function():
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5).unsqueeze(1) / 20_000
    rates, trials = torch.tensor([0.0, 0.3, 4.0, 900.0]), torch.tensor([0.0, 1.0, 7.0, 5000.0])
    chances = torch.tensor([0.5, 1.0, 0.2, 0.01])
    poisson = count_of(poisson_table(rates), uniform)
    assert torch.equal(poisson, torch.from_numpy(stats.poisson.ppf(uniform, rates.numpy())).long())
    binomial = count_of(binomial_table(trials, chances), uniform)
    exact = stats.binom.ppf(uniform, trials.numpy(), chances.double().numpy())
    assert torch.equal(binomial, torch.from_numpy(exact).long())


REFUSED = {
    "of the input": (lambda x: torch.poisson(x.exp()), "depend on the input.*torch.rand"),
    "too large": (lambda x: torch.poisson(torch.full_like(x, 1e6)), "of counts at most 10000"),
    "too many": (
        lambda x: torch._standard_gamma(torch.arange(1.0, 501).expand(len(x), 500))[:, :8] * x,
        "at most 256 parameters that differ, got 500",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_table_stands_for_is_refused_with_the_remedy(name, tmp_path, monkeypatch):
    step, message = REFUSED[name]
    monkeypatch.setitem(STEPS, name, lambda x: step(x).sum(1))
    with pytest.raises(ExportError, match=message):
        export(Drawing([name]), torch.randn(3, 8), tmp_path / "x", task="regression", output="mean")


def test_one_number_of_a_table_is_stratified(tmp_path):
    class Multiplied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * distributions.Gamma(2.0, 1.0).sample((x.shape[0], 1))

    export(Multiplied(), torch.rand(3, 1), tmp_path / "x", task="regression", output="mean")
    engine = Engine.load(tmp_path / "x", timing_limit_s=0)
    passes = engine.sample({"x": torch.ones(1, 1)}, sampling=Sampling(16, draw="stratified"))
    sixteenths = torch.from_numpy(stats.gamma.cdf(passes.flatten(), 2.0) * 16).long()
    assert sorted(sixteenths.tolist()) == list(range(16))
