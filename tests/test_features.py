"""The feature vector of each row: the named module's output, else the end of the prefix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import Values
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, export
from dubito_nn.dropout import UnknownWordDropout
from dubito_nn.program import Node, Program, Ref


def exported(network: nn.Module, path: Path, features: str | None = None) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(
            network,
            torch.randn(4, 6),
            path / "network.dubito",
            task="classification",
            output="logits",
            features=features,
        )


def loaded(bundle: Bundle) -> Engine:
    """As fast as it goes: nothing is measured for two independent passes."""
    return Engine.load(bundle, num_samples=2, draw="iid")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    return exported(perceptron(), tmp_path_factory.mktemp("named"), "2")


@pytest.fixture(scope="module")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 6), perceptron())
    return exported(network, tmp_path_factory.mktemp("prefixed"))


def rows(count: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(5))


def perceptron(first: float = 0.3) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Dropout(first), nn.Linear(6, 10), nn.ReLU(), nn.Dropout(0.4), nn.Linear(10, 3))
    )


class Sequences(nn.Module):
    """Steps first and rows second, where the prefix ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.embed(x.view(-1, 3, 2)).transpose(0, 1)
        return self.last(self.encoder(steps).mean(0))


class WordsDropped(nn.Module):
    """Words are replaced at random before anything is learnt of them."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.embed = UnknownWordDropout(0, 0.3), nn.Embedding(9, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.embed(self.drop(x)).mean(1))


def test_a_named_module_gives_its_output_in_evaluation_mode(tmp_path: Path) -> None:
    network = perceptron().eval()
    engine = loaded(exported(network, tmp_path, "2"))
    expected = network[:3](rows(7))
    torch.testing.assert_close(engine.features(rows(7)), expected, rtol=0, atol=1e-6)


def test_a_named_map_is_laid_out_flat_per_row(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        *(nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(24, 3)),
    ).eval()
    engine = loaded(exported(network, tmp_path, "3"))
    expected = network[:4](rows(5)).flatten(1)
    torch.testing.assert_close(engine.features(rows(5)), expected, rtol=0, atol=1e-6)


def test_without_a_name_the_last_value_before_the_first_draw_is_taken(tmp_path: Path) -> None:
    network = nn.Sequential(
        *(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh()),
        *(nn.Dropout(0.3), nn.Linear(5, 5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3)),
    )
    engine = loaded(exported(network, tmp_path))
    torch.testing.assert_close(engine.features(rows(4)), network[:4](rows(4)), rtol=0, atol=1e-6)


def test_rows_that_do_not_come_first_in_the_prefix_do_so_in_the_features(tmp_path: Path) -> None:
    engine = loaded(exported(Sequences(), tmp_path))
    together = engine.features(rows(5))
    one_by_one = torch.cat([engine.features(row[None]) for row in rows(5)])
    assert together.shape[0] == 5
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", ["named", "prefixed"])
def test_neither_sampling_nor_budget_nor_order_changes_them(
    which: str, request: pytest.FixtureRequest
) -> None:
    bundle: Bundle = request.getfixturevalue(which)
    engine = loaded(bundle)
    before = engine.features(rows(9))
    engine.predict(rows(9), sampling=Sampling(8, seed=3, masks="independent"))
    assert torch.equal(engine.features(rows(9)), before)
    small = Engine.load(bundle, num_samples=2, seed=5, draw="iid", memory_budget_bytes=4096)
    torch.testing.assert_close(small.features(rows(9)), before, rtol=0, atol=1e-6)
    torch.testing.assert_close(engine.features(rows(9).flip(0)).flip(0), before, rtol=0, atol=1e-6)
    assert before.dtype == torch.float32
    assert not before.requires_grad


def test_where_inputs_are_dropped_the_numbers_among_them_are_the_features(tmp_path: Path) -> None:
    engine = loaded(exported(perceptron(), tmp_path))
    assert torch.equal(engine.features(rows(2)), rows(2))


def test_dropped_words_leave_no_features_to_take(tmp_path: Path) -> None:
    bundle = export(
        WordsDropped(),
        torch.randint(0, 9, (4, 6)),
        tmp_path / "words.dubito",
        task="classification",
        output="logits",
    )
    with pytest.raises(InputError, match=r"export again with features="):
        loaded(bundle).features(torch.zeros(2, 6, dtype=torch.int64))


@pytest.mark.parametrize(
    "sampling",
    [
        *(Sampling(8), Sampling(8, masks="independent"), Sampling(48, tolerance=0.2)),
        *(Sampling(1, method="point"), Sampling(8, method="moments")),
    ],
    ids=str,
)
@pytest.mark.parametrize("which", ["named", "prefixed"])
def test_a_prediction_with_features_is_the_prediction_and_the_features(
    which: str, sampling: Sampling, request: pytest.FixtureRequest
) -> None:
    engine = loaded(request.getfixturevalue(which))
    prediction, maps = engine.predict_with_features(rows(9), sampling=sampling)
    assert torch.equal(maps, engine.feature_maps(rows(9)))
    np.testing.assert_array_equal(prediction.mean, engine.predict(rows(9), sampling=sampling).mean)


def test_features_of_passes_are_no_pass_more(
    prefixed: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in several blocks and tiles; each goes through the prefix once."""
    engine = Engine.load(prefixed, num_samples=2, draw="iid", memory_budget_bytes=4096)
    seen, prefix = [], Execution.prefix

    def counted(execution: Execution, inputs: Mapping[str, Tensor]) -> Values:
        seen.append(len(next(iter(inputs.values()))))
        return prefix(execution, inputs)

    monkeypatch.setattr(Execution, "prefix", counted)
    _, maps = engine.predict_with_features(rows(50))
    assert len(seen) > 1
    assert sum(seen) == 50
    torch.testing.assert_close(maps, engine.features(rows(50)), rtol=0, atol=1e-6)


def test_a_map_keeps_its_axes_and_is_flat_as_a_vector(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Dropout2d(0.3)),
        *(nn.Flatten(), nn.Linear(24, 3)),
    ).eval()
    engine = loaded(exported(network, tmp_path))
    maps = engine.feature_maps(rows(5))
    torch.testing.assert_close(maps, network[:3](rows(5)), rtol=0, atol=1e-6)
    assert torch.equal(engine.features(rows(5)), maps.flatten(1))


def test_wrong_rows_are_refused_as_in_a_prediction(named: Bundle) -> None:
    engine = loaded(named)
    with pytest.raises(InputError, match="expects rows of shape"):
        engine.features(np.zeros((2, 5), np.float32))


def test_the_pass_ends_where_the_check_raises(named: Bundle) -> None:
    engine = loaded(named)

    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        engine.features(rows(2), check=check)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("aten.sum.default", (Ref("made"),)),
        ("aten.argmax.default", (Ref("made"), 1, True)),
        ("aten.sum.dim_IntList", (Ref("made"), (1,))),
    ],
)
def test_a_bundle_whose_features_are_no_vectors_of_rows_is_refused(
    op: str, args: tuple[object, ...], named: Bundle
) -> None:
    name = named.point.outputs["features"]
    fixed = tuple(Ref(name) if part == Ref("made") else part for part in args)
    node = Node("wrong", op, fixed)  # type: ignore[arg-type]
    point = Program(
        (*named.point.nodes, node), {"output": named.point.outputs["output"], "features": "wrong"}
    )
    with pytest.raises(BundleRefusedError, match="features"):
        Engine.load(replace(named, point=point))
