"""What one number of a draw acts on, as the site table states it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dubito_nn import export


def keep(shape: tuple[int, ...]) -> Tensor:
    return torch.bernoulli(torch.zeros(shape), 0.7)


class Masked(nn.Module):
    """Layers, a mask on what they give, layers; the mask's shape follows from its input's."""

    def __init__(self, before: nn.Module, mask: Callable[[Tensor], Tensor], after: nn.Module):
        super().__init__()
        self.before, self.mask, self.after = before, mask, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = x * self.mask(x) if self.training else x
        return self.after(x)


class Weights(nn.Module):
    """Drops the weights of a linear map, one mask for each row, or one for all."""

    def __init__(self, *, per_row: bool) -> None:
        super().__init__()
        self.inner, self.head, self.per_row = nn.Linear(6, 5), nn.Linear(5, 3), per_row

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.weight
        if self.training:
            weight = weight * keep((x.shape[0], 5, 6) if self.per_row else (5, 6))
        elif self.per_row:
            weight = weight.expand(x.shape[0], 5, 6)
        if not self.per_row:
            return self.head(torch.relu(nn.functional.linear(x, weight)))
        return self.head(torch.relu(torch.einsum("boi,bi->bo", weight, x)))


class Recurrent(nn.Module):
    """A loop over time with one mask of the state, the same in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.recurrent, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.tanh(self.inner(x[:, 0]))
        mask = keep((x.shape[0], 5)) if self.training else torch.full((x.shape[0], 5), 0.7)
        for step in range(1, x.shape[1]):
            state = torch.tanh(self.inner(x[:, step]) + self.recurrent(state * mask))
        return self.head(state)


class Words(nn.Module):
    """Drops words of the vocabulary, or single numbers of their vectors, in the table itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.head, self.width = nn.Embedding(9, 4), nn.Linear(4, 3), width

    def forward(self, ids: Tensor) -> Tensor:
        table = self.table.weight
        table = table * keep((9, self.width)) if self.training else table
        return self.head(nn.functional.embedding(ids, table).mean(1))


class Swap(nn.Module):
    """Puts the second axis last, as networks do that norm the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def vectors(mask: Callable[[Tensor], Tensor]) -> Masked:
    return Masked(nn.Linear(4, 5), mask, nn.Sequential(nn.Tanh(), Mean(), nn.Linear(5, 3)))


def wave(mask: Callable[[Tensor], Tensor]) -> Masked:
    body = nn.Sequential(nn.Conv1d(4, 5, 3, padding=1), nn.ReLU())
    return Masked(body, mask, nn.Sequential(nn.Flatten(), nn.Linear(5 * 6, 3)))


def image(mask: Callable[[Tensor], Tensor], *between: nn.Module) -> Masked:
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *between)
    return Masked(body, mask, nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 3)))


@dataclass(frozen=True)
class Case:
    """A network, the shape of a row, and what its site acts on."""

    make: Callable[[], nn.Module]
    row: tuple[int, ...]
    granularity: str


STEPS, WAVE, IMAGE, FLAT = (6, 4), (4, 6), (2, 6, 6), (6,)
CASES = {
    "weights of each row": Case(lambda: Weights(per_row=True), FLAT, "weight"),
    "weights of all rows": Case(lambda: Weights(per_row=False), FLAT, "weight"),
    "tokens": Case(lambda: vectors(lambda x: keep((*x.shape[:2], 1))), STEPS, "token"),
    "features at all steps": Case(
        lambda: vectors(lambda x: keep((x.shape[0], 1, x.shape[2]))), STEPS, "time"
    ),
    "numbers of tokens": Case(lambda: vectors(lambda x: keep(tuple(x.shape))), STEPS, "element"),
    "tokens of the input": Case(
        lambda: Masked(nn.Identity(), lambda x: keep((*x.shape[:2], 1)), vectors(torch.ones_like)),
        STEPS,
        "token",
    ),
    "channels of a wave": Case(lambda: wave(lambda x: keep((*x.shape[:2], 1))), WAVE, "channel"),
    "steps of a wave": Case(
        lambda: wave(lambda x: keep((x.shape[0], 1, x.shape[2]))), WAVE, "token"
    ),
    "channels of the input": Case(
        lambda: Masked(nn.Identity(), lambda x: keep((*x.shape[:2], 1)), wave(torch.ones_like)),
        WAVE,
        "channel",
    ),
    "channels of an image": Case(
        lambda: image(lambda x: keep((*x.shape[:2], 1, 1))), IMAGE, "channel"
    ),
    "channels, mask widened later": Case(
        lambda: image(lambda x: keep(tuple(x.shape[:2]))[:, :, None, None]), IMAGE, "channel"
    ),
    "pixels": Case(lambda: image(lambda x: keep((x.shape[0], 1, *x.shape[2:]))), IMAGE, "token"),
    "channels, which lie last": Case(
        lambda: image(lambda x: keep((x.shape[0], 1, 1, x.shape[3])), Swap(), nn.LayerNorm(4)),
        IMAGE,
        "channel",
    ),
    "channels, moved last": Case(
        lambda: image(lambda x: keep((x.shape[0], 1, 1, x.shape[3])), Swap()), IMAGE, "channel"
    ),
    "numbers of an image": Case(lambda: image(lambda x: keep(tuple(x.shape))), IMAGE, "element"),
    "units of all rows": Case(
        lambda: Masked(nn.Linear(6, 5), lambda x: keep((5,)), nn.Linear(5, 3)), FLAT, "element"
    ),
    "all of a row": Case(lambda: image(lambda x: keep((x.shape[0], 1, 1, 1))), IMAGE, "path"),
    "all of all rows": Case(lambda: vectors(lambda x: keep((1, 1, 1))), STEPS, "batch"),
    "the state in all steps": Case(Recurrent, STEPS, "time"),
    "units, kept as they say themselves": Case(
        lambda: vectors(lambda x: torch.bernoulli(torch.sigmoid(x))), STEPS, "element"
    ),
    "words": Case(lambda: Words(1), (5,), "token"),
    "numbers of words": Case(lambda: Words(4), (5,), "weight"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_site_table_states_what_one_number_acts_on(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    is_words = "words" in name
    rows = torch.randint(9, (3, *case.row)) if is_words else torch.randn(3, *case.row)
    bundle = export(
        case.make(), rows, tmp_path / "n.dubito", task="classification", output="logits"
    )
    assert [site.granularity for site in bundle.sites] == [case.granularity]
    assert bundle.manifest.to_json()["sites"][0]["granularity"] == case.granularity  # type: ignore[index]


def test_tokens_of_a_free_number_of_steps_are_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bundle = export(
        vectors(lambda x: keep((*x.shape[:2], 1))),
        torch.randn(3, *STEPS),
        tmp_path / "n.dubito",
        task="classification",
        output="logits",
        free_dims={"x": {1: "steps"}},
    )
    assert [(site.granularity, site.shape) for site in bundle.sites] == [("token", ("steps", 1))]
