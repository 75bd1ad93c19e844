"""The graph of evaluation mode made of the recording that samples, and where that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dubito_nn import export
from dubito_nn.capturing.capture import Captured, capture
from dubito_nn.capturing.declared import Declared
from dubito_nn.capturing.example import read_example
from dubito_nn.capturing.isolation import isolated
from dubito_nn.lifting.evaluated import evaluated
from dubito_nn.lifting.lift import lift
from dubito_nn.lifting.lower import lower
from dubito_nn.program import to_json


class Last(nn.Module):
    """The last step of what a recurrent layer returns."""

    def forward(self, returned: tuple[Tensor, object]) -> Tensor:
        return returned[0][:, -1]


class Ending(nn.Module):
    """Something else than dropout differs between the modes, in the last step."""

    def __init__(self, end: Callable[[Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.inner, self.dropout, self.end = nn.Linear(4, 3), nn.Dropout(0.3), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.dropout(self.inner(x)), self.training)


def doubled(x: Tensor, is_training: bool) -> Tensor:
    return x if is_training else 2 * x


def bounded(x: Tensor, is_training: bool) -> Tensor:
    """As no number of an example shows."""
    return x if is_training else x.clamp(max=1000)


def chosen(x: Tensor, is_training: bool) -> Tensor:
    """The same is called in both modes, and another result returned."""
    other = x.clamp(max=1000)
    return (x if is_training else other) * 2


class Noisy(nn.Module):
    """Noise in sampling mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + torch.randn_like(x) if self.training else x)


class Always(nn.Module):
    """Dropout in both modes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.inner(x), 0.3)


class Moving(nn.Module):
    """A layer that is brought to its input in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(4, 3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.inner.to(x.device, x.dtype)(x))


class Looking(nn.Module):
    """A scale that is read as a number, and a part of which no gradient is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(4, 3), nn.Dropout(0.3)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            size = x.abs().sum(1, keepdim=True) + 1
        if self.scale > 1:
            x = x / size
        return self.dropout(self.inner(x)) * float(self.scale)


class DroppingAside(nn.Module):
    """Dropout where no gradient is wanted, which a recording holds as a part of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(4, 3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            dropped = self.dropout(x * 1.5)
        return self.inner(dropped)


class Attending(nn.Module):
    """Attention whose heads are laid side by side: a copy where its kernel leaves them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        rate = 0.1 if self.training else 0.0
        heads = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return self.outer(heads.transpose(1, 2).contiguous().flatten(2)).mean(1)


class Counting(nn.Module):
    """Looks at one number, and changes another that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(4, 3), nn.Dropout(0.3)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.dropout(self.inner(x)) * float(self.scale)


ENDINGS = [partial(Ending, end) for end in (doubled, bounded, chosen)]


def captured_of(network: nn.Module, x: Tensor) -> Captured:
    return capture(
        network,
        read_example(network, x, None),
        declared=Declared("classification", "logits", None, None, None),
        output_name=None,
        features=None,
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 12, 0.1, batch_first=True), nn.Flatten()
        ),
        (3, 8),
    ),
    "recurrent layers": (
        lambda: nn.Sequential(nn.LSTM(4, 6, 2, dropout=0.3, batch_first=True), Last()),
        (5, 4),
    ),
    "channels and a batch-norm": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
            *(nn.Dropout2d(), nn.Flatten()),
        ),
        (1, 4, 4),
    ),
    "numbers that are looked at": (Looking, (4,)),
    "attention that lays out its heads": (Attending, (3, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_switching_dropout_off_in_a_recording_is_recording_evaluation_mode(name: str) -> None:
    make, shape = NETWORKS[name]
    captured = captured_of(make(), torch.randn(4, *shape))
    with isolated():
        made = evaluated(captured.trace("sampling"), captured)
        assert made is not None
        graphs = [
            lift(lower(recorded), captured, draw=False).program
            for recorded in (made, captured.trace("evaluation"))
        ]
    assert to_json(graphs[0]) == to_json(graphs[1])


@pytest.mark.parametrize("kind", [*ENDINGS, Noisy, Always, DroppingAside])
def test_what_is_more_than_a_dropout_that_ends_has_evaluation_mode_recorded(
    kind: Callable[[], nn.Module],
) -> None:
    captured = captured_of(kind(), torch.randn(4, 4))
    with isolated():
        assert evaluated(captured.trace("sampling"), captured) is None


@pytest.mark.parametrize("kind", [*ENDINGS, Noisy, Moving, Looking, DroppingAside, Counting])
def test_the_point_graph_is_the_network_in_evaluation_mode(
    kind: Callable[[], nn.Module], tmp_path: Path
) -> None:
    network, x = kind(), torch.randn(4, 4)
    bundle = export(network, x, tmp_path / "n.dubito", task="classification", output="logits")
    with torch.no_grad():
        made = bundle.point.run({"x": x}, bundle.weights)["output"]
        torch.testing.assert_close(made, network.eval()(x))
        far = bundle.point.run({"x": 1e5 * x}, bundle.weights)["output"]
        torch.testing.assert_close(far, network(1e5 * x))
