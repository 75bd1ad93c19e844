"""The standard error of a stratified mean: a slow reference, closed forms, networks over seeds."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor, nn

from dubito.engine import Classification, Engine, Sampling
from dubito.engine.running.sheet import on_host
from dubito.engine.summing.additivity import interactions, left_over
from dubito.engine.summing.figures import classification
from dubito.engine.summing.statistics import ClassificationSums, Spread
from dubito_nn import Bundle, export
from dubito_nn.dropout import ConcreteFamily, GaussianDropout
from dubito_nn.networks import MLP


def slow_standard_error(samples_T: NDArray[np.float64], left: float) -> float:
    """The formulas of `dubito.engine.summing.blocks` for one output, one step after the other."""
    count = len(samples_T)
    blocks = [samples_T[first : first + 16] for first in range(0, count - 15, 16)]
    variance = samples_T.var(ddof=1)
    slopes = []
    for block in blocks or [samples_T]:
        ranks = np.arange(1, len(block) + 1)
        scores = norm.ppf((ranks - 0.375) / (len(block) + 0.25))
        slopes.append((np.sort(block) * scores).sum() / (scores**2).sum())
    number = max(1, len(blocks))
    straight = min(1.0, np.mean(slopes) ** 2 / variance) ** (1 + 0.5 / number)
    ratio = 1 - (1 - left) * straight
    if len(blocks) > 1:
        between = 16 * np.var([block.mean() for block in blocks], ddof=1) / variance
        ratio = (4 * ratio + (len(blocks) - 1) * between) / (4 + len(blocks) - 1)
    rest = count % 16
    total = 16 * len(blocks) * ratio + rest * (1 - (rest - 1) / 15 * (1 - ratio))
    factor = total / count
    return float(np.sqrt(samples_T.var() * factor / (count - factor)))


def error_of(spread: Spread) -> NDArray[np.float64]:
    sums, draws = on_host(spread.sums()), spread.draws()
    return draws.standard_error(sums, draws.ratio(sums))


def measures_of(sums: ClassificationSums) -> dict[str, NDArray[np.float64]]:
    return classification(on_host(sums.sums()), sums.draws())


@pytest.mark.parametrize("count", [2, 3, 15, 16, 17, 32, 50, 64, 100])
@pytest.mark.parametrize("chunk", [1, 7, 16, 200])
def test_the_streamed_standard_error_is_that_of_the_slow_reference(count: int, chunk: int) -> None:
    samples_TBD = np.random.default_rng(count).gamma(0.7, size=(count, 3, 2))
    spread = Spread(0.23)
    for first in range(0, count, chunk):
        spread.add(torch.from_numpy(samples_TBD[first : first + chunk]))
    slow_BD = np.apply_along_axis(slow_standard_error, 0, samples_TBD, 0.23)
    np.testing.assert_allclose(error_of(spread), slow_BD, rtol=1e-10)


def test_some_rows_taken_out_go_on_as_if_alone() -> None:
    probs_TBC = torch.from_numpy(np.random.default_rng(1).dirichlet([0.5] * 3, size=(150, 4)))
    sizes_TB2 = torch.linspace(-1, 1, 1200, dtype=torch.float64).reshape(150, 4, 2)
    alone, together = ClassificationSums(0.2), ClassificationSums(0.2)
    alone.add(probs_TBC[:, [1, 3]], sizes_TB2[:, [1, 3]])
    together.add(probs_TBC[:70], sizes_TB2[:70])
    part = together.take(torch.tensor([1, 3]))
    part.add(probs_TBC[70:, [1, 3]], sizes_TB2[70:, [1, 3]])
    found = measures_of(part)
    for name, column in measures_of(alone).items():
        np.testing.assert_allclose(found[name], column, rtol=1e-10, atol=1e-12, err_msg=name)


def test_samples_without_spread_have_no_error() -> None:
    spread = Spread(0.2)
    spread.add(torch.full((40, 1, 2), 0.25, dtype=torch.float64))
    assert not error_of(spread).any()


def bundle(network: nn.Module, folder: Path, *, task: str = "classification") -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(
            network,
            torch.randn(4, 6),
            folder / "network.dubito",
            task=task,  # type: ignore[arg-type]
            output="logits" if task == "classification" else "mean",
        )


def loud(network: nn.Module, gain: float) -> nn.Module:
    for part in network.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=gain / part.in_features**0.5)
    return network


def perceptron(drop_prob: float) -> nn.Module:
    layers: list[nn.Module] = []
    for fan_in in (6, 40):
        layers += [nn.Linear(fan_in, 40), nn.ReLU(), nn.Dropout(drop_prob)]
    return loud(nn.Sequential(*layers, nn.Linear(40, 4)), 1.6)


def concrete() -> nn.Module:
    family = ConcreteFamily(num_rows=100, length_scale=0.1, drop_prob_init=0.2)
    return loud(MLP(6, (40, 40), 4, dropout=family), 1.6)


def gaussian() -> nn.Module:
    return loud(
        nn.Sequential(nn.Linear(6, 40), nn.ReLU(), GaussianDropout(0.2), nn.Linear(40, 4)), 1.6
    )


NETWORKS = {
    "p .1": lambda: perceptron(0.1),
    "p .3": lambda: perceptron(0.3),
    "p .5": lambda: perceptron(0.5),
    "concrete": concrete,
    "gaussian": gaussian,
}


def rows(count: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(5))


def over_seeds(engine: Engine, count: int, num_samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Means, standard errors and corrected information of so many blocks of a long draw.

    Blocks of 16 are independent, so groups of them are what other seeds would give.
    """
    raw = engine.sample(rows(8), sampling=Sampling(count * num_samples, 3, draw="stratified"))
    probs_STBC = raw.double().softmax(-1).reshape(count, num_samples, *raw.shape[1:])
    folded = probs_STBC.transpose(0, 1).flatten(1, 2)
    sums = ClassificationSums(engine._left)
    sums.add(folded, torch.zeros((*folded.shape[:2], 2), dtype=torch.float64))
    found = {name: torch.from_numpy(one) for name, one in measures_of(sums).items()}
    shape = (count, *raw.shape[1:])
    return (
        found["mean"].reshape(shape),
        found["standard_error"].reshape(shape),
        found["mutual_information_corrected"].reshape(shape[:2]),
    )


@pytest.mark.parametrize("num_samples", [16, 32, 64])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_standard_error_is_the_spread_of_the_mean_over_500_seeds(
    name: str, num_samples: int, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    engine = Engine.load(bundle(NETWORKS[name](), tmp_path))
    mean_SBC, stated_SBC, _ = over_seeds(engine, 500, num_samples)
    spread_BC = mean_SBC.std(0)
    ratio_BC = stated_SBC.square().mean(0).sqrt() / spread_BC
    # one layer of normal noise has no interactions: there R₀ is cautious
    assert 0.8 < float(ratio_BC.median()) < (1.3 if name == "gaussian" else 1.2)
    assert float((spread_BC**2).mean()) > 0


class Switched(nn.Module):
    """Four branches, each there or not there as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 4)
        self.branches = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for branch in self.branches:
            is_there_B1 = torch.rand(x.shape[0], 1) < 0.7
            x = x + torch.where(is_there_B1, branch(x).relu() / 0.7, 0.0)
        return self.last(x)


@pytest.mark.parametrize("num_samples", [16, 64])
def test_where_few_switches_are_all_the_stated_error_is_on_the_safe_side(
    num_samples: int, tmp_path: Path
) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        engine = Engine.load(bundle(Switched(), tmp_path))
        mean_SBC, stated_SBC, _ = over_seeds(engine, 400, num_samples)
        ratio_BC = stated_SBC.square().mean(0).sqrt() / mean_SBC.std(0)
        # 400 blocks know a spread to some 4 %: three times that is left to chance
        assert float(ratio_BC.min()) > 0.88
        assert float(ratio_BC.median()) < (4 if num_samples == 16 else 2.2)


@pytest.mark.parametrize("num_samples", [16, 64])
def test_the_corrected_information_is_not_biased(num_samples: int, tmp_path: Path) -> None:
    torch.manual_seed(2)
    engine = Engine.load(bundle(perceptron(0.3), tmp_path))
    _, _, corrected_SB = over_seeds(engine, 500, num_samples)
    raw = engine.sample(rows(8), sampling=Sampling(20_000, 4, draw="stratified"))
    probs_TBC = raw.double().softmax(-1)
    entropy_TB = torch.special.entr(probs_TBC).sum(-1)
    exact_B = torch.special.entr(probs_TBC.mean(0)).sum(-1) - entropy_TB.mean(0)
    assert float(corrected_SB.mean() / exact_B.mean()) == pytest.approx(1, abs=0.03)


def test_what_is_additive_has_no_interactions_and_a_small_error(tmp_path: Path) -> None:
    torch.manual_seed(4)
    network = nn.Sequential(nn.Linear(6, 200), nn.ReLU(), nn.Dropout(0.3), nn.Linear(200, 1))
    found = bundle(network, tmp_path, task="regression")
    engine = Engine.load(found)
    assert (
        interactions(found, engine.placed, engine.device, {found.manifest.inputs[0].name: rows(2)})
        < 1e-9
    )
    with torch.no_grad():
        weight_BK = network[3].weight * network[1](network[0](rows(8)))
    one_B = weight_BK.square().sum(1) * 0.3 / 0.7  # the variance of one sample
    exact_B = (one_B * 0.8 * 0.2 / (16 * 0.3 * 0.7) / 16).sqrt()  # of a block: 16 · 0.3 = 4.8
    answers = [
        engine.predict(rows(8), sampling=Sampling(16, seed, draw="stratified"))
        for seed in range(400)
    ]
    spread_B = np.std([answer.mean[:, 0] for answer in answers], axis=0, ddof=1)
    np.testing.assert_allclose(spread_B, exact_B.numpy(), rtol=0.2)  # 5.6 standard errors
    stated_B = np.sqrt(np.mean([answer.standard_error[:, 0] ** 2 for answer in answers], axis=0))
    assert (stated_B / exact_B.numpy()).max() < 1.7
    assert (stated_B / one_B.sqrt().numpy() * 4).max() < 0.4  # 1 for independent draws


def test_products_of_two_units_are_interactions_alone(tmp_path: Path) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 30), nn.Linear(6, 30)

        def forward(self, x: Tensor) -> Tensor:
            noise = torch.randn_like(self.one(x)), torch.randn_like(self.two(x))
            return (self.one(x) * noise[0] * noise[1]).sum(1, keepdim=True) + 0 * x[:, :1]

    torch.manual_seed(0)
    found = bundle(Product(), tmp_path, task="regression")
    engine = Engine.load(found)
    share = interactions(
        found, engine.placed, engine.device, {found.manifest.inputs[0].name: rows(200)}
    )
    assert share == pytest.approx(1, abs=0.15)
    assert (
        left_over(found, engine.placed, engine.device, {found.manifest.inputs[0].name: rows(2)})
        > 0.5
    )


def test_stratified_draws_leave_less_error_than_independent_ones(tmp_path: Path) -> None:
    torch.manual_seed(2)
    engine = Engine.load(bundle(perceptron(0.3), tmp_path))
    errors = {}
    for draw in ("iid", "stratified"):
        answers = [
            engine.predict(rows(8), sampling=Sampling(16, seed, draw=draw))  # type: ignore[arg-type]
            for seed in range(300)
        ]
        assert isinstance(answers[0], Classification)
        errors[draw] = np.var([answer.mean for answer in answers], axis=0).sum()
    assert errors["iid"] > 2 * errors["stratified"]
