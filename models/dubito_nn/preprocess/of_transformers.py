"""What transformers makes of inputs, as a part that a bundle can declare."""

from __future__ import annotations

from dubito_nn.errors import ExportError
from dubito_nn.preprocess.image_processor import image_of
from dubito_nn.preprocess.images import ImageInput


def from_transformers(processor: object, *, input: str | None = None) -> ImageInput:
    """Declare what a processor of transformers makes the input of.

    Args:
        processor: an image processor on Pillow, such as `ViTImageProcessorPil`, or what holds one.
        input: of the network; None: its only one.

    Raises:
        ExportError: naming what it is, where that has no declaration.
    """
    kinds = [kind.__name__ for kind in type(processor).__mro__]
    if "ImageProcessingMixin" in kinds or hasattr(processor, "image_processor"):
        return image_of(processor, input=input)
    raise ExportError(
        f"from_transformers expects an image processor, got {type(processor).__name__}: give"
        " `processor.image_processor`, or declare a part of dubito_nn.preprocess"
    )
