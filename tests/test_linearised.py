"""Moments by gradients: exact where masks act linearly, near many passes elsewhere, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.masks import over_all_masks
from torch import Tensor, nn

from dubito.engine import Classification, Engine, Sampling
from dubito.engine.answering.propagating import held_against
from dubito.engine.kernels.precision import running
from dubito.engine.moments import OutputMoments
from dubito.engine.moments.linearised.directions import Followed, num_directions
from dubito.errors import InputError
from dubito_nn import export
from dubito_nn.dropout import DropBlock2d, DropConnect

MOMENTS = Sampling(1, method="moments")


def engine_of(network: nn.Module, path: Path, features: int = 12, **rest: object) -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        declared = {"task": "classification", "output": "logits"} | rest
        export(network, torch.randn(4, features), path / "n.dubito", **declared)  # type: ignore[arg-type]
    return Engine.load(path / "n.dubito", timing_limit_s=0.0)


def rows(count: int, features: int = 12) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(5))


def linearised(engine: Engine, inputs: Tensor, budget_bytes: int = 2**30) -> OutputMoments:
    with running(engine.device):
        blocks = engine.propagating.linearised.blocks(
            engine.read_inputs(inputs), budget_bytes, None
        )
        return OutputMoments.joined(list(blocks))


class Skip(nn.Module):
    """Two branches of one mask meet: linear in it, and no rule follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.branch, self.last = nn.Dropout(0.3), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.drop(x) if mask is None else x * mask / 0.7
        return self.last(hidden + self.branch(hidden.detach()))


def test_masks_that_act_linearly_are_exact_along_all_paths(tmp_path: Path) -> None:
    network = Skip()
    engine = engine_of(network, tmp_path, 8)
    network.double()
    exact = over_all_masks(lambda mask: network(rows(4, 8).double(), mask), 8, 0.3)
    got = linearised(engine, rows(4, 8))
    np.testing.assert_allclose(got.mean, exact[0], atol=1e-5)
    assert got.covariance is not None
    np.testing.assert_allclose(got.covariance, exact[1], rtol=1e-3, atol=1e-5)
    told = engine.predict(rows(4, 8), sampling=MOMENTS)
    many = engine.predict(rows(4, 8), sampling=Sampling(4000))
    np.testing.assert_allclose(told.mean, many.mean, atol=0.01)
    np.testing.assert_allclose(told.variance, many.variance, atol=6e-3)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, "gelu", batch_first=True)
        self.lift = nn.Linear(3, 16)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(self.lift(x.reshape(-1, 4, 3))).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.LSTM(3, 16, 2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.steps(x.reshape(-1, 4, 3))[0][:, -1])


class Block(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1), norm, nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(4, 4, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x + self.body(x))


def residual(norm: nn.Module) -> nn.Module:
    body = [nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 1), Block(norm), Block(nn.GroupNorm(2, 4))]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "an encoder": Encoder,
    "an LSTM": Recurrent,
    "residuals with batch norm": lambda: residual(nn.BatchNorm2d(4)),
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    return {name: engine_of(build(), folder) for name, build in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_walk_refuses_agrees_with_many_passes(
    engines: dict[str, Engine], name: str
) -> None:
    engine = engines[name]
    assert engine.propagating.walk.refusal(engine.read_inputs(rows(1))) is not None
    told = engine.predict(rows(3), sampling=MOMENTS)
    raw = engine.sample(rows(3), sampling=Sampling(1000, 3)).double()
    got = linearised(engine, rows(3))
    ratio = got.variance.sqrt() / raw.std(0)
    assert 0.85 < ratio.median() < 1.15
    assert ((got.mean - raw.mean(0)) / raw.std(0)).abs().max() < 0.75
    np.testing.assert_allclose(told.mean, raw.softmax(-1).mean(0), atol=0.01)


def test_many_classes_are_followed_by_the_likeliest_and_the_rest(tmp_path: Path) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.branch = nn.Dropout(0.3), nn.Linear(8, 8)
            self.last = nn.Linear(8, 40)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            hidden = self.drop(x) if mask is None else x * mask / 0.7
            return self.last(hidden + self.branch(hidden))

    torch.manual_seed(0)
    network = Wide()
    engine = engine_of(network, tmp_path, 8)
    network.double()
    mean, exact = over_all_masks(lambda mask: network(rows(5, 8).double(), mask), 8, 0.3)
    covariance = linearised(engine, rows(5, 8)).covariance
    assert covariance is not None
    for row, likeliest in enumerate(mean.topk(2).indices):
        pair = np.ix_(likeliest, likeliest)
        np.testing.assert_allclose(covariance[row][pair], exact[row][pair], rtol=1e-3, atol=1e-5)
        others = np.setdiff1d(np.arange(40), likeliest)
        share = mean[row, others].softmax(0)
        told, true = (part[row][np.ix_(others, others)] for part in (covariance, exact))
        of_sum = [float(share @ part @ share) for part in (told, true)]
        np.testing.assert_allclose(*of_sum, rtol=1e-3)
        across = [part[row][likeliest[0]][others] @ share for part in (covariance, exact)]
        np.testing.assert_allclose(*across, rtol=1e-3, atol=1e-5)


def test_classes_that_do_not_depend_on_each_other_keep_their_variance() -> None:
    outputs = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))
    followed = Followed.of(outputs, is_classes=True)
    assert len(followed.cotangents) == num_directions(10, is_classes=True) == 4
    variances = torch.tensor([[1.0], [2.0], [3.0]]).repeat(1, 10)
    variances.scatter_(1, outputs.topk(2).indices, 5.0)
    of_each = torch.einsum("rbd,bd,sbd->brs", followed.cotangents, variances, followed.cotangents)
    covariance = followed.covariance(of_each)
    for row, likeliest in enumerate(outputs.topk(2).indices):
        others = np.setdiff1d(np.arange(10), likeliest)
        np.testing.assert_allclose(covariance[row].diagonal()[others], 1.0 + row, rtol=1e-4)
        got = covariance[row].diagonal()[likeliest]
        np.testing.assert_allclose(got, variances[row, likeliest], rtol=1e-4)


@pytest.mark.parametrize("output", ["log_probs", "mean_and_log_variance"])
def test_every_declared_output_is_answered(tmp_path: Path, output: str) -> None:
    class Ending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Skip()

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
            z = self.body(x)
            if output == "log_probs":
                return z.log_softmax(-1)
            return z[:, :1], z[:, 1:2]

    task = "regression" if "mean" in output else "classification"
    torch.manual_seed(0)
    engine = engine_of(Ending(), tmp_path, 8, task=task, output=output)
    told = engine.predict(rows(4, 8), sampling=MOMENTS)
    many = engine.predict(rows(4, 8), sampling=Sampling(4000))
    np.testing.assert_allclose(told.mean, many.mean, atol=0.02)
    np.testing.assert_allclose(told.variance, many.variance, rtol=0.2, atol=1e-3)


def test_rows_alone_and_in_blocks_are_answered_alike(engines: dict[str, Engine]) -> None:
    engine = engines["an encoder"]
    together = linearised(engine, rows(6))
    for row in range(6):
        alone = linearised(engine, rows(6)[row : row + 1])
        np.testing.assert_allclose(alone.mean[0], together.mean[row], atol=1e-5)
        np.testing.assert_allclose(alone.variance[0], together.variance[row], rtol=1e-3)
    blocks = linearised(engine, rows(6), budget_bytes=200_000)
    np.testing.assert_allclose(blocks.variance, together.variance, rtol=1e-3)
    with pytest.raises(InputError, match="with its gradients: raise memory_budget_bytes"):
        linearised(engine, rows(6), budget_bytes=1000)


def test_a_spread_or_a_mean_that_is_off_is_no_answer() -> None:
    mean, variance = np.random.default_rng(0).random((2, 4, 3))
    drawn = {"mean": mean, "variance": variance}
    spread = np.sqrt(variance.mean())
    assert held_against(drawn | {"variance": 1.1 * variance}, drawn) is None
    assert "0.50 times" in (held_against(drawn | {"variance": variance / 4}, drawn) or "")
    assert "2.00 spreads" in (held_against(drawn | {"mean": mean + 2 * spread}, drawn) or "")
    assert "do not vary" in (held_against(drawn, drawn | {"variance": 0 * variance}) or "")
    numbers = drawn | {"epistemic_variance": variance * [1e-9, 1, 1e9]}
    wide = numbers | {"epistemic_variance": variance * [9e-9, 1, 1e9]}
    assert "1.91 times" in (held_against(wide, numbers) or "")  # each output counts alike


class Steep(nn.Module):
    """A step that is flat where the masks stand at their means."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(x)
        return self.last(hidden + torch.tanh(100 * (hidden - 1.5 * x)))


class Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(x)
        return self.last(torch.where(hidden > 0.1, hidden, hidden * hidden))


def blocks_dropped() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)),
        nn.Conv2d(1, 2, 1),
        DropBlock2d(0.3, 2),
        nn.GroupNorm(1, 2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def weights_dropped() -> nn.Module:
    return nn.Sequential(
        DropConnect(nn.Linear(12, 6), 0.3), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)
    )


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "measured wrong": (Steep, r"the spread of made-up rows is \d\.\d\d times that of 64 passes"),
    "decided by values": (Decides, "decided by a random value"),
    "blocks": (blocks_dropped, "bent before they act|no mean to stand at|made-up rows is"),
    "weights": (weights_dropped, "all rows share a draw"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_come_out_wrong_is_refused_with_both_reasons(tmp_path: Path, name: str) -> None:
    build, words = REFUSED[name]
    torch.manual_seed(0)
    engine = engine_of(build(), tmp_path)
    for count in (1, 2):
        with pytest.raises(InputError, match=words) as caught:
            engine.predict(rows(count), sampling=MOMENTS)
        text = str(caught.value)
        assert text.startswith("method `moments` stops at the ")
        assert text.endswith(": use method `mc`")
    assert isinstance(engine.predict(rows(2)), Classification)
