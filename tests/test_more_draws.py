"""Random operators that are lifted by inverse transform: their moments are those of torch's own."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, distributions, nn
from torch.nn import functional

from dubito_nn import export
from dubito_nn.lifting.draws import random_draws

TABLE = torch.linspace(-1, 1, 8) ** 3
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
    assert len(bundle.sites) == len(names)
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
        # 84 numbers in all: one beyond 5 standard errors in 20,000 runs
        assert z.abs().max() < 5, dict(zip(names, z.abs().amax(0).tolist(), strict=True))
