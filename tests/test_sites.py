"""Some sites sampled, the others at their means: by eager networks and closed forms.

Every layer of the family at its mean is in `test_family_served.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dubito.engine import Engine, Ensemble, Sampling
from dubito.engine.calling.sampling import Masks, Sites, read_sites, shown_sites
from dubito.engine.draws.masks import draw
from dubito.engine.pinning import choose, pinned
from dubito.engine.sites.chosen import chosen, settled
from dubito.engine.sites.standing import Standing
from dubito.errors import InputError
from dubito_nn import Bundle, export
from dubito_nn import dropout as d

HIDDEN, NUM_SAMPLES = 40, 20
SAMPLING = Sampling(NUM_SAMPLES, seed=3)


def _deep(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Linear(6, HIDDEN), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(0.5), nn.Linear(HIDDEN, 3)),
    )


def _exported(network: nn.Module, rows: Tensor, folder: Path) -> Bundle:
    path = folder / "network.dubito"
    return export(network, rows, path, task="classification", output="logits")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _exported(_deep(), torch.randn(3, 6), tmp_path_factory.mktemp("sites"))


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine.load(bundle)


def _rows(count: int = 5) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("masks", ["shared", "independent"])
@pytest.mark.parametrize("sites", [(0,), (1,), (0, 1)])
def test_passes_are_those_of_an_eager_network_with_the_other_dropouts_in_evaluation_mode(
    engine: Engine, sites: tuple[int, ...], masks: Masks
) -> None:
    network, rows = _deep().eval(), _rows()
    sampling = replace(SAMPLING, masks=masks, sites=sites)
    raw_TBC = engine.sample(rows, sampling=sampling)
    scaled = {}
    for site in sites:
        of_rows = draw(
            engine.bundle.sites[site],
            sampling.seed,
            range(NUM_SAMPLES),
            (HIDDEN,),
            masks=masks,
            rows=range(len(rows)),
            kind="stratified",
        )
        mask_TBH = of_rows[:, None] if masks == "shared" else of_rows
        scaled[site] = mask_TBH / engine.bundle.sites[site].bernoulli_mean
    with torch.no_grad():
        hidden = network[:2](rows) * scaled.get(0, torch.ones(1, 1, 1))
        expected_TBC = network[6](network[3:5](hidden) * scaled.get(1, torch.ones(1, 1, 1)))
    expected_TBC = expected_TBC.expand_as(raw_TBC)
    torch.testing.assert_close(raw_TBC, expected_TBC, rtol=1e-5, atol=1e-6)


def test_with_all_sites_nothing_changes_and_one_network_serves_all_choices(engine: Engine) -> None:
    every = engine.sample(_rows(), sampling=SAMPLING)
    for sites in ("all", [0, 1], [1, 0, 1], ["*"], ["2", 1]):
        same = replace(SAMPLING, sites=sites)  # type: ignore[arg-type]
        assert torch.equal(engine.sample(_rows(), sampling=same), every)
    last = engine.of_sites("last")
    assert last.sampled == (1,)
    assert last is engine.of_sites((1,)) is engine.of_sites(("5",)) is last.of_sites("last")
    assert last.of_sites("all") is engine
    shared = last.placed.weights.keys() & engine.placed.weights.keys()
    assert shared == engine.placed.weights.keys()
    assert all(last.placed.weights[key] is engine.placed.weights[key] for key in shared)


def test_what_is_not_sampled_is_computed_once_per_row(engine: Engine) -> None:
    plan = engine.of_sites("last").pieces("shared", {"input": _rows()}).execution.plan
    in_suffix = [node.op for node in plan.suffix]
    assert in_suffix.count("aten.linear.default") == 1
    assert [node.op for node in plan.prefix].count("aten.linear.default") == 2


class _Alive(TorchDispatchMode):
    """Counts the results of operators that are held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self._made = 0, list[weakref.ref[Tensor]]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self._made = [made for made in self._made if made() is not None]
        self._made += [weakref.ref(result)] if isinstance(result, Tensor) else []
        self.most = max(self.most, len(self._made))
        return result


def test_the_prefix_holds_on_to_nothing_that_is_read_no_more(tmp_path: Path) -> None:
    layers = [part for _ in range(20) for part in (nn.Linear(6, 6), nn.Tanh())]
    network = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(6, 3))
    engine = Engine.load(_exported(network, torch.randn(3, 6), tmp_path))
    rows = engine.read_inputs(_rows())
    execution = engine.pieces("shared", rows).execution
    with torch.no_grad(), _Alive() as alive:
        execution.prefix(rows)
    assert alive.most <= 4


def test_the_last_few_choices_are_kept_and_others_are_made_again(tmp_path: Path) -> None:
    network = nn.Sequential(
        *[part for _ in range(6) for part in (nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.5))],
        nn.Linear(6, 3),
    )
    engine = Engine.load(_exported(network, torch.randn(3, 6), tmp_path))
    first = engine.sample(_rows(), sampling=replace(SAMPLING, sites=(0,)))
    kept = {engine.of_sites((site,)) for site in range(6)}
    assert len(kept) == 6
    assert sum(engine.of_sites((site,)) in kept for site in range(5, -1, -1)) < 6
    assert torch.equal(engine.sample(_rows(), sampling=replace(SAMPLING, sites=(0,))), first)


class _Branches(nn.Module):
    """Two heads behind a shared part; a third dropout between them and the first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2))
        self.skip = nn.Dropout(0.2)
        self.left = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 3))
        self.right = nn.Sequential(nn.Dropout(0.4), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        h = h + self.skip(torch.tanh(h))
        return self.left(h) + self.right(h)  # type: ignore[no-any-return]


class _Tied(nn.Module):
    """Two masks that are the same at every step, and reach each other over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.first, self.second = nn.Dropout(0.2), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        one = torch.bernoulli(torch.full_like(x, 0.5), 0.5) if self.training else x * 0 + 0.5
        two = torch.bernoulli(torch.full_like(x, 0.5), 0.5) if self.training else x * 0 + 0.5
        for _ in range(2):
            x = torch.tanh(self.second(torch.tanh(self.first(x * one)) * two))
        return x[:, :3]


@pytest.mark.parametrize(
    ("network", "last"), [(_Branches, {"left.0", "right.0"}), (_Tied, {"(the network itself)"})]
)
def test_the_last_sites_are_those_from_which_no_other_is_reached(
    network: Callable[[], nn.Module], last: set[str], tmp_path: Path
) -> None:
    bundle = _exported(network(), torch.randn(3, 6), tmp_path)
    numbers = chosen("last", bundle.sites, bundle.sampling)
    assert {bundle.sites[number].module_path for number in numbers} == last
    assert len(numbers) == 2


class _Always(nn.Module):
    """A layer that rolls its dice in every mode, before a dropout."""

    def __init__(self, mask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mask, self.behind = mask, nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(x * self.mask(x))  # type: ignore[no-any-return]


def _relaxed(x: Tensor) -> Tensor:
    u = torch.rand_like(x)
    return torch.sigmoid((1.5 + torch.log(u + 1e-7) - torch.log(1 - u + 1e-7)) / 0.1)


@pytest.mark.parametrize(
    ("mask", "mean"),
    [
        (lambda x: (torch.rand_like(x) < 0.3137).float(), 0.3137),
        (lambda x: torch.floor(0.7 + torch.rand_like(x)) / 0.7, 1.0),
        (lambda x: (torch.randn_like(x) > 1.0).float(), 0.15865525),
        (lambda x: torch.exp(0.5 * torch.randn_like(x)), 1.1331485),
        (lambda x: torch.rand_like(x) * torch.rand_like(x[:, :1]) + 1, 1.25),
        (lambda x: torch.rand_like(x) @ torch.eye(6), 0.5),
        (_relaxed, None),
    ],
    ids=["compared", "floor", "tail", "lognormal", "two draws", "mixed linearly", "relaxed"],
)
def test_the_mean_of_a_mask_and_not_the_mask_of_the_mean_draw(
    mask: Callable[[Tensor], Tensor], mean: float | None, tmp_path: Path
) -> None:
    network = _Always(mask)
    bundle = _exported(network, torch.randn(3, 6), tmp_path)
    if mean is None:  # over a fine grid
        grid = (torch.arange(1_000_000).double() + 0.5) / 1e6
        relaxed = torch.sigmoid((1.5 + torch.log(grid + 1e-7) - torch.log(1 - grid + 1e-7)) / 0.1)
        mean = float(relaxed.mean())
    none = Standing(bundle, {"x": _rows(2)}).with_sampled(())
    found = none.sampling.run({"x": _rows()}, none.weights)["output"]
    expected = network.behind.eval()(_rows() * mean).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_mean_that_differs_between_units_is_spread_over_the_rows(tmp_path: Path) -> None:
    drop_prob = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    class PerUnit(_Always):
        def __init__(self) -> None:
            super().__init__(lambda x: (torch.rand_like(x) > self.p).float())
            self.register_buffer("p", drop_prob)

    network = PerUnit()
    bundle = _exported(network, torch.randn(3, 6), tmp_path)
    none = Standing(bundle, {"x": _rows(2)}).with_sampled(())
    for count in (1, 5):
        found = none.sampling.run({"x": _rows(count)}, none.weights)["output"]
        expected = network.behind.eval()(_rows(count) * (1 - drop_prob)).detach()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)  # of 1024 strata


def test_a_mask_without_a_known_mean_is_refused_and_may_be_sampled(tmp_path: Path) -> None:
    network = _Always(lambda x: torch.softmax(torch.rand_like(x), -1))
    engine = Engine.load(_exported(network, torch.randn(3, 6), tmp_path))
    with pytest.raises(InputError, match=r"known mean, got site 0 \(`.*softmax.*name it among"):
        engine.predict(_rows(), sampling=replace(SAMPLING, sites="last"))
    alone = engine.sample(_rows(), sampling=replace(SAMPLING, sites=(0,)))
    assert float(alone.std(0).mean()) > 0


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ("first", "expects `all`, `last`, or 1 to 1000 site numbers and patterns"),
        ([], r"expects `all`, `last`.*got \[\]"),
        (None, "got None: such as last"),
        ([True], "expects site numbers and patterns of module paths, got True"),
        ([1.5], "got 1.5: such as 3"),
        (
            [2],
            r"from 0 to 1 .*got 2, which names no site: choose among 0 \(`2`\), 1 \(`5`\); digits",
        ),
        ([-1], "got -1, which names no site"),
        (["head.*"], "got `head.*`, which names no site"),
        ([0] * 1001, "got 1001 of them"),
    ],
)
def test_a_choice_of_no_site_is_refused(engine: Engine, sites: Sites, told: str) -> None:
    with pytest.raises(InputError, match=told):
        engine.predict(_rows(), sampling=replace(SAMPLING, sites=sites))


def test_a_method_or_a_network_without_draws_has_no_sites_to_choose(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`sites` expects a method that samples.*leave one out"):
        Sampling(1, method="point", sites="last")
    with pytest.raises(InputError, match="expects a network that draws"):
        settled("last", ())


def test_a_choice_is_written_in_one_way(bundle: Bundle) -> None:
    assert settled(("5", 1, "5"), bundle.sites) == (1,)
    assert settled(("2", 1), bundle.sites) == settled(("*",), bundle.sites) == "all"
    assert settled("last", bundle.sites) == "last"
    for sites in ("all", "last", (0, "head.*", 12)):
        assert Sampling(sites=read_sites(shown_sites(sites))).sites == sites  # type: ignore[arg-type]


def test_moments_propagate_the_draws_of_the_chosen_sites_alone(
    engine: Engine, tmp_path: Path
) -> None:
    network = _deep()
    network[2] = nn.Identity()
    alone = Engine.load(_exported(network, torch.randn(3, 6), tmp_path))
    moments = replace(SAMPLING, num_samples=1, method="moments")
    found = engine.predict(_rows(), sampling=replace(moments, sites="last"))
    expected = alone.predict(_rows(), sampling=moments)
    assert found.mean == pytest.approx(expected.mean, abs=1e-6)
    assert found.variance == pytest.approx(expected.variance, abs=1e-6)


def test_features_are_those_of_all_sites(engine: Engine) -> None:
    last = engine.of_sites("last")
    assert torch.equal(last.features(_rows()), engine.features(_rows()))


def test_what_a_stratified_draw_leaves_is_that_of_the_chosen_sites(engine: Engine) -> None:
    assert engine.of_sites("last").left == pytest.approx(0.1)  # additive: curved alone is left
    assert engine.left > 0.12
    independent = Engine.load(engine.bundle, draw="iid")
    assert independent.of_sites((1,)).sampled == (1,)


def test_an_engine_that_is_pinned_answers_with_the_same_bits(engine: Engine) -> None:
    sampling = replace(SAMPLING, sites="last")
    rows = engine.read_inputs(_rows(16))
    choice = choose(engine, rows, sampling)
    fixed = pinned(engine, rows, sampling, choice)
    assert torch.equal(
        fixed.sample(rows, sampling=sampling), engine.sample(rows, sampling=sampling)
    )
    assert fixed.of_sites("last") is fixed


def test_every_member_of_an_ensemble_samples_the_sites(tmp_path: Path) -> None:
    members = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        exported = _exported(_deep(seed), torch.randn(3, 6), tmp_path / str(seed))
        members.append(Engine.load(exported))
    ensemble = Ensemble(tuple(members))
    sampling = replace(SAMPLING, sites=("5",))
    both = ensemble.sample(_rows(), sampling=sampling)
    alone = members[1].sample(_rows(), sampling=replace(sampling, seed=SAMPLING.seed + 1))
    assert torch.equal(both[NUM_SAMPLES:], alone)


def test_a_default_of_the_engine_is_made_at_load(bundle: Bundle) -> None:
    engine = Engine.load(bundle, sites="last", num_samples=NUM_SAMPLES, seed=3)
    plain = Engine.load(bundle)
    asked = plain.sample(_rows(), sampling=replace(SAMPLING, sites="last"))
    assert torch.equal(engine.sample(_rows()), asked)
    with pytest.raises(InputError, match="names no site"):
        Engine.load(bundle, sites=(7,))


def test_dropconnect_before_a_dropout_no_longer_runs_one_sample_at_a_time(tmp_path: Path) -> None:
    network = nn.Sequential(
        d.DropConnect(nn.Linear(6, 8), 0.4, activation=nn.ReLU()), nn.Dropout(0.5), nn.Linear(8, 3)
    )
    engine = Engine.load(_exported(network, torch.randn(3, 6), tmp_path))
    plan = engine.of_sites("last").pieces("shared", engine.read_inputs(_rows())).execution.plan
    assert not plan.one_at_a_time
