"""Every variant of dropout inside a small network: export, bundle, engine.

One row per variant. Its layers must replay what the eager network drew, have its moments, hold
still in eval mode, and stand in the table of the documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import Masks
from dubito.engine.draws.masks import draw
from dubito.engine.sites.means import mean_of
from dubito.engine.sites.standing import Standing
from dubito_nn import Bundle, export
from dubito_nn import dropout as d
from dubito_nn.training import seeded

NUM_WORDS = 12


@dataclass(frozen=True)
class Variant:
    """A network and its rows.

    `make` gives a fresh network with three outputs, `rows` that many rows of input; `per_batch`
    says that all rows of a call share a draw.
    """

    name: str
    make: Callable[[], nn.Module]
    rows: Callable[[int], Tensor]
    layer: str
    per_batch: bool = False


class _First(nn.Module):
    """What a recurrent layer returns first, at the last step."""

    def forward(self, returned: tuple[Tensor, object]) -> Tensor:
        return returned[0][:, -1]


class _Mean(nn.Module):
    """Mean over the steps."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class _Residual(nn.Module):
    """x + dropped branch."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = x + self.branch(x)
        return kept


def _normal(*shape: int) -> Callable[[int], Tensor]:
    def rows(count: int) -> Tensor:
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))

    return rows


def _words(count: int) -> Tensor:
    return torch.randint(0, NUM_WORDS, (count, 5), generator=torch.Generator().manual_seed(5))


def _dense(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(6, 8), nn.SELU(), layer(), nn.Linear(8, 3))


def _map1d(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), nn.SELU(), layer(), nn.Flatten(), nn.Linear(24, 3)
    )


def _map2d(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.SELU(), layer(), nn.Flatten(), nn.Linear(64, 3)
    )


def _map3d(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1), nn.SELU(), layer(), nn.Flatten(), nn.Linear(24, 3)
    )


def _weights(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer(), nn.ReLU(), nn.Linear(8, 3))


def _image_weights(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer(), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def _steps(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer(), _First(), nn.Linear(5, 3))


def _vectors(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer(), nn.Linear(4, 5), nn.Tanh(), _Mean(), nn.Linear(5, 3))


def _noisy(layer: nn.Module) -> nn.Module:
    """A sparse layer with some noise, as after training."""
    nn.init.uniform_(layer.log_variance, -6.0, -1.0)  # type: ignore[arg-type]
    return layer


def _branch(per: d.masks.Per) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(6, 8),
        _Residual(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), d.StochasticDepth(0.3, per))),
        nn.Linear(8, 3),
    )


_VECTOR, _SEQUENCE, _IMAGE = _normal(6), _normal(3, 4), _normal(1, 4, 4)
_WAVE, _VOLUME = _normal(2, 6), _normal(1, 2, 2, 2)

VARIANTS = [
    Variant("standard", _dense(lambda: d.Dropout(0.3)), _VECTOR, "Dropout"),
    Variant("original", _dense(lambda: d.OriginalDropout(0.3)), _VECTOR, "OriginalDropout"),
    Variant("spatial 1d", _map1d(lambda: d.SpatialDropout1d(0.3)), _WAVE, "SpatialDropout1d"),
    Variant("spatial 2d", _map2d(lambda: d.SpatialDropout2d(0.3)), _IMAGE, "SpatialDropout2d"),
    Variant("spatial 3d", _map3d(lambda: d.SpatialDropout3d(0.3)), _VOLUME, "SpatialDropout3d"),
    Variant("dropblock 1d", _map1d(lambda: d.DropBlock1d(0.3, 2)), _WAVE, "DropBlock1d"),
    Variant("dropblock 2d", _map2d(lambda: d.DropBlock2d(0.3, 2)), _IMAGE, "DropBlock2d"),
    Variant("gaussian", _dense(lambda: d.GaussianDropout(0.3)), _VECTOR, "GaussianDropout"),
    Variant(
        "learned gaussian",
        _dense(lambda: d.LearnedGaussianDropout(8)),
        _VECTOR,
        "LearnedGaussianDropout",
    ),
    Variant("alpha", _dense(lambda: d.AlphaDropout(0.2)), _VECTOR, "AlphaDropout"),
    Variant(
        "feature alpha", _map2d(lambda: d.FeatureAlphaDropout(0.2)), _IMAGE, "FeatureAlphaDropout"
    ),
    Variant("concrete", _dense(lambda: d.ConcreteDropout(8)), _VECTOR, "ConcreteDropout"),
    Variant("concrete 1d", _map1d(lambda: d.ConcreteDropout1d(4)), _WAVE, "ConcreteDropout1d"),
    Variant("concrete 2d", _map2d(lambda: d.ConcreteDropout2d(4)), _IMAGE, "ConcreteDropout2d"),
    Variant(
        "targeted activations",
        _dense(lambda: d.TargetedActivationDropout(0.5, 0.5)),
        _VECTOR,
        "TargetedActivationDropout",
    ),
    Variant(
        "targeted weights",
        _weights(lambda: d.TargetedWeightDropout(nn.Linear(6, 8), 0.5, 0.5)),
        _VECTOR,
        "TargetedWeightDropout",
        per_batch=True,
    ),
    Variant(
        "targeted units",
        _weights(lambda: d.TargetedUnitDropout(nn.Linear(6, 8), 0.5, 0.5)),
        _VECTOR,
        "TargetedUnitDropout",
    ),
    Variant(
        "targeted channels",
        _image_weights(lambda: d.TargetedUnitDropout(nn.Conv2d(1, 4, 3, padding=1), 0.5, 0.5)),
        _IMAGE,
        "TargetedUnitDropout",
    ),
    Variant(
        "dropconnect per batch",
        lambda: nn.Sequential(
            d.DropConnect(nn.Linear(6, 8), 0.4, activation=nn.Tanh()), nn.Linear(8, 3)
        ),
        _VECTOR,
        "DropConnect",
        per_batch=True,
    ),
    Variant(
        "dropconnect per row",
        lambda: nn.Sequential(
            d.DropConnect(nn.Linear(6, 8), 0.4, activation=nn.ReLU(), per="row"), nn.Linear(8, 3)
        ),
        _VECTOR,
        "DropConnect",
    ),
    Variant(
        "dropconnect of a convolution",
        _image_weights(lambda: d.DropConnect(nn.Conv2d(1, 4, 3, padding=1), 0.4)),
        _IMAGE,
        "DropConnect",
        per_batch=True,
    ),
    Variant(
        "sparse linear", _weights(lambda: _noisy(d.SparseLinear(6, 8))), _VECTOR, "SparseLinear"
    ),
    Variant(
        "sparse linear per batch",
        _weights(lambda: _noisy(d.SparseLinear(6, 8, per="batch"))),
        _VECTOR,
        "SparseLinear",
        per_batch=True,
    ),
    Variant(
        "sparse convolution",
        _image_weights(lambda: _noisy(d.SparseConv2d(1, 4, 3, padding=1))),
        _IMAGE,
        "SparseConv2d",
    ),
    Variant("time-tied", _vectors(lambda: d.TimeTiedDropout(0.3)), _SEQUENCE, "TimeTiedDropout"),
    Variant(
        "variational lstm",
        _steps(lambda: d.VariationalLSTM(4, 5, 0.3, input_drop_prob=0.2)),
        _SEQUENCE,
        "VariationalLSTM",
    ),
    Variant(
        "variational gru", _steps(lambda: d.VariationalGRU(4, 5, 0.3)), _SEQUENCE, "VariationalGRU"
    ),
    Variant(
        "update lstm",
        _steps(lambda: d.RecurrentDropoutLSTM(4, 5, 0.3)),
        _SEQUENCE,
        "RecurrentDropoutLSTM",
    ),
    Variant(
        "update gru",
        _steps(lambda: d.RecurrentDropoutGRU(4, 5, 0.3)),
        _SEQUENCE,
        "RecurrentDropoutGRU",
    ),
    Variant(
        "state lstm",
        _steps(lambda: d.RecurrentDropoutLSTM(4, 5, 0.3, on="state")),
        _SEQUENCE,
        "RecurrentDropoutLSTM",
    ),
    Variant(
        "state gru",
        _steps(lambda: d.RecurrentDropoutGRU(4, 5, 0.3, on="state")),
        _SEQUENCE,
        "RecurrentDropoutGRU",
    ),
    Variant(
        "word type per row",
        _vectors(lambda: d.WordTypeDropout(nn.Embedding(NUM_WORDS, 4), 0.3)),
        _words,
        "WordTypeDropout",
    ),
    Variant(
        "word type per batch",
        _vectors(lambda: d.WordTypeDropout(nn.Embedding(NUM_WORDS, 4), 0.3, "batch")),
        _words,
        "WordTypeDropout",
        per_batch=True,
    ),
    Variant("token", _vectors(lambda: d.TokenDropout(0.3)), _SEQUENCE, "TokenDropout"),
    Variant(
        "unknown word",
        _vectors(lambda: nn.Sequential(d.UnknownWordDropout(0, 0.3), nn.Embedding(NUM_WORDS, 4))),
        _words,
        "UnknownWordDropout",
    ),
    Variant(
        "positional",
        _vectors(lambda: d.PositionalDropout(6, 4, 0.3)),
        _SEQUENCE,
        "PositionalDropout",
    ),
    Variant("stochastic depth per row", _branch("row"), _VECTOR, "StochasticDepth"),
    Variant(
        "stochastic depth per batch", _branch("batch"), _VECTOR, "StochasticDepth", per_batch=True
    ),
]

NUM_SAMPLES = 2000
OTHER_IN_EVALUATION = (  # modes that do more, or less, than hold the masks at their means
    *("targeted activations", "targeted weights", "targeted units", "targeted channels"),
    *("dropconnect per batch", "dropconnect per row"),
    *("sparse linear", "sparse linear per batch", "sparse convolution"),
)


def _network(variant: Variant) -> nn.Module:
    with seeded(7):
        return variant.make().train()


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: variant.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    chosen: Variant = request.param
    return chosen


@pytest.fixture(scope="module")
def bundle(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(
        _network(variant),
        variant.rows(4),
        tmp_path_factory.mktemp("bundle") / "network.dubito",
        task="classification",
        output="logits",
    )


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine.load(bundle)


class Recorder(TorchDispatchMode):
    """Keeps the result of every random operator that an eager network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            draw = result[1] if isinstance(result, tuple) else result
            self.draws.append(draw.detach().clone())
        return result


@pytest.mark.parametrize("count", [1, 5])
def test_replayed_draws_give_the_eager_output(variant: Variant, bundle: Bundle, count: int) -> None:
    network, rows = _network(variant), variant.rows(count)
    with seeded(3), torch.no_grad(), Recorder() as recorder:
        eager = network(rows)
    assert len(recorder.draws) == len(bundle.sites)

    def recorded(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        assert tuple(recorder.draws[index].shape) == size
        return recorder.draws[index].to(dtype)

    name = bundle.manifest.inputs[0].name
    graph = bundle.sampling.run({name: rows}, bundle.weights, recorded)["output"]
    torch.testing.assert_close(graph, eager, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_folded_samples_are_those_of_one_sample_and_one_row_at_a_time(
    variant: Variant, engine: Engine, masks: Masks
) -> None:
    rows, sampling, bundle = variant.rows(3), Sampling(3, 2, masks), engine.bundle
    name = bundle.manifest.inputs[0].name

    def alone(t: int, row: int) -> Tensor:
        def source(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            one, place = range(t, t + 1), range(row, row + 1)
            site = bundle.sites[index]
            how = {"masks": masks, "rows": place, "kind": sampling.draw, "dtype": dtype}
            own = draw(site, 2, one, size, **how)  # type: ignore[arg-type]
            return own.reshape(size)

        inputs = {name: rows[row : row + 1]}
        return bundle.sampling.run(inputs, bundle.weights, source)["output"]

    with torch.no_grad():
        expected = torch.stack([torch.cat([alone(t, row) for row in range(3)]) for t in range(3)])
    got = engine.sample(rows, sampling=sampling)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def _eager_samples(variant: Variant, rows: Tensor) -> Tensor:
    network = _network(variant)
    with seeded(11), torch.no_grad():
        if variant.per_batch:
            return torch.stack([network(rows) for _ in range(NUM_SAMPLES)])
        samples: Tensor = network(rows.repeat(NUM_SAMPLES, *[1] * (rows.ndim - 1)))
        return samples.reshape(NUM_SAMPLES, len(rows), -1)


def test_moments_of_served_samples_are_those_of_eager_ones(
    variant: Variant, engine: Engine
) -> None:
    # 4 standard errors of each difference; false alarm 6e-5 for each, the seeds are fixed.
    rows = variant.rows(2)
    eager_TBC = _eager_samples(variant, rows).double()
    served_TBC = engine.sample(rows, sampling=Sampling(NUM_SAMPLES, 1)).double()
    centre = eager_TBC.mean(0)
    for power in (1, 2):
        eager, served = (eager_TBC - centre) ** power, (served_TBC - centre) ** power
        error = ((eager.var(0) + served.var(0)) / NUM_SAMPLES).sqrt()
        assert (error > 0).all()
        assert ((eager.mean(0) - served.mean(0)).abs() / error).max() < 4


def test_eval_mode_is_deterministic_and_is_the_point_method(
    variant: Variant, engine: Engine
) -> None:
    network, rows = _network(variant).eval(), variant.rows(3)
    with torch.no_grad(), Recorder() as recorder:
        first, again = network(rows), network(rows)
    assert not recorder.draws
    assert torch.equal(first, again)
    point = engine.predict(rows, sampling=Sampling(method="point")).mean
    torch.testing.assert_close(torch.from_numpy(point).float(), first.softmax(1), atol=1e-5, rtol=0)


def test_gradients_for_fixed_draws_agree_with_differences(variant: Variant) -> None:
    network, rows = _network(variant).double(), variant.rows(2)
    given = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    if rows.is_floating_point():
        given["input"] = rows.double().requires_grad_()

    def replay(*tensors: Tensor) -> Tensor:
        own = dict(zip(given, tensors, strict=True))
        x = own.pop("input", rows)
        with seeded(3):
            output: Tensor = torch.func.functional_call(network, own, (x,))
        return output

    assert torch.autograd.gradcheck(replay, tuple(given.values()), fast_mode=True)


def test_sites_name_the_layer_and_its_probability(variant: Variant, bundle: Bundle) -> None:
    assert all(0.0 < (site.drop_prob or 0.0) < 1.0 for site in bundle.sites)
    assert all(site.batch_dim is None for site in bundle.sites) == variant.per_batch
    layers = [m for m in _network(variant).modules() if type(m).__name__ == variant.layer]
    stated = {_number(layer.drop_prob) for layer in layers}
    if variant.name == "variational lstm":
        stated.add(0.2)  # of its inputs
    assert {site.drop_prob for site in bundle.sites} == stated
    is_learned = variant.layer.startswith(("Concrete", "Learned", "Sparse"))
    assert all(site.learned == is_learned for site in bundle.sites)


def _number(drop_prob: Tensor | float) -> float:
    return drop_prob.double().mean().item() if isinstance(drop_prob, Tensor) else drop_prob


def _public_layers() -> set[str]:
    return {
        name
        for name in d.__all__
        if isinstance(found := getattr(d, name), type) and issubclass(found, nn.Module)
    }


def test_every_public_layer_is_among_the_variants() -> None:
    assert {variant.layer for variant in VARIANTS} == _public_layers(), "give each a `Variant`"


def test_the_documented_table_names_every_public_name() -> None:
    text = (Path(__file__).parent.parent / "docs" / "dropout.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)", row[2])}
    assert documented == set(d.__all__), "correct the tables of docs/dropout.md"


def test_the_readme_has_every_variant_and_how_it_is_served() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    served = {
        name: how.strip()
        for layers, _, _, how in re.findall(r"^\| (`\w.*) \| (.*) \| (.*) \| (.*) \|$", text, re.M)
        for name in re.findall(r"`(\w+)`", layers)
    }
    words = {
        frozenset({False}): "folded",
        frozenset({True}): "one at a time",
        frozenset({False, True}): 'folded; `per="batch"` one at a time',
    }
    assert served == {
        layer: words[frozenset(v.per_batch for v in VARIANTS if v.layer == layer)]
        for layer in {variant.layer for variant in VARIANTS}
    }, "correct the table of layers in README.md"


def test_drop_prob_at_export_takes_the_place_of_a_layers_own(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(6, 8), d.Dropout(0.1), d.AlphaDropout(0.2), nn.Linear(8, 3))
    bundle = export(
        network,
        torch.randn(4, 6),
        tmp_path / "network.dubito",
        task="classification",
        output="logits",
        drop_prob={"1": 0.4, "2": 0.5},
    )
    assert [site.drop_prob for site in bundle.sites] == [0.4, 0.5]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_the_network_and_evaluates_it_as_the_cpu_does(variant: Variant) -> None:
    network, rows = _network(variant), variant.rows(3)
    with torch.no_grad():
        expected = network.eval()(rows)
    network.cuda().train()
    network(rows.cuda()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        got = network.eval()(rows.cuda()).cpu()
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


def test_a_layer_that_is_not_sampled_stands_at_the_mean_of_its_mask(
    variant: Variant, bundle: Bundle, engine: Engine
) -> None:
    none = Standing(bundle, engine.made_up_rows()).with_sampled(())
    assert not none.sampling.of_kind("site")
    rows = engine.read_inputs(variant.rows(5))
    found = none.sampling.run(rows, none.weights)["output"]
    if variant.name in OTHER_IN_EVALUATION:  # affine in their draws

        def at_mean(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.full(size, mean_of(bundle.sites[index]), dtype=dtype)

        expected = bundle.sampling.run(rows, bundle.weights, at_mean)["output"]
    else:
        expected = bundle.point.run(rows, bundle.weights)["output"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
