"""Transforms of torchvision as images that a bundle can declare, told by their classes.

Taken are those of evaluation: a change to grey, a resize, a crop about the centre, the change to a
tensor, a standardisation, in this order, on their own, in a `Compose` or `Sequential`, or as the
preset that comes with weights (`weights.transforms()`). torchvision itself is not imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

from dubito_nn.errors import ExportError
from dubito_nn.preprocess.images import ImageInput

_Transform: TypeAlias = Any  # of torchvision
_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_TO_TENSOR = ("ToTensor", "PILToTensor", "ToImage", "ToImageTensor", "ToPureTensor")
_TO_FLOAT = ("ConvertImageDtype", "ToDtype", "ConvertDtype")
_SAYS_NOTHING = ("Identity", "RGB", "ToPILImage")
_OF_TENSORS = (
    "from_torchvision: a resize behind {step} is torchvision's own, of which Pillow's, which the"
    " server takes, differs by a level of 255 here and there, in bicubic by up to 4: put the resize"
    " in front of it, and evaluate the network once with the bundle's images"
)


def from_torchvision(transforms: object, *, input: str | None = None, **options: Any) -> ImageInput:
    """Declare what transforms of torchvision make of an image opened by Pillow, in mode RGB.

    Args:
        transforms: one, several, or the preset of weights.
        input: of the network; None: its only one.
        options: fields of `ImageInput` in the place of what is read off it, such as `orient`.

    Raises:
        ExportError: naming the transform that draws, or has no declaration, or stands elsewhere.

    Warns:
        UserWarning: an image is resized as a tensor, which torchvision does in a way of its own.
    """
    reading = _Reading()
    for step in _steps(transforms):
        reading.take(step)
    declared = {"crop_rounding": "even", "background": None, **reading.declared(), **options}
    try:
        return ImageInput(**declared, input=input)
    except TypeError as error:
        known = ", ".join(field.name for field in fields(ImageInput) if field.init)
        raise ExportError(f"from_torchvision expects fields of {known}: {error}") from error


def _steps(transforms: _Transform) -> Iterator[_Transform]:
    """The transforms one after the other, those within others too."""
    name = type(transforms).__name__
    if isinstance(transforms, list | tuple):
        inner: Any = transforms
    elif name in ("Compose", "Sequential"):
        inner = getattr(transforms, "transforms", transforms)
    else:
        yield transforms
        return
    for one in inner:
        yield from _steps(one)


class _Reading:
    """What the steps so far declare."""

    def __init__(self) -> None:
        self._declared: dict[str, Any] = {}
        self._tensor: str | None = None  # the step that made one
        self._is_float = False

    def take(self, step: _Transform) -> None:
        """Take in the next one."""
        name, origin = type(step).__name__, type(step).__module__.partition(".")[0]
        if origin not in ("torchvision", "torch"):
            raise ExportError(
                f"from_torchvision expects transforms of torchvision, got {origin}.{name}: declare"
                " an ImageInput that does the same"
            )
        if name == "ImageClassification":
            self._preset(step)
        elif name == "Resize":
            self._resize(name, step.size, step.interpolation, step.max_size)
        elif name == "CenterCrop":
            self._declare(name, crop=_pair(step.size))
        elif name == "Grayscale":
            self._grey(step)
        elif name in _TO_TENSOR:
            self._to_tensor(name, is_float=name == "ToTensor")
        elif name in _TO_FLOAT:
            self._to_float(name, step)
        elif name == "Normalize":
            self._normalize(step.mean, step.std)
        elif name not in _SAYS_NOTHING:
            raise ExportError(
                f"from_torchvision expects Resize, CenterCrop, Grayscale, ToTensor and Normalize"
                f" as of an evaluation, got {name}: leave out what is for training, or declare an"
                " ImageInput that does the same"
            )

    def declared(self) -> dict[str, Any]:
        """Fields of the part.

        Raises:
            ExportError: no step makes numbers of an image.
        """
        if self._tensor is None:
            raise ExportError(
                "from_torchvision expects a step that makes a tensor, such as ToTensor, got none:"
                " add it as the network is fed"
            )
        return {"scale": 1 / 255 if self._is_float else 1.0, **self._declared}

    def _preset(self, preset: _Transform) -> None:
        self._resize("its resize", preset.resize_size, preset.interpolation, None)
        self._declare("its crop", crop=_pair(preset.crop_size))
        self._to_tensor("its tensor", is_float=True)
        self._normalize(preset.mean, preset.std)

    def _resize(self, name: str, size: Any, interpolation: Any, longest: Any) -> None:
        if longest is not None:
            raise ExportError(
                f"from_torchvision expects a Resize without max_size, got {longest}: leave it out"
            )
        if size is None:
            return
        if self._tensor is not None:
            warnings.warn(_OF_TENSORS.format(step=self._tensor), stacklevel=4)
        sides = [size] if isinstance(size, int) else [int(side) for side in size]
        filter = str(getattr(interpolation, "value", interpolation)).lower()
        if filter not in _FILTERS:
            raise ExportError(
                f"from_torchvision expects an interpolation of {', '.join(_FILTERS)}, got"
                f" {interpolation}: Pillow has no other"
            )
        if "crop" in self._declared:
            raise ExportError(
                f"from_torchvision expects {name} in front of the crop, got it behind: declare an"
                " ImageInput of the sizes that come out"
            )
        resized = {"shorter_side": sides[0]} if len(sides) == 1 else {"size": tuple(sides)}
        self._declare(name, filter=filter, **resized)

    def _grey(self, step: _Transform) -> None:
        if step.num_output_channels != 1:
            raise ExportError(
                "from_torchvision expects Grayscale of one channel, got"
                f" {step.num_output_channels}: give the network one"
            )
        self._declare("Grayscale", mode="L")

    def _to_tensor(self, name: str, *, is_float: bool) -> None:
        self._tensor = self._tensor or name
        self._is_float = self._is_float or is_float

    def _to_float(self, name: str, step: _Transform) -> None:
        dtype = str(getattr(step, "dtype", None))
        if dtype != "torch.float32" or not getattr(step, "scale", True):
            raise ExportError(
                f"from_torchvision expects {name} to float32 with scale=True, got {dtype}: or"
                " declare an ImageInput with a `scale` of its own"
            )
        self._is_float = True

    def _normalize(self, mean: Any, std: Any) -> None:
        if not self._is_float:
            raise ExportError(
                "from_torchvision expects Normalize behind ToTensor or ToDtype(float32,"
                " scale=True), got it in front: change their order"
            )
        self._declare("Normalize", mean=_numbers(mean), std=_numbers(std))

    def _declare(self, name: str, **fields: Any) -> None:
        again = [key for key in fields if key in self._declared]
        if again or (not {"mean", "std"} & {*fields} and "mean" in self._declared):
            raise ExportError(
                f"from_torchvision expects each step once, and Normalize last, got {name} again or"
                " behind it: declare an ImageInput"
            )
        self._declared |= fields


def _pair(size: Any) -> tuple[int, int]:
    sides = [size] if isinstance(size, int) else [int(side) for side in size]
    return sides[0], sides[-1]


def _numbers(given: Any) -> float | Sequence[float]:
    plain = given.tolist() if hasattr(given, "tolist") else given
    return tuple(map(float, plain)) if isinstance(plain, list | tuple) else float(plain)
