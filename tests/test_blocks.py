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
from dubito.engine.additivity import interactions, left_over
from dubito.engine.answering.streaming import looks
from dubito.engine.summing.figures import classification
from dubito.engine.summing.sheet import on_host
from dubito.engine.summing.statistics import ClassificationSums, RunningSpread
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


def error_of(spread: RunningSpread) -> NDArray[np.float64]:
    sums, draws = on_host(spread.sums()), spread.draws()
    return draws.standard_error(sums, draws.ratio(sums))


def measures_of(sums: ClassificationSums) -> dict[str, NDArray[np.float64]]:
    return classification(on_host(sums.sums()), sums.draws())


@pytest.mark.parametrize("count", [2, 3, 15, 16, 17, 32, 50, 64, 100])
@pytest.mark.parametrize("chunk", [1, 7, 16, 200])
def test_the_streamed_standard_error_is_that_of_the_slow_reference(count: int, chunk: int) -> None:
    samples_TBD = np.random.default_rng(count).gamma(0.7, size=(count, 3, 2))
    spread = RunningSpread(0.23)
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
    spread = RunningSpread(0.2)
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
    sums = ClassificationSums(engine.left)
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


def test_rows_that_stop_at_a_tolerance_are_within_it_in_the_root_mean_square(
    tmp_path: Path,
) -> None:
    """Over 300 seeds, which know a root mean square to 4 %: three times that is allowed."""
    torch.manual_seed(2)
    engine = Engine.load(bundle(perceptron(0.3), tmp_path))
    raw = engine.sample(rows(8), sampling=Sampling(300 * 128, 3, draw="stratified"))
    probs_TBC = raw.double().softmax(-1).reshape(300, 128, 8, 4).transpose(0, 1).flatten(1, 2)
    exact_BC = np.tile(probs_TBC.mean(0).reshape(300, 8, 4).mean(0).numpy(), (300, 1))
    for tolerance in (0.02, 0.03):
        spread, start = RunningSpread(engine.left), 0
        going_B, missed = np.ones(2400, bool), list[NDArray[np.float64]]()
        for stop in looks(128, tolerance):
            spread.add(probs_TBC[start:stop])
            sums, start = on_host(spread.sums()), stop
            done_B = going_B & spread.draws().is_within(sums, tolerance)
            largest_B1 = error_of(spread).argmax(1)[:, None]
            missed_B = np.take_along_axis(sums["mean"] - exact_BC, largest_B1, 1)[:, 0]
            missed.append(missed_B[done_B])
            going_B &= ~done_B
        missed_B = np.concatenate(missed)
        assert len(missed_B) > 1000
        assert np.sqrt(np.square(missed_B).mean()) < 1.12 * tolerance
        assert (np.abs(missed_B) <= 2 * tolerance).mean() > 0.94


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


@pytest.mark.parametrize(("num_samples", "seed"), [(16, 0), (64, 1)])
def test_where_few_switches_are_all_the_stated_error_is_on_the_safe_side(
    num_samples: int, seed: int, tmp_path: Path
) -> None:
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


class UniformNoise(nn.Module):
    """Units times 1 + u - 1/2, u uniform on [0, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.5 + torch.rand_like(x))


def share_left_of_normals() -> float:
    """1 less the variance of the means of a normal in 16 equally likely strata."""
    density = norm.pdf(norm.ppf(np.arange(17) / 16))
    return float(1 - np.mean((16 * np.diff(density)) ** 2))


ADDITIVE = {  # layer, variance of what it multiplies by, share of it that a block leaves
    "bernoulli": (nn.Dropout(0.3), 0.3 / 0.7, 0.8 * 0.2 / (16 * 0.3 * 0.7)),  # 16 · 0.3 = 4.8
    "normal": (GaussianDropout(0.2), 0.2 / 0.8, share_left_of_normals()),
    "uniform": (UniformNoise(), 1 / 12, 1 / 256),
}


@pytest.mark.parametrize("name", list(ADDITIVE))
def test_what_is_additive_has_no_interactions_and_a_small_error(name: str, tmp_path: Path) -> None:
    """Over 800 blocks, which know a spread to 2.5 %: five times that is left to chance."""
    torch.manual_seed(4)
    layer, noise, share = ADDITIVE[name]
    network = nn.Sequential(nn.Linear(6, 200), nn.ReLU(), layer, nn.Linear(200, 1))
    found = bundle(network, tmp_path, task="regression")
    assert {site.distribution for site in found.sites} == {name}
    engine = Engine.load(found)
    inputs = {found.manifest.inputs[0].name: rows(2)}
    assert interactions(found, engine.placed, engine.device, inputs) < 1e-9
    left = left_over(found, engine.placed, engine.device, inputs)
    assert left == pytest.approx(share, rel=2e-3)
    with torch.no_grad():
        weight_BK = network[3].weight * network[1](network[0](rows(8)))
    one_B = (weight_BK.square().sum(1) * noise).numpy()  # the variance of one sample
    exact_B = np.sqrt(one_B * share / 16)  # of the mean of a block
    raw_TB = engine.sample(rows(8), sampling=Sampling(16 * 800, 3, draw="stratified"))[..., 0]
    block_TSB = raw_TB.double().reshape(800, 16, 8).transpose(0, 1)
    np.testing.assert_allclose(block_TSB.mean(0).std(0), exact_B, rtol=0.125)
    spread = RunningSpread(left)
    spread.add(block_TSB)
    stated_B = np.sqrt(np.square(error_of(spread)).mean(0))
    assert (stated_B > 0.95 * exact_B).all()
    assert (stated_B < 1.9 * exact_B).all()


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
