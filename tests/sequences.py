"""A small language model with LoRA adapters in plain torch, as scores of given tokens.

The base is frozen and has no dropout; each adapter, W x + B A dropout(x), has some, and is not
merged. Scored are the tokens behind the first, of which `mask` says which count.

Dimensions: B rows, L tokens, L - 1 scored ones, V words.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito_nn import Bundle, export

WORDS, WIDTH, LENGTH, PAD = 11, 16, 6, 0


class LowRank(nn.Module):
    """A frozen linear map with an adapter beside it.

    Source: Hu et al. 2021, arXiv:2106.09685.
    """

    def __init__(self, base: nn.Linear, rank: int = 4, drop_prob: float = 0.2) -> None:
        super().__init__()
        self.base, self.dropout = base.requires_grad_(requires_grad=False), nn.Dropout(drop_prob)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        base: Tensor = self.base(x)
        return base + self.up(self.down(self.dropout(x)))


class Scorer(nn.Module):
    """Log-probabilities of the given tokens, each after those before it, and their mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.frozen = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.adapted = LowRank(nn.Linear(WIDTH, WIDTH))
        self.words = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.frozen(self.embedding(tokens[:, :-1])).cumsum(1)  # of all words so far
        logits = self.words(torch.tanh(self.adapted(hidden)))
        given = tokens[:, 1:]
        scored = logits.log_softmax(-1).gather(-1, given.unsqueeze(-1)).squeeze(-1)
        return scored, given != PAD


def tokens(count: int, seed: int, length: int = LENGTH) -> NDArray[np.int64]:
    """Rows that begin with two words at least, and end in padding."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(1, WORDS, (count, length))
    ends = generator.integers(2, length + 1, count)
    rows[np.arange(length) >= ends[:, None]] = PAD
    return rows


def trained(steps: int = 60) -> Scorer:
    """A scorer of which the adapter alone was trained, to rising words."""
    torch.manual_seed(0)
    net = Scorer()
    start = torch.randint(1, WORDS, (64, 1))
    rising = 1 + (start - 1 + torch.arange(LENGTH)) % (WORDS - 1)
    learned = [*net.adapted.down.parameters(), *net.adapted.up.parameters()]
    optimiser = torch.optim.Adam(learned, 0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        scored, mask = net(rising)
        (-(scored * mask).sum() / mask.sum()).backward()
        optimiser.step()
    return net


def exported(net: nn.Module, path: Path, **declared: object) -> Bundle:
    """As a bundle that takes sequences of any length."""
    said = {"task": "sequence", "output": "token_log_probs", "features": None} | declared
    rows = torch.from_numpy(tokens(4, seed=0))
    rows[0] = torch.arange(1, LENGTH + 1)  # one row is full, and every word was seen
    rows[1, :2] = torch.tensor([WORDS - 1, 1])
    return export(net, {"tokens": rows}, path, free_dims={"tokens": {1: "length"}}, **said)  # type: ignore[arg-type]
