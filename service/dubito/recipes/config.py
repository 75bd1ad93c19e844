"""The configuration of `dubito train`: TOML, read strictly.

Flow: file -> TOML -> tables checked key by key -> `TrainConfig`, or one `InputError` that names the
key, what was expected there and, for a key that does not exist, those that do.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from dubito.errors import InputError
from dubito.labels import LabelsAre
from dubito.problems import read_problems

Rate = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]


class Table(BaseModel):
    """A table of the file: no key but those it knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: object) -> object:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                meant = f" (did you mean `{near[0]}`?)" if near else ""
                known = ", ".join(sorted(cls.model_fields))
                raise ValueError(f"unknown key `{key}`{meant}, the keys are {known}")
        return given


class MLPTable(Table):
    """A multi-layer perceptron."""

    kind: Literal["mlp"]
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 64)
    drop_inputs: StrictBool = False
    heteroscedastic: StrictBool = False
    standardise: StrictBool = True


class CNNTable(Table):
    """A small convolutional network for images."""

    kind: Literal["cnn"]
    image_shape: tuple[Count, Count, Count] | None = None
    channels: tuple[Count, Count] = (32, 64)
    hidden: Count = 128
    cosine_scale: Positive | None = None


class SELUTable(Table):
    """A self-normalising network; its p is `dropout.drop_prob`."""

    kind: Literal["selu"]
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 64)
    standardise: StrictBool = True


class ResNetTable(Table):
    """A residual network for images; `dropout.drop_prob` is that before its head."""

    kind: Literal["resnet"]
    image_shape: tuple[Count, Count, Count] | None = None
    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (16, 32)
    stochastic_depth: Rate = 0.1
    dropblock: Rate = 0.1
    block_size: Count = 3


class RNNTable(Table):
    """A recurrent network for tokens; `dropout.drop_prob` is that of inputs and states."""

    kind: Literal["rnn"]
    num_words: Count | None = None
    embedding_size: Count = 32
    hidden: Count = 64
    num_layers: Count = 1
    cell: Literal["lstm", "gru"] = "lstm"
    word_drop_prob: Rate = 0.1


class TransformerTable(Table):
    """An encoder for tokens; `dropout.drop_prob` is that of all places but attention."""

    kind: Literal["transformer"]
    num_words: Count | None = None
    num_features: Count = 32
    num_heads: Count = 4
    num_layers: Count = 2
    attention_drop_prob: Rate = 0.1


TokenTable = RNNTable | TransformerTable
NetworkTable = Annotated[
    MLPTable | SELUTable | CNNTable | ResNetTable | RNNTable | TransformerTable,
    Field(discriminator="kind"),
]
_KINDS = {"mlp", "selu", "cnn", "resnet", "rnn", "transformer", "standard", "concrete"}


class StandardTable(Table):
    """Dropout with fixed rates."""

    kind: Literal["standard"] = "standard"
    drop_prob: Rate = 0.2
    spatial_drop_prob: Rate = 0.1


class ConcreteTable(Table):
    """Dropout that learns its rates."""

    kind: Literal["concrete"]
    drop_prob_init: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] = 0.1
    length_scale: Positive = 1e-2


DropoutTable = Annotated[StandardTable | ConcreteTable, Field(discriminator="kind")]


class TrainingTable(Table):
    """How the network is trained."""

    epochs: Count = 100
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    weight_decay: NotNegative = 0.0
    l1: NotNegative = 0.0
    max_norm: Positive | None = None
    clip_norm: Positive | None = None
    label_smoothing: Rate = 0.0
    mixup: Positive | None = None
    validation_share: Rate = 0.2
    patience: Count | None = None
    reestimate_batch_norm: StrictBool = False
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    device: str = "cpu"


class SearchTable(Table):
    """Which drop probabilities are tried."""

    drop_prob: Annotated[
        tuple[Annotated[float, Field(strict=True, gt=0.0, lt=1.0)], ...], Field(min_length=1)
    ]
    num_samples: Annotated[int, Field(strict=True, ge=2)] = 64


class TrainConfig(Table):
    """The whole file."""

    data: Path
    bundle: Path
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    labels_are: LabelsAre | None = None
    notes: str | None = None
    network: NetworkTable
    dropout: DropoutTable = StandardTable()
    training: TrainingTable = TrainingTable()
    search: SearchTable | None = None

    @field_validator("classes")
    @classmethod
    def _refuse_equal_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError(f"expected different names, got {', '.join(names)}")
        return names


def read_config(path: Path) -> TrainConfig:
    """Read a configuration; the paths in it are relative to its own folder.

    Raises:
        InputError: it is not TOML, a key is unknown or missing, or a value is out of range.
        OSError: the file cannot be read.
    """
    try:
        config = TrainConfig.model_validate(_with_kind(tomllib.loads(path.read_text("utf-8"))))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected TOML, got something else: {error}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {_first(error)}") from error
    folder = path.parent
    return config.model_copy(
        update={"data": folder / config.data, "bundle": folder / config.bundle}
    )


def _with_kind(given: dict[str, object]) -> dict[str, object]:
    """The tables with the kind of dropout written out where it is the default one."""
    dropout = given.get("dropout")
    return (
        given | {"dropout": {"kind": "standard"} | dropout} if isinstance(dropout, dict) else given
    )


def _first(error: ValidationError) -> str:
    """The first thing wrong: key, and what was expected and given."""
    path, message = read_problems(error.errors())[0]
    # Pydantic names the member of a union as well.
    key = ".".join(part for part in path.split(".") if part not in _KINDS)
    return f"{key}: {message}" if key else message
