"""Transforms of torchvision become a declaration that makes the same numbers, or are refused.

torchvision is no dependency: where it is installed, its own transforms are held against ours; the
classes below have the names and fields of torchvision 0.29, from which a declaration is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dubito.preprocess.images.kind import ImageKind
from dubito_nn import ExportError, export, load_bundle, preprocess
from dubito_nn.preprocess import ImageInput, from_torchvision

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def _like(name: str, **fields: Any) -> Any:
    """A transform with the fields that torchvision's own of this name has."""
    kind = type(name, (), {"__module__": "torchvision.transforms.transforms"})
    made = kind()
    vars(made).update(fields)
    return made


def _resize(size: Any, max_size: int | None = None, interpolation: str = "bilinear") -> Any:
    return _like("Resize", size=size, max_size=max_size, interpolation=interpolation)


CROP, TENSOR = _like("CenterCrop", size=(56, 56)), _like("ToTensor")
NORMAL = _like("Normalize", mean=MEAN, std=STD)
FLOAT = _like("ToDtype", dtype=torch.float32, scale=True)
PRESET = {"crop_size": [56], "resize_size": [64], "mean": MEAN, "std": STD}


@pytest.mark.parametrize(
    ("transforms", "declared"),
    [
        (
            [_resize(64), CROP, TENSOR, NORMAL],
            ImageInput(shorter_side=64, crop=(56, 56), mean=tuple(MEAN), std=tuple(STD)),
        ),
        (
            _like("ImageClassification", interpolation="bilinear", **PRESET),
            ImageInput(shorter_side=64, crop=(56, 56), mean=tuple(MEAN), std=tuple(STD)),
        ),
        (
            _like("Compose", transforms=[_resize([8, 9], interpolation="bicubic"), TENSOR]),
            ImageInput(size=(8, 9), filter="bicubic"),
        ),
        (
            [_like("Grayscale", num_output_channels=1), _like("ToImage"), FLOAT],
            ImageInput(mode="L"),
        ),
        ([CROP, _like("PILToTensor")], ImageInput(crop=(56, 56), scale=1.0)),
    ],
)
def test_transforms_are_read_off(transforms: object, declared: ImageInput) -> None:
    expected = replace(declared, crop_rounding="even", background=None)
    assert from_torchvision(transforms) == expected
    turned = from_torchvision(transforms, orient=False, input="x")
    assert turned == replace(expected, orient=False, input="x")


@pytest.mark.parametrize(
    ("transforms", "reason"),
    [
        (_like("RandomHorizontalFlip"), "got RandomHorizontalFlip: leave out what is for training"),
        ([_resize(64)], "expects a step that makes a tensor"),
        ([NORMAL, TENSOR], "Normalize behind ToTensor"),
        ([TENSOR, NORMAL, NORMAL], "Normalize again"),
        ([CROP, _resize(64), TENSOR], "Resize in front of the crop"),
        ([TENSOR, NORMAL, CROP], "CenterCrop again or behind it"),
        ([_resize(64, max_size=90), TENSOR], "without max_size, got 90"),
        ([_resize(64, interpolation="nearest-exact"), TENSOR], "got nearest-exact"),
        ([_like("Grayscale", num_output_channels=3), TENSOR], "one channel, got 3"),
        ([_like("ToImage"), _like("ToDtype", dtype=torch.float16, scale=True)], "float32"),
        (lambda image: image, "expects transforms of torchvision, got builtins.function"),
    ],
)
def test_what_has_no_declaration_is_refused_by_name(transforms: object, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        from_torchvision(transforms)


def test_a_resize_of_tensors_is_warned_of_and_an_unknown_field_refused() -> None:
    with pytest.warns(UserWarning, match="a resize behind ToImage is torchvision's own"):
        from_torchvision([_like("ToImage"), _resize(64), FLOAT])
    with pytest.raises(ExportError, match=r"fields of .*crop_rounding"):
        from_torchvision([TENSOR], colour="red")


@pytest.mark.parametrize(
    ("side", "wanted", "start"), [(341, 224, 58), (343, 224, 60), (8, 5, 2), (4, 5, 0), (3, 6, -1)]
)
def test_a_crop_begins_where_torchvision_begins_it(side: int, wanted: int, start: int) -> None:
    """Where one pixel more is on one side, at the even place; what is added lies behind."""
    row = np.arange(1, side + 1) % 256
    image = Image.fromarray(np.tile(row.astype(np.uint8), (wanted, 1)))
    part = from_torchvision(
        [_like("CenterCrop", size=wanted), _like("PILToTensor")], mode="L", layout="HW", input="x"
    )
    made = np.asarray(ImageKind().make(part, {"x": [image]}, {}, [])["x"])[0]
    places = start + np.arange(wanted)
    is_inside = (places >= 0) & (places < side)
    expected = np.where(is_inside, row[places.clip(0, side - 1)], 0)
    np.testing.assert_array_equal(made[0], expected)


def test_the_rounding_is_written_where_it_is_used(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 4 * 4, 2))
    rows, options = torch.rand(3, 3, 4, 4), {"task": "classification", "output": "logits"}
    for part, is_written in (
        (from_torchvision([_like("CenterCrop", size=4), TENSOR]), True),
        (preprocess.ImageInput(crop=(4, 4)), False),
    ):
        path = tmp_path / f"{is_written}.dubito"
        made: Any = export(network, rows, path, preprocess=part, **options)  # type: ignore[arg-type]
        (written,) = made.manifest.to_json()["preprocess"]
        assert ("crop_rounding" in written) is is_written
        assert load_bundle(path).manifest.preprocess == (replace(part, input="input"),)


def _torchvision(name: str) -> Any:
    try:
        return importlib.import_module(f"torchvision.{name}")
    except (ImportError, RuntimeError):  # of another torch
        pytest.skip("torchvision is not installed")


def _compose() -> Any:
    transforms = _torchvision("transforms")
    return transforms.Compose(
        [
            *(transforms.Resize(61), transforms.CenterCrop(56), transforms.ToTensor()),
            transforms.Normalize(MEAN, STD),
        ]
    )


def _of_weights() -> Any:
    presets = _torchvision("transforms._presets")
    return presets.ImageClassification(crop_size=56, resize_size=64)


@pytest.mark.parametrize("make", [_compose, _of_weights])
def test_numbers_are_those_of_torchvision(make: Callable[[], Any]) -> None:
    transforms, random = make(), np.random.default_rng(0)
    part = from_torchvision(transforms, input="x")
    for _ in range(100):
        height, width = (int(side) for side in random.integers(20, 200, 2))
        coarse = random.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height))
        made = np.asarray(ImageKind().make(part, {"x": [image]}, {}, [])["x"])[0]
        np.testing.assert_allclose(made, np.asarray(transforms(image)), atol=1e-5)
