"""Outputs that are not what was declared: by the numbers, and by what the last operators allow."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import softplus

from dubito_nn import ExportError, export
from dubito_nn.capturing.capture import Captured, capture
from dubito_nn.capturing.declared import Declared
from dubito_nn.capturing.example import read_example
from dubito_nn.capturing.isolation import isolated
from dubito_nn.export import _lifted_and_point
from dubito_nn.manifest import Output, Task
from dubito_nn.proving.bounds import Ending, ValueRange
from dubito_nn.proving.returned import Returned, checked_ending, checked_output

End = Callable[["Network", Tensor], object]
HOLE = -9.0  # of a mask: constants do not count


class Network(nn.Module):
    """A small network whose last operators are written in the test."""

    def __init__(self, end: End, columns: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3))
        self.head, self.last, self.end = nn.Linear(8, columns), nn.Linear(columns, columns), end
        self.learned = nn.Parameter(torch.tensor(1.7))
        self.register_buffer("fixed", torch.tensor(2.0))

    def forward(self, x: Tensor) -> object:
        return self.end(self, self.head(self.body(x)))


def captured_of(network: Network, declared: Declared) -> Captured:
    example = read_example(network, torch.randn(5, 4), None)
    return capture(network, example, declared=declared, output_name=None, features=None)


def declare(end: End, columns: int, task: Task, output: Output, axis: int | None = None) -> object:
    """What export holds against the declaration, without its proofs, which take their time."""
    axes = (None, axis) if task == "regression" else (axis, None)
    declared = Declared(task, output, *axes)
    with isolated():
        captured = captured_of(Network(end, columns), declared)
        checked_output(captured, declared)
        graphs = _lifted_and_point(captured, is_recorded=True)
        return checked_ending(captured, graphs, declared)


def scattered(h: Tensor) -> Tensor:
    kept = h.clone()
    kept[:, :1] = h[:, :1].exp()
    return kept


REFUSED, HELD, RIGHT = "refused", "held back", "right"
Case = tuple[Callable[[Network, Tensor], Tensor], float, float, str, str]
ENDS: dict[str, Case] = {  # least and largest, as a lone score, as a log-variance
    "a linear map": (lambda n, h: h, -inf, inf, RIGHT, RIGHT),
    "near .5 by chance": (lambda n, h: 0.5 + 1e-4 * h, -inf, inf, RIGHT, RIGHT),
    "a relu before a map": (lambda n, h: n.last(h.relu()), -inf, inf, RIGHT, RIGHT),
    "a temperature": (lambda n, h: h / n.learned, -inf, inf, RIGHT, RIGHT),
    "a gate": (lambda n, h: h * h.sigmoid(), -inf, inf, RIGHT, RIGHT),
    "a clamp": (lambda n, h: h.clamp(-10, 10), -10, 10, RIGHT, RIGHT),
    "a soft clamp": (lambda n, h: 3 - softplus(3 - h), -inf, 3, RIGHT, RIGHT),
    "a range": (lambda n, h: -10 + 20 * h.sigmoid(), -10, 10, RIGHT, RIGHT),
    "log-odds": (lambda n, h: (h.sigmoid() / (1 - h.sigmoid())).log(), -inf, inf, RIGHT, RIGHT),
    "an odd power": (lambda n, h: h**3, -inf, inf, RIGHT, RIGHT),
    "reciprocal across 0": (lambda n, h: 1 / (h.tanh() + 0.5), -inf, inf, RIGHT, RIGHT),
    "a sigmoid over what is learned": (
        lambda n, h: h.sigmoid() / n.learned,
        *(-inf, inf, RIGHT, RIGHT),
    ),
    "what is learned": (lambda n, h: n.learned.expand_as(h), -inf, inf, RIGHT, RIGHT),
    "a constant": (lambda n, h: 3 * torch.ones_like(h), 3, 3, RIGHT, RIGHT),
    "sigmoid": (lambda n, h: h.sigmoid(), 0, 1, REFUSED, REFUSED),
    "sigmoid written out": (lambda n, h: 1 / (1 + (-h).exp()), 0, 1, REFUSED, REFUSED),
    "tanh moved": (lambda n, h: 0.5 * (h.tanh() + 1), 0, 1, REFUSED, REFUSED),
    "one less a sigmoid": (lambda n, h: 1 - h.sigmoid(), 0, 1, REFUSED, REFUSED),
    "sigmoids": (lambda n, h: h.sigmoid() * (2 * h).sigmoid(), 0, 1, REFUSED, REFUSED),
    "a cut sigmoid": (lambda n, h: h.sigmoid().clamp(0.25, 0.75), 0.25, 0.75, REFUSED, REFUSED),
    "a rounded sigmoid": (lambda n, h: h.sigmoid().bfloat16().float(), 0, 1, REFUSED, REFUSED),
    "over what is fixed": (lambda n, h: h.sigmoid() / n.fixed, 0, 0.5, REFUSED, REFUSED),
    "softmax": (lambda n, h: torch.cat([h, -h], 1).softmax(1)[:, 1:], 0, 1, REFUSED, REFUSED),
    "masked": (lambda n, h: h.sigmoid().masked_fill(h > 0, HOLE), 0, 1, REFUSED, REFUSED),
    "stacked and cut": (
        lambda n, h: torch.stack([h, h.sigmoid()], 2).unbind(2)[1],
        *(0, 1, REFUSED, REFUSED),
    ),
    "log sigmoid": (lambda n, h: functional.logsigmoid(h), -inf, 0, REFUSED, RIGHT),
    "the logarithm of a p": (lambda n, h: h.sigmoid().log(), -inf, 0, REFUSED, RIGHT),
    "tanh": (lambda n, h: h.tanh(), -1, 1, HELD, RIGHT),
    "chosen": (lambda n, h: torch.where(h > 0, h.sigmoid(), h.tanh()), -1, 1, HELD, RIGHT),
    "relu": (lambda n, h: h.relu(), 0, inf, HELD, REFUSED),
    "maximum with 0": (
        lambda n, h: torch.maximum(h, 0 * torch.ones_like(h)),
        0,
        inf,
        HELD,
        REFUSED,
    ),
    "softplus": (lambda n, h: softplus(h) + 1, 1, inf, HELD, REFUSED),
    "softplus written out": (lambda n, h: (1 + h.exp()).log(), 0, inf, HELD, REFUSED),
    "so with log1p": (lambda n, h: h.exp().log1p(), 0, inf, HELD, REFUSED),
    "log softplus": (lambda n, h: softplus(h).log(), -inf, inf, RIGHT, RIGHT),
    "the logarithm of a floor": (lambda n, h: (1 + softplus(h)).log(), 0, inf, HELD, RIGHT),
    "elu and one": (lambda n, h: functional.elu(h) + 1, 0, inf, HELD, REFUSED),
    "less a square": (lambda n, h: -(h**2), -inf, 0, HELD, RIGHT),
    "a product with itself": (lambda n, h: h * h, 0, inf, HELD, REFUSED),
    "a root of an absolute": (lambda n, h: h.abs().sqrt(), 0, inf, HELD, REFUSED),
    "exp of what is learned": (lambda n, h: n.learned.exp().expand_as(h), 0, inf, HELD, REFUSED),
    "written into": (lambda n, h: scattered(h), 0, inf, HELD, REFUSED),
    "moved": (
        lambda n, h: h.relu().view(-1, 1, 1).expand(-1, 2, 1).flatten(1)[:, 1:],
        *(0, inf, HELD, REFUSED),
    ),
    "a mean over columns": (
        lambda n, h: torch.cat([h.relu(), h.exp()], 1).mean(1, keepdim=True),
        *(0, inf, HELD, REFUSED),
    ),
    "mixed by weights": (
        lambda n, h: torch.cat([h, -h], 1).softmax(1) @ torch.ones(2, 1) * h.exp(),
        *(0, inf, HELD, REFUSED),
    ),
    "dropped": (lambda n, h: functional.dropout(h.sigmoid(), 0.5), 0, 2, HELD, REFUSED),
}


def test_what_an_output_can_be_follows_from_its_last_operators_and_always_holds() -> None:
    def all_ends(network: Network, h: Tensor) -> Tensor:
        return torch.cat([case[0](network, 30 * h) for case in ENDS.values()], dim=1)

    with isolated():
        network = Network(all_ends, 1)
        captured = captured_of(network, Declared("regression", "mean"))
        lifted, _ = _lifted_and_point(captured)
        learned = frozenset(dict(network.named_parameters()))
        ending = Ending(lifted.program, lifted.sites, learned)
        found = ending.bounds(captured.example, lifted.weights)
    for column, (name, (_, low, high, as_score, as_noise)) in enumerate(ENDS.items()):
        assert found.low[:, column].tolist() == [low] * 5, name
        assert found.high[:, column].tolist() == [high] * 5, name
        alone = ValueRange(*(end[:, [column]] for end in (found.low, found.high, found.by)))
        noise = ValueRange(
            *(end[:, [0, column], None] for end in (found.low, found.high, found.by))
        )
        assert verdict(Returned(alone, lifted), "score") == as_score, name
        assert verdict(Returned(noise, lifted), "noise") == as_noise, name
    for _ in range(20):
        passed = network(10 * torch.randn(5, 4))
        assert ((passed >= found.low - 1e-6) | (passed == HOLE)).all()
        assert (passed <= found.high + 1e-6).all()


def verdict(seen: Returned, kind: str) -> str:
    try:
        if kind == "noise":
            seen.refuse_variance()
            return RIGHT
        held = seen.refuse_probabilities("multilabel", "sigmoid_logits")
    except ExportError:
        return REFUSED
    return RIGHT if held is None else HELD


YES: tuple[Task, Output] = ("classification", "sigmoid_logits")
CLASSES: tuple[Task, Output] = ("classification", "logits")
NOISE: tuple[Task, Output] = ("regression", "mean_and_log_variance")
DECLARED: dict[str, tuple[End, int, tuple[Task, Output], str]] = {
    "a sigmoid": (
        *(lambda n, h: h.sigmoid(), 1, YES),
        r"`sigmoid` in module `\(the network itself\)` keeps in \[0, 1\].*output='probs'.*1 - p",
    ),
    "a label": (
        *(lambda n, h: torch.cat([h[:, :2], h[:, 2:].sigmoid()], 1), 3),
        ("multilabel", "sigmoid_logits"),
        r"`sigmoid` .* \[0, 1\].*return what goes into it$",
    ),
    "all classes but one": (
        *(lambda n, h: h.softmax(1)[:, 1:], 4, CLASSES),
        r"`softmax` .* \[0, 1\].*or declare output='probs'$",
    ),
    "a sigmoid when it is evaluated": (
        *(lambda n, h: h if n.training else h.sigmoid(), 1, YES),
        r"`sigmoid` .* \[0, 1\]",
    ),
    "a pair": (
        *(lambda n, h: (h, softplus(h)), 1, NOISE),
        r"negative wherever.*`softplus` .* 0 or above.*torch.log\(variance\).*2 \* torch.log\(",
    ),
    "one tensor": (lambda n, h: torch.cat([h, h.abs()], 1), 1, NOISE, r"`abs` .* 0 or above"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_the_last_operators_rule_out_is_refused_with_the_operator_and_the_remedy(
    name: str,
) -> None:
    end, columns, declared, said = DECLARED[name]
    with pytest.raises(ExportError, match=said):
        declare(end, columns, *declared)


@pytest.mark.parametrize(
    ("end", "held"),
    [
        (lambda n, h: h.relu(), "`relu` in module `(the network itself)`"),
        (lambda n, h: torch.cat([h.relu(), h], 1), None),
        (lambda n, h: h.log_softmax(1), None),
    ],
)
def test_logits_are_held_back_only_where_all_of_them_are(end: End, held: str | None) -> None:
    assert declare(end, 3, *CLASSES) == held


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_positions_are_held_against_the_declaration_too(mode: str) -> None:
    def maps(network: Network, h: Tensor) -> Tensor:
        return functional.interpolate(h.sigmoid().view(-1, 1, 2, 3), scale_factor=2, mode=mode)

    with pytest.raises(ExportError, match=r"`sigmoid` .* \[0, 1\]"):
        declare(maps, 6, *YES, 1)


@pytest.mark.parametrize(
    ("end", "output", "said"),
    [
        (lambda n, h: h.softmax(1), "log_probs", "output='probs'"),
        (lambda n, h: h.log_softmax(1), "probs", "output='log_probs'"),
        (lambda n, h: h.sigmoid(), "probs", "task='multilabel', output='sigmoid_logits'"),
        (lambda n, h: h[:, :1].sigmoid(), "probs", "one number per row is output='sigmoid_logits'"),
        (
            lambda n, h: h.softmax(1) if n.training else h,
            "logits",
            "same kind of numbers in both modes, got logits in evaluation and probs in training",
        ),
        (
            lambda n, h: functional.dropout(h.softmax(1), 0.5, n.training),
            "probs",
            r"both modes, got probs in evaluation and logits in training.*behind the softmax",
        ),
    ],
)
def test_numbers_that_are_no_probabilities_are_refused_with_what_they_are(
    end: End, output: Output, said: str
) -> None:
    declared = Declared("classification", output)
    with isolated(), pytest.raises(ExportError, match=said):
        checked_output(captured_of(Network(end, 3), declared), declared)


def test_export_refuses_a_sigmoid_by_its_module_and_writes_nothing(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1), nn.Sigmoid())
    with pytest.raises(ExportError, match="`sigmoid` in module `3` keeps in"):
        export(
            network,
            torch.randn(4, 4),
            tmp_path / "yes.dubito",
            task="classification",
            output="sigmoid_logits",
        )
    assert list(tmp_path.iterdir()) == []
