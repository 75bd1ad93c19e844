import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor, nn

from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import (
    best_noise_precision,
    gaussian_nll,
    log_likelihood,
    sampled_outputs,
    search_drop_prob,
    seeded,
    squared_error,
    train,
)


def _rows(num_rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 5, generator=generator)
    return x, 2.0 * x[:, :1] + 0.5 * torch.randn(num_rows, 1, generator=generator)


def test_the_likelihood_of_each_head_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 4, 6, 2))
    y = rng.normal(size=(6, 2))
    pairs = [(torch.tensor(m), torch.tensor(s)) for m, s in zip(mean, log_variance, strict=True)]
    each = stats.norm.logpdf(y, mean, np.exp(0.5 * log_variance)).sum(axis=2)
    expected = logsumexp(each, axis=0) - math.log(4)
    got = log_likelihood(list(pairs), torch.tensor(y), head="mean_and_log_variance")
    np.testing.assert_allclose(got, expected, rtol=1e-12)

    each = stats.norm.logpdf(y, mean, math.sqrt(1 / 3.0)).sum(axis=2)
    expected = logsumexp(each, axis=0) - math.log(4)
    means = [torch.tensor(m) for m in mean]
    got = log_likelihood(list(means), torch.tensor(y), head="mean", noise_precision=3.0)
    np.testing.assert_allclose(got, expected, rtol=1e-12)

    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    probs = torch.tensor(mean).softmax(2).mean(0)
    got = log_likelihood(list(means), labels, head="logits")
    torch.testing.assert_close(got, probs[torch.arange(6), labels].log())


def test_the_best_precision_of_equal_samples_is_one_over_the_mean_squared_error() -> None:
    mean, y = torch.zeros(400, 1).double(), 0.3 * torch.randn(400, 1).double()
    tau = best_noise_precision([mean, mean], y)
    assert tau == pytest.approx(1.0 / y.square().mean().item(), rel=0.02)


def test_the_best_precision_is_no_worse_than_its_neighbours_for_samples_that_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [torch.randn(50, 1, generator=generator).double() for _ in range(8)]
    y = torch.randn(50, 1, generator=generator).double()
    tau = best_noise_precision(list(samples), y)

    def score(precision: float) -> float:
        return float(
            log_likelihood(list(samples), y, head="mean", noise_precision=precision).mean()
        )

    assert score(tau) >= max(score(tau * 1.2), score(tau / 1.2), score(tau * 10), score(tau / 10))


def test_a_search_finds_that_a_rate_far_too_high_explains_held_out_rows_worse() -> None:
    x, y = _rows(300)
    found = search_drop_prob(
        lambda p: MLP(5, (16,), 1, dropout=StandardFamily(p), heteroscedastic=True),
        lambda network: train(
            network, x[:200], y[:200], loss=gaussian_nll, epochs=30, learning_rate=0.02
        ),
        (0.9, 0.1),
        (x[200:], y[200:]),
        head="mean_and_log_variance",
        num_samples=16,
    )
    assert [trial.drop_prob for trial in found.trials] == [0.9, 0.1]
    assert found.best is found.trials[1]
    worse, better = found.trials
    assert better.log_likelihood - worse.log_likelihood > 4.0 * worse.standard_error
    dropouts = [m for m in found.network.modules() if isinstance(m, nn.Dropout)]
    assert {m.p for m in dropouts} == {0.1}


def test_a_search_is_the_same_at_each_call_and_leaves_the_generator_alone() -> None:
    x, y = _rows(60)
    before = torch.get_rng_state()
    found = [
        search_drop_prob(
            lambda p: MLP(5, (8,), 1, dropout=StandardFamily(p)),
            lambda network: train(network, x[:40], y[:40], loss=squared_error, epochs=2),
            (0.1, 0.3),
            (x[40:], y[40:]),
            head="mean",
            num_samples=4,
            seed=5,
        )
        for _ in range(2)
    ]
    assert found[0].trials == found[1].trials
    assert torch.equal(torch.get_rng_state(), before)
    assert all(trial.noise_precision is not None for trial in found[0].trials)


@pytest.mark.parametrize("candidates", [(), (0.1, 1.0), (-0.1,), (math.nan,)])
def test_candidates_that_cannot_be_are_refused(candidates: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        search_drop_prob(
            lambda p: nn.Linear(1, 1), lambda network: None, candidates, _rows(2), head="mean"
        )


def test_heads_and_figures_that_do_not_fit_say_so() -> None:
    samples = sampled_outputs(nn.Linear(5, 1), _rows(4)[0], num_samples=2)
    with pytest.raises(ValueError, match="positive noise_precision"):
        log_likelihood(samples, _rows(4)[1], head="mean")
    with pytest.raises(ValueError, match="num_samples of at least 1"):
        sampled_outputs(nn.Linear(5, 1), _rows(4)[0], num_samples=0)
    with seeded(0):
        pair = MLP(5, (4,), 1, heteroscedastic=True)
    samples = sampled_outputs(pair, _rows(4)[0], num_samples=2)
    with pytest.raises(TypeError, match="mean_and_log_variance"):
        log_likelihood(samples, _rows(4)[1], head="mean", noise_precision=1.0)


@pytest.mark.parametrize(
    ("head", "num_outputs", "told"),
    [
        ("logits", 1, "a class index per row"),
        ("logits", 3, "real values go with the head `mean`"),
        ("mean", 3, "output's shape"),
        ("mean_and_log_variance", 1, "for one tensor"),
        ("median", 1, "expected the head `logits`, `mean`"),
    ],
)
def test_a_search_whose_targets_do_not_go_with_the_head_is_refused(
    head: str, num_outputs: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        search_drop_prob(
            lambda p: nn.Linear(5, num_outputs),
            lambda network: None,
            (0.1,),
            _rows(4),
            head=head,  # type: ignore[arg-type]
        )


def test_a_search_without_held_out_rows_is_refused() -> None:
    x, y = _rows(4)
    with pytest.raises(ValueError, match="at least one, got 0 and 0"):
        search_drop_prob(
            lambda p: nn.Linear(5, 1), lambda network: None, (0.1,), (x[:0], y[:0]), head="mean"
        )
