"""Every reference network: shapes, sites, and the way through a bundle into the engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito_nn import export
from dubito_nn.dropout import ConcreteFamily, DropBlock2d
from dubito_nn.networks import (
    CNN,
    MLP,
    RNN,
    PlaceProbabilities,
    ResNet,
    SELUNetwork,
    Transformer,
    TransformerRates,
    UNet,
)
from dubito_nn.training import cross_entropy, outputs_of, seeded, train


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    inputs: str
    num_sites: int
    num_outputs: int = 3
    output: str = "logits"


CASES = {
    "mlp": Case(lambda: MLP(16, (8, 8), 3, drop_inputs=True), "rows", 3),
    "mlp-concrete": Case(lambda: MLP(16, (8,), 3, dropout=ConcreteFamily(100)), "rows", 1),
    "selu": Case(lambda: SELUNetwork(16, (8, 8, 8), 3), "rows", 3),
    "cnn": Case(lambda: CNN((1, 4, 4), channels=(4, 4), hidden=8, num_classes=3), "rows", 3),
    # Four blocks, two DropBlocks in each of the two of the last stage, one before the head.
    "resnet": Case(lambda: ResNet((1, 4, 4), channels=(4, 8), num_classes=3, block_size=2),
                   "rows", 9),
    # The last of three steps, the bottom, has two.
    "unet": Case(
        lambda: PlaceProbabilities(UNet(1, 2, channels=(4, 4), block_size=2), (1, 4, 4)),
        "rows", 2, 32, "mean",
    ),
    "unet-deep": Case(
        lambda: PlaceProbabilities(UNet(1, 2, channels=(4, 4, 4), block_size=1), (1, 4, 4)),
        "rows", 6, 32, "mean",
    ),
    # Words, input and state of each of two layers, the head.
    "lstm": Case(lambda: RNN(11, 3, embedding_size=4, hidden=6, num_layers=2), "tokens", 6),
    "gru": Case(lambda: RNN(11, 3, embedding_size=4, hidden=6, cell="gru"), "tokens", 4),
    # Embedding, four in each of two blocks, the head.
    "transformer": Case(lambda: Transformer(11, 3, num_features=8, num_heads=2), "tokens", 10),
}  # fmt: skip


def _network(case: Case) -> nn.Module:
    with seeded(0):
        return case.build()


def _inputs(case: Case, num_rows: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if case.inputs == "tokens":
        tokens = torch.randint(0, 11, (num_rows, 5), generator=generator)
        tokens[0, 0], tokens[0, 1] = 0, 10
        return tokens
    return torch.randn(num_rows, 16, generator=generator)


@pytest.mark.parametrize("name", CASES)
def test_a_network_has_its_shape_and_varies_only_in_sampling_mode(name: str) -> None:
    case = CASES[name]
    network, x = _network(case).eval(), _inputs(case)
    assert network(x).shape == (6, case.num_outputs)
    assert torch.equal(network(x), network(x))
    first, second = (outputs_of(network, x, mode="sampling", seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_rows_do_not_interact(name: str) -> None:
    case = CASES[name]
    network, x = _network(case).eval(), _inputs(case)
    one_by_one = torch.cat([network(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(network(x), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_network_goes_through_a_bundle_into_the_engine(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    network, x = _network(case).eval(), _inputs(case)
    is_classes = case.output == "logits"
    bundle = export(
        network,
        x,
        tmp_path / "network.dubito",
        task="classification" if is_classes else "regression",
        output=case.output,  # type: ignore[arg-type]
    )
    assert len(bundle.sites) == case.num_sites
    engine = Engine.load(bundle)
    prediction = engine.predict(x[:4], sampling=Sampling(num_samples=16))
    assert prediction.mean.shape == (4, case.num_outputs)
    assert np.isfinite(prediction.mean).all()
    assert prediction.variance.max() > 0.0
    point = engine.predict(x[:4], sampling=Sampling(method="point")).mean
    expected = network(x[:4]).softmax(1) if is_classes else network(x[:4])
    np.testing.assert_allclose(point, expected.detach(), atol=1e-5)


@pytest.mark.parametrize("name", ["selu", "resnet", "lstm", "gru", "transformer"])
def test_a_network_learns(name: str) -> None:
    case = CASES[name]
    network, x = _network(case), _inputs(case, 150)
    # Tokens: which of three numbers stands first; rows: the largest of three features.
    y = x[:, 0] % 3 if case.inputs == "tokens" else x[:, :3].argmax(dim=1)
    result = train(network, x, y, loss=cross_entropy, epochs=30, batch_size=25, learning_rate=1e-2)
    assert result.losses[-1] < 0.85 * result.losses[0]


def test_a_segmentation_network_learns_where_the_bright_places_are() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 1, 8, 8, generator=generator)
    labels = (images[:, 0] > 0.5).long()
    with seeded(0):
        network = UNet(1, 2, channels=(8, 8))
    assert network(images).shape == (60, 2, 8, 8)
    train(network, images, labels, loss=cross_entropy, epochs=25, learning_rate=1e-2, batch_size=20)
    assert (network(images).argmax(1) == labels).float().mean() > 0.9


def test_activations_of_a_selu_network_keep_mean_zero_and_variance_one_under_dropout() -> None:
    with seeded(0):
        network = SELUNetwork(128, [256] * 8, 3, drop_prob=0.1)
        rows = torch.randn(500, 128)
        hidden = network.train().body(rows)
    assert abs(hidden.mean().item()) < 0.1
    assert hidden.var().item() == pytest.approx(1.0, abs=0.15)


def test_the_rates_of_a_transformer_go_to_their_places() -> None:
    rates = TransformerRates(0.11, 0.12, 0.13, 0.14, 0.15)
    network = Transformer(11, 3, num_features=8, num_heads=2, num_layers=1, rates=rates)
    block = network.blocks[0]
    assert network.embedding_dropout.p == 0.11
    assert block.attention.drop_prob == 0.12  # type: ignore[union-attr]
    assert block.attention_residual.p == block.feed_forward_residual.p == 0.13  # type: ignore[union-attr]
    assert block.feed_forward[2].p == 0.14  # type: ignore[union-attr, index]
    assert network.head_dropout.p == 0.15


def test_attention_is_the_formula_written_out() -> None:
    with seeded(0):
        network = Transformer(11, 3, num_features=8, num_heads=2, num_layers=1).eval()
    attention = network.blocks[0].attention
    x = torch.randn(2, 5, 8)
    query, key, value = attention.taken(x).chunk(3, dim=2)  # type: ignore[union-attr, operator]
    heads = []
    for at in (slice(0, 4), slice(4, 8)):
        scores = query[..., at] @ key[..., at].transpose(1, 2) / math.sqrt(4)
        heads.append(scores.softmax(2) @ value[..., at])
    expected = attention.given(torch.cat(heads, dim=2))  # type: ignore[union-attr, operator]
    torch.testing.assert_close(attention(x), expected)  # type: ignore[operator]


def test_deeper_blocks_are_dropped_more_often() -> None:
    network = ResNet((1, 8, 8), channels=(4, 8), stochastic_depth=0.4)
    rates = [block.drop.drop_prob for block in network.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_as_many_of_the_last_stages_have_dropblock_as_are_asked_for(stages: int) -> None:
    network = ResNet((1, 8, 8), channels=(4, 4, 4), dropblock_stages=stages, block_size=2)
    having = [
        any(isinstance(layer, DropBlock2d) for layer in block.modules()) for block in network.blocks
    ]
    assert having == [False] * (6 - 2 * stages) + [True] * (2 * stages)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: SELUNetwork(4, (), 2), "at least one hidden layer"),
        (lambda: SELUNetwork(4, (4,), 2, drop_prob=1.5), "drop_prob"),
        (lambda: ResNet((1, 4, 4), channels=(4, 4, 4), block_size=3), "smaller block_size"),
        (lambda: ResNet(stochastic_depth=-0.1), "final"),
        (lambda: RNN(5, 2, cell="elman"), "lstm or gru"),  # type: ignore[arg-type]
        (lambda: RNN(5, 2, word_drop_prob=2.0), "drop_prob"),
        (lambda: Transformer(5, 2, num_features=10, num_heads=4), "divide num_features"),
        (lambda: Transformer(5, 2, rates=TransformerRates(head=1.5)), "dropout probability"),
        (lambda: Transformer(5, 2, rates=TransformerRates(attention=-0.1)), "drop_prob"),
        (lambda: UNet(1, 2, channels=(4,)), "at least two sizes"),
        (lambda: UNet(1, 2)(torch.zeros(1, 1, 7, 8)), "divisible by 2"),
    ],
)
def test_networks_that_cannot_be_are_refused(build: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build()
