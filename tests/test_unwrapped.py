"""What is brought: code that cannot be traced, weights that are not there, and complex ones."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export

ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


class Drawing(nn.Module):
    """A network with a forward pass of one line."""

    def __init__(self, forward: Callable[["Drawing", Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.line = nn.Linear(8, 3), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.line(self, x))


def own_generator(_: Drawing, x: Tensor) -> Tensor:
    return x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5)


def mixed(_: Drawing, x: Tensor) -> Tensor:
    return 0.7 * x + 0.3 * x[torch.randperm(x.size(0))]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no weights yet": (
        lambda: nn.Sequential(nn.LazyLinear(4), nn.Dropout(0.5), nn.Linear(4, 3)),
        "module `0` has no `weight` yet (LazyLinear makes it at its first call): export after",
    ),
    "no numbers": (
        lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3, device="meta")),
        "module `1` has no numbers in `weight`, which is on the device `meta`: load its weights",
    ),
    "a generator": (
        lambda: Drawing(own_generator),
        "draws with a torch.Generator of its own, whose numbers a graph cannot hold: leave out",
    ),
    "mixed rows": (
        lambda: Drawing(mixed),
        "draws a permutation (torch.randperm) of as many places as an axis has whose size is free",
    ),
    "a loop": (
        lambda: Drawing(lambda _, x: torch.stack([nn.functional.dropout(row) for row in x])),
        "take the number of rows from x.shape[0]. As recorded it holds for 5 of them.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_in_our_words(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "network.dubito"
    with pytest.raises(ExportError, match=re.escape(message)) as refused:
        export(make(), ROWS, path, task="classification", output="logits")
    assert "aten" not in str(refused.value)
    assert not path.exists()


class Rotating(nn.Module):
    """Attention with rotary positions as complex numbers, held and learned."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.dropout, self.head = nn.Linear(8, 24), nn.Dropout(0.3), nn.Linear(8, 3)
        angles = torch.outer(torch.arange(5.0), 0.1 ** torch.linspace(0, 1, 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))
        self.scale = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def turned(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.turns * self.scale).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.into(x).chunk(3, -1)
        seen = (self.turned(query) @ self.turned(key).mT).softmax(-1) @ value
        return self.head(self.dropout(seen).mean(1))


def test_complex_weights_are_held_as_pairs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, rows, path = Rotating(), torch.randn(4, 5, 8), tmp_path / "network.dubito"
    bundle = export(network, rows, path, task="classification", output="logits")
    assert {bundle.weights[name].shape for name in ("turns", "scale")} == {(5, 4, 2), (4, 2)}
    engine = Engine.load(path, timing_limit_s=0)
    with torch.no_grad():
        plain = network.eval()(rows)
        point = bundle.point.run({bundle.manifest.inputs[0].name: rows}, bundle.weights)["output"]
        passes = torch.stack([network.train()(rows) for _ in range(400)])
    torch.testing.assert_close(point, plain, atol=1e-5, rtol=1e-5)
    ours = engine.sample(rows, sampling=Sampling(400, draw="iid"))
    error = ((ours.var(0) + passes.var(0)) / 400).sqrt()
    assert ((ours.mean(0) - passes.mean(0)).abs() < 5 * error).all()
