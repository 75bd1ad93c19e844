"""Numbers at every position, and quantiles: what export writes, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dubito_nn import Bundle, BundleError, ExportError, export, load_bundle
from dubito_nn.bundle import bundle_bytes

LEVELS = (0.05, 0.25, 0.5, 0.9)
IMAGES, TABLE = torch.randn(4, 1, 6, 5), torch.randn(4, 4)


class Ended(nn.Module):
    """A body with dropout, and an end that a test writes."""

    def __init__(self, body: nn.Module, end: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.body, self.end = body, end

    def forward(self, x: Tensor) -> object:
        return self.end(self.body(x))


def convolution(num_outputs: int, end: Callable[[Tensor], object] = lambda h: h) -> nn.Module:
    """Maps of the input's size, (B, num_outputs, height, width)."""
    return Ended(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Dropout2d(0.3), nn.Conv2d(4, num_outputs, 1)
        ),
        end,
    )


def perceptron(columns: int, end: Callable[[Tensor], object] = lambda h: h) -> nn.Module:
    """Columns of a row of 4 numbers, (B, columns)."""
    return Ended(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, columns)), end
    )


def exported(network: nn.Module, path: Path, **declared: object) -> Bundle:
    rows = IMAGES if isinstance(next(network.children())[0], nn.Conv2d) else TABLE
    said = {"task": "regression", "output": "mean"} | declared
    return export(network, rows, path, **said)  # type: ignore[arg-type]


def point(bundle: Bundle, x: Tensor) -> Tensor:
    """What the graph of a bundle makes of some rows in evaluation mode."""
    return bundle.point.run({"x": x}, bundle.weights)["output"]


@pytest.mark.parametrize(
    ("network", "declared", "num_outputs", "axis"),
    [
        (convolution(1), {"output_axis": 1}, 1, 1),
        (convolution(3), {"output_axis": -3, "target_scale": (1.0, 2.0)}, 3, 1),
        (perceptron(12, lambda h: h.view(-1, 6, 2)), {"output_axis": -1}, 2, 2),
    ],
    ids=["a depth map", "a map of three numbers", "a forecast"],
)
def test_means_at_every_position_are_served_as_the_network_returns_them(
    tmp_path: Path, network: nn.Module, declared: dict[str, object], num_outputs: int, axis: int
) -> None:
    bundle = exported(network, tmp_path / "means.dubito", **declared)
    manifest, x = bundle.manifest, IMAGES if num_outputs != 2 else TABLE
    assert (manifest.head, manifest.family) == ("dense_regression", "regression")
    assert manifest.has_positions
    assert (manifest.num_outputs, manifest.output_axis, manifest.channel_axis) == (
        num_outputs,
        axis,
        axis,
    )
    torch.testing.assert_close(point(bundle, x), network.eval()(x))


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("is_pair", [True, False])
def test_the_two_halves_of_every_position_stand_behind_each_other(
    tmp_path: Path, axis: int, is_pair: bool
) -> None:
    def halves(h: Tensor) -> object:
        columns = h if axis == 1 else h.movedim(1, -1)
        return tuple(columns.chunk(2, axis)) if is_pair else columns

    network = convolution(4, halves)
    declared = {"output": "mean_and_log_variance", "output_axis": axis}
    bundle = exported(network, tmp_path / "halves.dubito", **declared)
    assert (bundle.manifest.num_outputs, bundle.manifest.output_axis) == (2, axis % 4)
    returned = network.eval()(IMAGES)
    mean, log_variance = returned if is_pair else returned.chunk(2, axis)
    found = point(bundle, IMAGES)
    torch.testing.assert_close(found[:, 0], mean)
    torch.testing.assert_close(found[:, 1], log_variance)


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_quantiles_are_served_by_output_and_level(tmp_path: Path, num_outputs: int) -> None:
    shape = (len(LEVELS),) if num_outputs == 1 else (num_outputs, len(LEVELS))
    network = perceptron(num_outputs * len(LEVELS), lambda h: h.view(-1, *shape))
    scale = (list(range(num_outputs)), 2.0)
    bundle = exported(
        network,
        tmp_path / "quantiles.dubito",
        output="quantiles",
        quantile_levels=torch.tensor(LEVELS, dtype=torch.float64),
        target_scale=scale,
    )
    manifest = bundle.manifest
    assert (manifest.head, manifest.family) == ("quantiles", "regression")
    assert not manifest.has_positions
    assert (manifest.num_outputs, manifest.quantile_levels) == (num_outputs, LEVELS)
    assert manifest.target_scale == (tuple(map(float, scale[0])), (2.0,) * num_outputs)
    expected = network.eval()(TABLE).view(4, num_outputs, len(LEVELS))
    torch.testing.assert_close(point(bundle, TABLE), expected)


def test_a_manifest_says_of_these_heads_only_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "any.dubito"
    plain = exported(perceptron(2), path).manifest
    mapped = exported(convolution(1), path, output_axis=1).manifest
    levels = {"output": "quantiles", "quantile_levels": LEVELS}
    several = exported(perceptron(4), path, **levels).manifest
    keys = set(plain.to_json())
    assert plain.head == "regression"
    assert set(mapped.to_json()) - keys == {"output_axis"}
    assert set(several.to_json()) - keys == {"quantile_levels"}
    assert not keys & {"class_axis", "output_axis", "quantile_levels"}


QUANTILES = {"output": "quantiles", "quantile_levels": LEVELS}
PAIR = {"output": "mean_and_log_variance"}


@pytest.mark.parametrize(
    ("network", "declared", "said"),
    [
        (convolution(2), {}, r"shape \(rows, D\), got \(5, 2, 6, 5\).*output_axis="),
        (convolution(2), {"output_axis": 0}, r"from 1 to 3 or counted from the end, got 0"),
        (convolution(2), {"output_axis": True}, r"got True: name that of the outputs"),
        (perceptron(2), {"output_axis": 1}, r"got the shape \(5, 2\): leave it out"),
        (convolution(2), {"class_axis": 1}, r"class_axis belongs to a classification"),
        (
            convolution(3),
            PAIR | {"output_axis": 1},
            r"on the output_axis 1, got \(rows, 3, 6, 5\)",
        ),
        (convolution(2), PAIR | {"output_axis": 4}, r"2 D on the output_axis 4, got"),
        (convolution(2), PAIR, r"one \(rows, 2 D\) tensor, got \(rows, 2, 6, 5\)"),
        (
            convolution(2, lambda h: (h[:, :1], softplus(h[:, 1:]))),
            PAIR | {"output_axis": 1},
            r"`softplus` .* 0 or above.*torch.log\(variance\)",
        ),
        (perceptron(4), {"output": "quantiles"}, r"needs them.*quantile_levels=\(0.1, 0.5, 0.9\)"),
        (perceptron(4), {"quantile_levels": LEVELS}, r"'mean' and \(0.05.*leave them out"),
        (perceptron(4), QUANTILES | {"output_axis": 1}, r"output_axis belongs to .*'quantiles'"),
        (
            perceptron(5),
            QUANTILES,
            r"quantile_levels last, got \(rows, 5\).*view\(-1, D, 4\)",
        ),
        (convolution(4), QUANTILES, r"\(rows, D, Q\) .* got \(rows, 4, 6, 5\)"),
        (
            perceptron(4, lambda h: h.view(-1, 2, 2)),
            QUANTILES,
            r"Q = 4 quantile_levels last, got \(rows, 2, 2\)",
        ),
        *(
            (perceptron(3), QUANTILES | {"quantile_levels": levels}, r"3 to 1000 levels between")
            for levels in (
                (0.5,),
                (0.1, 0.5),
                (0.5, 0.7, 0.9),
                (0.1, 0.3, 0.5),
                (0.1, 0.4, 0.9),
                (0.9, 0.5, 0.1),
                (0.1, 0.5, 0.5, 0.9),
                (0.0, 0.5, 1.0),
                (0.1, 0.5, float("nan")),
                (0.1, 0.5, "high"),
                0.5,
            )
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_remedy(
    tmp_path: Path, network: nn.Module, declared: dict[str, object], said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        exported(network, tmp_path / "refused.dubito", **declared)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"quantile_levels": None}, "quantile_levels"),
        ({"quantile_levels": (0.5, 0.1, 0.9)}, "3 to 1000 levels between"),
        ({"quantile_levels": (0.1, 0.9)}, "3 to 1000 levels between"),
        ({"quantile_levels": ("0.1", 0.5, 0.9)}, "finite number"),
        ({"quantile_levels": 0.5}, "expects a list"),
        ({"quantile_levels": (0.5,) * 1001}, "at most 1000"),
        ({"output": "mean"}, "quantile_levels expects null for mean"),
        ({"output_axis": 1}, "output_axis expects null for quantiles"),
        ({"class_axis": 1}, "class_axis expects null for regression"),
        ({"output": "mean", "quantile_levels": None, "output_axis": 0}, "an integer in"),
        ({"output": "mean", "quantile_levels": None, "output_axis": "1"}, "an integer in"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    bundle = exported(perceptron(4), tmp_path / "quantiles.dubito", **QUANTILES)
    manifest = dataclasses.replace(bundle.manifest, **changed)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=said):
        load_bundle(bundle_bytes(manifest, bundle.sampling, bundle.point, bundle.weights))
