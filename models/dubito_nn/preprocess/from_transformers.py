"""What `transformers` keeps of a network's inputs, as a declaration: told by what it can do."""

from __future__ import annotations

from typing import Any

from dubito_nn.errors import BundleError, ExportError
from dubito_nn.preprocess.image_processor import image_of
from dubito_nn.preprocess.images import ImageInput
from dubito_nn.preprocess.text import TextInput, canonical
from dubito_nn.preprocess.tokenizer import read_tokenizer

_LONGEST = 10**6  # beyond it `model_max_length` says that nobody knows


def from_transformers(
    processor: object, *, input: str | None = None, **options: Any
) -> ImageInput | TextInput:
    """Declare what a processor, or a fast tokenizer, of transformers makes inputs of.

    Args:
        processor: a fast tokenizer; or an image processor on Pillow, such as
            `ViTImageProcessorPil`, or what holds one.
        input: of the network, for the image, or the numbers of the pieces; None: its only one.
        options: fields of `TextInput`, or `ImageInput`, in the place of those that are read off
            it: `max_length`, `length`, `pair`, the names of the inputs; `background`.

    Raises:
        ExportError: naming what it is, or the component of it that has no declaration.
    """
    kinds = [kind.__name__ for kind in type(processor).__mro__]
    if "ImageProcessingMixin" in kinds or hasattr(processor, "image_processor"):
        return image_of(processor, options if input is None else {"input": input, **options})
    if hasattr(processor, "model_input_names") and hasattr(processor, "convert_ids_to_tokens"):
        return _of_tokenizer(processor, options if input is None else {"ids": input, **options})
    raise ExportError(
        "from_transformers expects a fast tokenizer or an image processor, got"
        f" {type(processor).__module__}.{type(processor).__name__}: take it off the pipeline that"
        " holds it, or declare a part of dubito_nn.preprocess"
    )


def _of_tokenizer(tokenizer: Any, options: dict[str, Any]) -> TextInput:
    name = type(tokenizer).__name__
    if not getattr(tokenizer, "is_fast", False):
        raise ExportError(
            f"from_transformers expects a fast tokenizer, whose file is data, got {name}, which is"
            " a slow one: load it with AutoTokenizer, or convert it by"
            " transformers.convert_slow_tokenizer"
        )
    content = canonical(tokenizer.backend_tokenizer)
    try:
        read_tokenizer(content.encode())
    except BundleError as error:
        raise ExportError(f"from_transformers: {name}: {error}") from error
    longest, taken = tokenizer.model_max_length, tokenizer.model_input_names
    read = {
        "max_length": longest if longest < _LONGEST else None,
        "truncation_side": tokenizer.truncation_side,
        "padding_side": tokenizer.padding_side,
        "pad_id": tokenizer.pad_token_id,
        "pad_type_id": tokenizer.pad_token_type_id,
        "mask": "attention_mask" if "attention_mask" in taken else None,
        "type_ids": "token_type_ids" if "token_type_ids" in taken else None,
    }
    declared = {**read, **options}
    for field, remedy in (
        ("max_length", "such as max_length=512"),
        ("pad_id", "such as pad_id=0, or set tokenizer.pad_token"),
    ):
        if declared[field] is None:
            raise ExportError(
                f"from_transformers expects a tokenizer with a `{field}`, got {name} without one:"
                f" give it, {remedy}"
            )
    try:
        return TextInput(content, **declared)
    except TypeError as error:
        known = ", ".join(TextInput.__dataclass_fields__)
        raise ExportError(f"from_transformers expects fields of {known}: {error}") from error
