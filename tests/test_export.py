"""Networks as users bring them: inputs, outputs, types, layers."""

import io
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Engine
from dubito_nn import Bundle, ExportError, export, load_bundle
from dubito_nn.dropout import DropBlock2d


def declared(output: str = "logits") -> dict[str, str]:
    task = "regression" if output.startswith("mean") else "classification"
    return {"task": task, "output": output}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "network.dubito"


def point(bundle: Bundle, **inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return bundle.point.run(inputs, bundle.weights)["output"]


class Tokens(nn.Module):
    """Embedding, encoder, masked mean: with a free length, up to 32."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.places = nn.Parameter(torch.randn(1, 32, 8))

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        embedded = self.embedding(ids) + self.places[:, : ids.shape[1]]
        mixed = self.layers(embedded, src_key_padding_mask=padding)
        kept = (~padding).float().unsqueeze(-1)
        return self.head((mixed * kept).sum(1) / kept.sum(1).clamp_min(1))


def test_several_inputs_by_name_with_a_free_length(path):
    torch.manual_seed(0)
    network, ids = Tokens(), torch.randint(50, (4, 7))
    padding = torch.arange(7) >= torch.tensor([7, 4, 2, 6]).unsqueeze(1)
    lengths = {"ids": {1: "length"}, "padding": {1: "length"}}
    example = {"ids": ids, "padding": padding}
    bundle = export(network, example, path, free_dims=lengths, **declared())
    assert [(spec.name, spec.dtype, spec.shape) for spec in bundle.manifest.inputs] == [
        ("ids", "int64", ("length",)),
        ("padding", "bool", ("length",)),
    ]
    assert "input `ids`: `length` is at most 32" in bundle.manifest.warnings
    assert bundle.sites[0].shape == (2, "length", "length")
    longer = {"ids": torch.randint(50, (3, 20)), "padding": torch.zeros(3, 20, dtype=torch.bool)}
    with torch.no_grad():
        torch.testing.assert_close(point(bundle, **longer), network.eval()(**longer))


def test_positional_inputs_are_named_as_forward_calls_them(path):
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixed, self.head = nn.Bilinear(4, 5, 6), nn.Linear(6, 3)

        def forward(self, image: Tensor, table: Tensor) -> Tensor:
            return self.head(functional.dropout(self.mixed(image, table), 0.3, self.training))

    bundle = export(Both(), (torch.randn(2, 4), torch.randn(2, 5)), path, **declared())
    assert [spec.name for spec in bundle.manifest.inputs] == ["image", "table"]


class TwoHeads(nn.Module):
    def __init__(self, *, columns: bool) -> None:
        super().__init__()
        self.inner, self.heads, self.columns = nn.Linear(8, 16), nn.Linear(16, 2), columns

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self.heads(functional.dropout(self.inner(x), 0.2, self.training))
        return (both[:, :1], both[:, 1:]) if self.columns else (both[:, 0], both[:, 1])


@pytest.mark.parametrize(
    "network",
    [
        TwoHeads(columns=True),
        TwoHeads(columns=False),
        nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 2)),
    ],
)
def test_a_mean_and_a_log_variance_come_as_a_pair_or_as_one_tensor(network, path):
    x = torch.randn(4, 8)
    bundle = export(network, x, path, target_scale=(3, [2.0]), **declared("mean_and_log_variance"))
    assert bundle.manifest.num_outputs == 1
    assert bundle.manifest.target_scale == ((3.0,), (2.0,))
    name = bundle.manifest.inputs[0].name
    result = network.eval()(x)
    halves = result if isinstance(result, tuple) else result.chunk(2, dim=1)
    expected = torch.stack([half.reshape(4, 1) for half in halves], dim=1)
    torch.testing.assert_close(point(bundle, **{name: x}), expected.detach())


def test_one_number_per_row_is_a_mean_or_the_logit_of_the_second_class(path):
    network = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 1), nn.Flatten(0))
    assert export(network, torch.randn(2, 8), path, **declared("mean")).manifest.num_outputs == 1
    binary = export(network, torch.randn(2, 8), path, **declared("sigmoid_logits"))
    assert binary.manifest.classes == ("0", "1")


def test_of_a_structured_return_the_named_output_is_served_and_the_rest_left_out(path):
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.aside = nn.Linear(8, 3), nn.Linear(8, 3)
            self.main_drop, self.side_drop = nn.Dropout(0.2), nn.Dropout(0.7)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            aside = self.aside(self.side_drop(x))
            return {"aside": aside, "logits": self.head(self.main_drop(x))}

    bundle = export(Auxiliary(), torch.randn(2, 8), path, output_name="logits", **declared())
    assert [site.module_path for site in bundle.sites] == ["main_drop"]
    assert set(bundle.weights) == {"head.weight", "head.bias"}
    assert bundle.manifest.warnings == ("module `side_drop` feeds no served output: left out",)


class Trained(nn.Module):
    """Returns its loss beside the logits, or a second head in training alone."""

    def __init__(self, aside: Callable[[nn.Module, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.head, self.second, self.aside = nn.Linear(8, 3), nn.Linear(8, 3), aside
        self.dropout, self.side_drop = nn.Dropout(0.2), nn.Dropout(0.7)

    def forward(self, x: Tensor) -> object:
        hidden = self.dropout(x)
        return self.aside(self, hidden, self.head(hidden))


ASIDE: dict[str, tuple[str, Callable[[nn.Module, Tensor, Tensor], object]]] = {
    "a loss of other operators": (
        "logits",
        lambda n, h, y: {"loss": torch.linalg.svdvals(y).sum(), "logits": y},
    ),
    "a loss that rolls dice": (
        "logits",
        lambda n, h, y: {"loss": y.gather(1, y.softmax(1).multinomial(1)).mean(), "logits": y},
    ),
    "a head in training alone": (
        "0",
        lambda n, h, y: (y, n.second(n.side_drop(h))) if n.training else y,
    ),
}


@pytest.mark.parametrize("name", ASIDE)
def test_what_stands_beside_the_served_output_need_not_be_servable(name, path):
    output_name, aside = ASIDE[name]
    network, x = Trained(aside), torch.randn(5, 8)
    bundle = export(network, x, path, output_name=output_name, **declared())
    assert [site.module_path for site in bundle.sites] == ["dropout"]
    torch.testing.assert_close(point(bundle, x=x), network.head(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_network_keeps_its_floating_point_type(dtype, path):
    network = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3)).to(dtype)
    bundle = export(network, torch.randn(2, 8, dtype=dtype), path, **declared())
    assert bundle.manifest.inputs[0].dtype == str(dtype).removeprefix("torch.")
    assert {weight.dtype for weight in bundle.weights.values()} == {dtype}


class StochasticDepth(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.block, self.p = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), p

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        if self.training:
            result = result * (torch.rand(x.shape[0], 1, 1, 1) < 1 - self.p) / (1 - self.p)
        return torch.relu(x + result)


class Odd(nn.Module):
    """Constants, a buffer that is not saved, code without gradients, lower precision."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.dropout = nn.Linear(8, 8), nn.Linear(8, 3), nn.Dropout(0.2)
        self.register_buffer("shift", torch.randn(8), persistent=False)
        self.scale = torch.randn(8)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.dropout(self.inner(x * self.scale + self.shift + torch.tensor([1.0] * 8)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.inner(x)
        for _ in range(2):
            x = self.dropout(functional.relu(self.inner(x.float())))
        return self.head(x)


class Sampled(nn.Module):
    """Gumbel, normal and Bernoulli draws whose parameters are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.spread = nn.Parameter(torch.randn(1, 8))

    def forward(self, x: Tensor) -> Tensor:
        x, spread = self.inner(x), functional.softplus(self.spread)
        x = x + functional.gumbel_softmax(x, tau=0.5) + torch.normal(x[:, :1], spread)
        x = x + torch.distributions.Normal(x, 1.0).rsample() * torch.bernoulli(torch.sigmoid(x))
        noisy = self.head.weight + 0.1 * torch.randn_like(self.head.weight)
        return functional.linear(x, noisy)


class Cells(nn.Module):
    """A recurrent cell under one mask for all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 6)
        mask = functional.dropout(torch.ones_like(state), 0.3, self.training)
        for step in x.unflatten(1, (2, 4)).unbind(1):
            state = self.cell(step, state * mask)
        return self.head(state)


def _normalised() -> nn.Module:
    norm = nn.utils.parametrizations
    return nn.Sequential(
        norm.weight_norm(nn.Linear(8, 8)),
        nn.Dropout(0.1),
        norm.spectral_norm(nn.Linear(8, 8)),
        nn.RMSNorm(8),
        nn.Linear(8, 3),
    )


def _convolutions() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(2, 6, 3, groups=2, padding="same"), nn.Dropout1d(0.2), nn.GroupNorm(2, 6)),
        *(nn.Unflatten(2, (2, 2, 2)), nn.Conv3d(6, 4, 2, padding=1), nn.Dropout3d(0.2)),
        *(nn.InstanceNorm3d(4, affine=True), nn.Flatten(2, 3), nn.ConvTranspose2d(4, 3, 2)),
        *(nn.Upsample(scale_factor=2, mode="bilinear"), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def _residual() -> nn.Module:
    blocks = [StochasticDepth(p) for p in (0.2, 0.5, 0.9)]
    return nn.Sequential(nn.Conv2d(2, 4, 3), *blocks, nn.Flatten(), nn.Linear(64, 3))


class Cached(nn.Module):
    """In evaluation mode a table of its weights is worked out once, and kept by device (LeViT)."""

    def __init__(self):
        super().__init__()
        self.biases, self.head, self.drop = (
            nn.Parameter(torch.rand(4)),
            nn.Linear(8, 3),
            nn.Dropout(),
        )
        self.cache = {}
        self.eval()(torch.zeros(1, 8))  # with gradients

    def train(self, mode=True):
        self.cache = {} if mode else self.cache
        return super().train(mode)

    def forward(self, x):
        if self.training:
            return self.head(self.drop(x + self.biases[[0, 1, 1, 2, 2, 2, 3, 3]]))
        key = str(x.device)
        if key not in self.cache:
            self.cache[key] = self.biases[[0, 1, 1, 2, 2, 2, 3, 3]]
        return self.head(self.drop(x + self.cache[key]))


class Enlarged(nn.Module):
    """Lines, maps and volumes of what is kept, each enlarged to the nearest entry."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8 + 6 + 27, 3)

    def forward(self, x):
        kept = functional.dropout(self.inner(x), 0.3, self.training)
        to_nearest = partial(functional.interpolate, mode="nearest-exact")
        larger = [
            to_nearest(kept.view(-1, 2, 4)[..., :3], size=4),
            to_nearest(kept.view(-1, 1, 2, 4), scale_factor=(1.5, 0.7)),
            to_nearest(kept.view(-1, 1, 2, 2, 2), size=3),
        ]
        return self.head(torch.cat([part.flatten(1) for part in larger], 1))


BROUGHT = {
    "enlarged": (Enlarged, (8,), ["native_dropout.default"]),
    "a cache": (Cached, (8,), ["native_dropout.default"]),
    "stochastic depth": (_residual, (2, 6, 6), ["rand.default"] * 3),
    "odd forms": (Odd, (8,), ["native_dropout.default"] * 3),
    "computed draws": (
        Sampled,
        (8,),
        [
            *("exponential.default", "normal.Tensor_Tensor", "normal_functional.default"),
            *("bernoulli.default", "randn_like.default"),
        ],
    ),
    "cells": (Cells, (8,), ["native_dropout.default"]),
    "normalised weights": (_normalised, (8,), ["native_dropout.default"]),
    "convolutions": (_convolutions, (2, 8), ["bernoulli.p"] * 2),
}


@pytest.mark.parametrize("name", BROUGHT)
def test_what_users_bring_is_lifted_and_its_point_graph_is_evaluation_mode(name, path):
    torch.manual_seed(0)
    build, row, operators = BROUGHT[name]
    network = build().requires_grad_(False).eval()
    bundle = export(network, torch.randn(1, *row), path, **declared())
    assert [site.operator.removeprefix("aten.") for site in bundle.sites] == operators
    if name != "computed draws":
        x = torch.randn(7, *row)
        result = point(bundle, **{bundle.manifest.inputs[0].name: x})
        torch.testing.assert_close(result, network(x), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of importing torch's own compiler
def test_what_is_wrapped_for_speed_is_the_network_inside(path):
    plain = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    x = torch.randn(2, 8)
    digests = {
        export(wrapped, x, path, **declared()).digest
        for wrapped in (plain, nn.DataParallel(plain), torch.compile(plain))
    }
    assert len(digests) == 1


def test_a_layer_that_keeps_everything_is_no_site(path):
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            for keep in (1.0, 0.5):
                x = x * x.new_empty(x.shape[0], 1).bernoulli_(keep) / keep
            return self.head(x)

    bundle = export(Keeps(), torch.randn(2, 8), path, **declared())
    assert [site.drop_prob for site in bundle.sites] == [0.5]
    assert bundle.sites[0].granularity == "path"


def test_a_site_states_the_p_of_its_layer_and_is_drawn_with_its_own(path):
    body = [nn.Conv2d(1, 2, 3), DropBlock2d(0.3, 3), nn.Flatten(), nn.Linear(72, 3)]
    bundle = export(nn.Sequential(*body), torch.randn(2, 1, 8, 8), path, **declared())
    (site,) = bundle.sites
    assert site.drop_prob == 0.3
    assert site.keep_prob == 1 - body[1].seed_prob((6, 6))
    assert load_bundle(path).sites == bundle.sites


def test_a_probability_that_a_layer_holds_under_another_name_is_stated_as_drawn(path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop_prob, self.late_drop_prob, self.head = 0.3, 0.1, nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            for p in (self.drop_prob, self.late_drop_prob):
                x = x * torch.bernoulli(torch.ones_like(x), 1 - p)
            return self.head(x)

    bundle = export(Two(), torch.randn(2, 8), path, **declared())
    assert [(site.drop_prob, site.keep_prob) for site in bundle.sites] == [(0.3, None), (0.1, None)]


class Counting(nn.Module):
    """Asks how many rows there are, in a way that changes no number."""

    def __init__(self, count: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.count, self.norm, self.head = count, nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.dropout, self.token = nn.Dropout(0.3), nn.Parameter(torch.randn(8))
        self.neuron = Neuron()

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.head(self.count(self, self.dropout(x)) + other.view(len(other), -1))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.aside, self.head, self.dropout = nn.Linear(8, 2), nn.Linear(8, 3), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.aside(x), self.head(self.dropout(x))


def test_an_output_is_picked_by_an_integer_position(path):
    assert export(Pair(), torch.randn(2, 8), path, output_name=1, **declared()).manifest.classes


class Neuron(nn.Module):
    """Keeps its charge in a buffer, and begins anew where that has another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("charge", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.charge = torch.zeros_like(self.charge)
        for _ in range(2):
            if self.charge.shape != x.shape:
                self.charge = torch.zeros_like(x)
            self.charge = 0.9 * self.charge + x
        return self.charge


def in_chunks(network: nn.Module, x: Tensor) -> Tensor:
    chunks = x.chunk(int(np.ceil(x.shape[0] / 16)), 0)
    return torch.cat([network.norm(chunk) for chunk in chunks])


COUNTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a limit from above": lambda n, x: x.contiguous() if x.shape[0] >= 64 else x,
    "a limit from below": lambda n, x: x if x.shape[0] > 3 else x.clone(),
    "virtual batches": in_chunks,
    "a neuron's charge": lambda n, x: n.neuron(x),
    "a split": lambda n, x: torch.cat([n.norm(part) for part in x.split(16)]),
    "places of rows": lambda n, x: x + x[range(len(x)), x.argmax(1)].unsqueeze(1),
    "a length": lambda n, x: torch.cat([n.token.expand(len(x), 8), x], 1).view(len(x), -1)[:, 8:],
    "an integer": lambda n, x: x + n.token.expand(int(x.shape[0]), 1, 8).reshape(int(x.size(0)), 8),
    "a mask per row": (
        lambda n, x: x * torch.bernoulli(torch.full((len(x), 1), 0.7)) if n.training else x
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_network_may_ask_how_many_rows_there_are_where_that_changes_no_number(name, path):
    network, example = Counting(COUNTS[name]), (torch.randn(4, 8), torch.randn(4, 8))
    network.eval()(*example)  # which leaves a charge
    before = {key: value for key, value in globals().items() if key in ("len", "int", "range")}
    bundle = export(network, example, path, task="classification", output="logits")
    assert {
        key: value for key, value in globals().items() if key in ("len", "int", "range")
    } == before
    rows = torch.randn(70, 8), torch.randn(70, 8)
    names = [spec.name for spec in bundle.manifest.inputs]
    with torch.no_grad():
        eager = network.eval()(*rows)
    torch.testing.assert_close(point(bundle, **dict(zip(names, rows, strict=True))), eager)


class Alongside(nn.Module):
    """Takes size or type of a row, or arithmetic on its weights, and no number of another row."""

    def __init__(self, made: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.made, self.head = made, nn.Linear(8, 3)
        self.dropout, self.weight = nn.Dropout(0.3), nn.Parameter(torch.randn(6, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(x) + self.made(self, x))


def standardised(network: nn.Module, x: Tensor) -> Tensor:
    weight = network.weight.view(1, 6, 8)
    weight = functional.batch_norm(
        weight, None, None, weight[0, :, 0], weight[0, :, 1], True, eps=1e-4
    )
    return functional.conv1d(x[:, :, None], weight.view(6, 8, 1)).mean(1)


ALONGSIDE: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "the type of the rows": lambda n, x: torch.arange(8).type_as(x) * n.weight[0, :, 0],
    "zeros like a row": lambda n, x: torch.zeros_like(x[0]) + n.weight[0, :, 0],
    "zeros of a row's kind": lambda n, x: x[0].new_zeros(8) + n.weight[0, :, 0],
    "a triangle of ones like a row": lambda n, x: torch.ones_like(x[0]).diag().triu().sum(0),
    "standardised weights": standardised,
}


@pytest.mark.parametrize("name", ALONGSIDE)
def test_what_reads_no_number_of_a_row_is_no_interaction(name, path):
    network, x = Alongside(ALONGSIDE[name]), torch.randn(7, 8)
    bundle = export(network, torch.randn(4, 8), path, task="classification", output="logits")
    with torch.no_grad():
        torch.testing.assert_close(point(bundle, x=x), network.eval()(x))


SQUEEZES: dict[str, Callable[[Tensor], Tensor]] = {
    "of all axes": lambda x: x.squeeze(),
    "of the rows, by mistake": lambda x: x.squeeze(0).squeeze(-1),
    "of several": lambda x: x.squeeze((0, 2)),
}


class Squeezed(nn.Module):
    """Squeezes a map with one place, and with it a batch with one row."""

    def __init__(self, squeeze: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.map, self.head, self.squeeze = nn.Conv1d(8, 8, 1), nn.Linear(8, 3), squeeze
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.squeeze(self.map(x.unsqueeze(-1)))))


@pytest.mark.parametrize("name", SQUEEZES)
def test_a_squeeze_keeps_the_axis_of_a_single_row(name, path):
    network, x = Squeezed(SQUEEZES[name]), torch.randn(4, 8)
    bundle = export(network, x, path, task="classification", output="logits")
    with torch.no_grad():
        together = network.eval()(x)
    torch.testing.assert_close(point(bundle, x=x[:1]), together[:1])
    torch.testing.assert_close(point(bundle, x=x), together)


class Forgetting(nn.Module):
    """Steps of which the last three alone reach the output."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x[:, 0]
        for step in range(x.shape[1]):
            state = 1e-4 * state + self.dropout(x[:, step])
        return self.head(state)


class Weak(nn.Module):
    """Three draws, of which one shows: one that nothing reads, and one behind a gate at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.recurrent = nn.Linear(8, 8), nn.Linear(8, 3), nn.LSTM(8, 8, 2)
        self.recurrent.dropout = 0.3
        self.unread, self.dropout, self.gated = nn.Dropout(0.4), nn.Dropout(0.5), nn.Dropout(0.2)
        self.gate = nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        self.unread(x), self.recurrent(x[None]), functional.alpha_dropout(x, 0.3, self.training)
        self.dropout(x)
        hidden = self.dropout(self.inner(x))
        return self.head(hidden + self.gate * self.gated(hidden))


def test_draws_that_nothing_reads_are_left_out_and_those_that_do_not_show_are_named(path):
    network = Weak()
    bundle = export(network, torch.randn(4, 8), path, task="classification", output="logits")
    assert [site.module_path for site in bundle.sites] == ["dropout", "gated"]
    left_out, *rest = bundle.manifest.warnings
    whole = {f"module `{name}`" for name in ("unread", "recurrent", "(the network itself)")}
    said = {line.removesuffix(" feeds no served output: left out") for line in (left_out, *rest)}
    assert whole | {"a draw of module `dropout`"} <= said
    (dead,) = (line for line in bundle.manifest.warnings if "change nothing" in line)
    assert dead.startswith("1 of 2 random operations")
    assert "`gated`" in dead
    engine = Engine.load(bundle)
    assert engine.sample(torch.randn(2, 8)).std(0).min() > 0


def test_of_many_steps_those_that_show_are_found_among_those_that_do_not(path):
    torch.manual_seed(0)
    cells = Forgetting()
    bundle = export(cells, torch.randn(4, 12, 4), path, task="classification", output="logits")
    assert len(bundle.sites) == 12
    (dead,) = (line for line in bundle.manifest.warnings if "change nothing" in line)
    assert dead.startswith("9 of 12 random operations")


class Cancelling(nn.Module):
    """Large terms that add up to nothing: float32 rounds them otherwise in another batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.drop, self.head = nn.Linear(13, 50), nn.Dropout(0.05), nn.Linear(100, 1)
        torch.manual_seed(0)
        weight = 100 * torch.randn(1, 50)
        with torch.no_grad():
            self.head.weight.copy_(torch.cat((weight, -weight), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        units = torch.relu(10 * self.hidden(x))
        return self.head(torch.cat((units, units), dim=1)) + self.drop(x).mean(1, keepdim=True)


def test_rounding_of_terms_that_cancel_is_no_interaction_of_rows(path):
    network, rows = Cancelling(), torch.randn(4, 13)
    network.eval()
    alone = torch.cat([network(row) for row in rows.split(1)])
    assert (network(rows) - alone).abs().max() > 1e-5  # else it shows nothing
    export(network, rows, path, **declared("mean"))
    assert len(load_bundle(path).sites) == 1


def test_a_refusal_comes_without_torchs_own_lines_and_with_those_of_the_network(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            print("a line of the network's own", file=sys.stderr)
            return self.network(x) if x.sum() > 0 else x[:, :3]

    torchs = logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    logger.addHandler(torchs)
    with pytest.raises(ExportError, match="data-dependent"):
        export(Branching(), torch.ones(3, 4), tmp_path / "x.dubito", **declared())
    logger.removeHandler(torchs)
    assert torchs.stream.getvalue() == ""
    assert set(capfd.readouterr().err.splitlines()) == {"a line of the network's own"}
