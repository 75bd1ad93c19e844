"""An image processor of transformers as images that a bundle can declare.

Its job: read the steps of a processor that runs on Pillow off its fields. Processors are told by
their classes; transformers itself is not imported. One that computes a step in a way of its own is
refused, but for ConvNeXT's, whose way has a declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from dubito_nn.errors import ExportError
from dubito_nn.preprocess.images import Filter, ImageInput

_Processor: TypeAlias = Any  # of transformers
_FILTERS: dict[int, Filter] = {
    **{0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
}
_STEPS = (
    *("_preprocess", "preprocess", "process_image", "convert_to_rgb", "resize", "center_crop"),
    *("rescale", "normalize", "pad"),
)
_CONVNEXT = "ConvNextImageProcessorPil"
_AS_ALL = ("BeitImageProcessorPil", _CONVNEXT)  # whose own steps do what is declared here
_WARPED = 384  # side from which ConvNeXT's processor crops no more


def image_of(processor: object, options: Mapping[str, Any]) -> ImageInput:
    """Declare the images that a processor of transformers makes tensors of.

    Args:
        processor: an image processor on Pillow, or what holds one as `image_processor`.
        options: fields in the place of those that are read off it.

    Raises:
        ExportError: naming the processor that runs on torchvision, which resizes otherwise, or has
            steps that have no declaration.
    """
    own: _Processor = getattr(processor, "image_processor", processor)
    _check(own)
    channels_mean, channels_std = (
        _numbers(getattr(own, key), 0.0 if key == "image_mean" else 1.0, own)
        for key in ("image_mean", "image_std")
    )
    factor = float(own.rescale_factor) if _does(own, "rescale") else 1.0
    read = {
        **_resizing(own),
        "filter": _filter(own),
        "scale": factor,
        "mean": channels_mean,
        "std": channels_std,
    }
    try:
        return ImageInput(**{**read, **options})
    except TypeError as error:
        known = ", ".join(field.name for field in fields(ImageInput) if field.init)
        raise ExportError(f"from_transformers expects fields of {known}: {error}") from error


def _check(processor: _Processor) -> None:
    """Refuse a processor that does not go through the common steps on Pillow."""
    kind, lineage = type(processor).__name__, {one.__name__: one for one in type(processor).__mro__}
    if "TorchvisionBackend" in lineage or getattr(processor, "backend", "pil") != "pil":
        raise ExportError(
            f"from_transformers expects an image processor on Pillow, got {kind} on torchvision,"
            " whose resize differs by up to 4 of 255 levels: load it with backend='pil'"
        )
    common = lineage.get("PilBackend")
    if common is None:
        raise ExportError(
            "from_transformers expects an image processor of transformers 5 on Pillow, got"
            f" {kind} of {type(processor).__module__}: declare an ImageInput"
        )
    own = [name for name in _STEPS if getattr(type(processor), name) is not getattr(common, name)]
    if own and kind not in _AS_ALL:
        raise ExportError(
            f"from_transformers expects a processor of the common steps, got {kind}, whose"
            f" {', '.join(own)} is its own: declare an ImageInput that does the same"
        )
    for option in ("do_pad", "do_reduce_labels", "do_flip_channel_order"):
        if getattr(processor, option, None):
            raise ExportError(
                f"from_transformers expects {kind} without `{option}`: leave it out, or declare an"
                " ImageInput"
            )


def _resizing(processor: _Processor) -> dict[str, Any]:
    """What is resized and cropped."""
    resized: dict[str, Any] = {}
    if _does(processor, "resize"):
        size = _plain(processor.size)
        if set(size) == {"height", "width"}:
            resized["size"] = (size["height"], size["width"])
        elif set(size) == {"shortest_edge"}:
            resized["shorter_side"] = size["shortest_edge"]
        else:
            raise ExportError(
                "from_transformers expects a size of height and width or shortest_edge, got"
                f" {sorted(size)} of {type(processor).__name__}: declare an ImageInput"
            )
        if type(processor).__name__ == _CONVNEXT:
            resized = _of_convnext(processor, resized["shorter_side"])
    if _does(processor, "center_crop"):
        crop = _plain(processor.crop_size)
        if "crop" in resized:
            raise ExportError(
                f"from_transformers expects {type(processor).__name__} to crop once, got crop_size"
                " as well: leave it out"
            )
        resized["crop"] = (crop["height"], crop["width"])
    return resized


def _of_convnext(processor: _Processor, side: int) -> dict[str, Any]:
    """Resized by a little more than what is cropped; from 384 on warped instead."""
    if side >= _WARPED:
        return {"size": (side, side)}
    return {"shorter_side": int(side / processor.crop_pct), "crop": (side, side)}


def _filter(processor: _Processor) -> Filter:
    return _FILTERS[2 if processor.resample is None else int(processor.resample)]


def _numbers(given: Any, otherwise: float, processor: _Processor) -> float | tuple[float, ...]:
    if not _does(processor, "normalize"):
        return otherwise
    return tuple(map(float, given)) if isinstance(given, list | tuple) else float(given)


def _does(processor: _Processor, step: str) -> bool:
    return bool(getattr(processor, f"do_{step}", None))


def _plain(size: Any) -> dict[str, int]:
    """The sides that a size states."""
    stated = size if isinstance(size, Mapping) else vars(size)
    return {key: int(value) for key, value in stated.items() if value is not None}
